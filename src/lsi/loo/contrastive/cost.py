"""Counted operations and bytes of a run on pairs, without those of the data and of a dense posterior.

The batch is the largest number of pairs that are compared with each other, `n_weights` counts both heads.
"""

from __future__ import annotations

from lsi.loo.contrastive.newton import (
    DOUBLE_LIMIT,
    DOUBLE_PAIRS,
    REBUILD_OPERATIONS,
    REFINE_OPERATIONS,
    TASK_PAIRS,
    operations,
)
from lsi.loo.contrastive.result import MATCH_NUMBERS
from lsi.loo.contrastive.retrain import copies_together


def newton_cost(
    n_pairs: int, batch: int, dim: int, n_weights: int, n_scored: int, has_frozen: bool, refined: bool
) -> tuple[float, int]:
    """Return operations and bytes of `Newton`; `refined`: whether it has a tolerance."""
    solve, rebuild = operations(batch, dim, n_weights, has_frozen)
    item = 8 if n_weights <= DOUBLE_LIMIT and batch <= DOUBLE_PAIRS else 4
    fit = 100 * 12.0 * n_pairs * batch * dim
    factor = 4.0 * n_pairs * n_weights**2 + 2.0 * n_weights**3
    leave = n_scored * 8.0 * batch * n_weights
    if refined and n_scored * solve <= REFINE_OPERATIONS:
        leave += n_scored * solve
        if n_scored * rebuild <= REBUILD_OPERATIONS or not has_frozen:
            leave += n_scored * rebuild
    audit = 12 * (4 * solve + rebuild)
    # Logits and softmaxes of a batch, gradients of its normalisers, Hessian with factor and inverse, matches.
    numbers = 10 * batch**2 + 6 * batch * n_weights + 4 * n_weights**2
    matches = 24 * min(MATCH_NUMBERS, TASK_PAIRS * batch * dim)
    return fit + factor + leave + audit, item * numbers + matches + (64 << 20)


def retrain_cost(
    n_pairs: int, batch: int, dim: int, n_weights: int, n_scored: int, epochs: int
) -> tuple[float, int]:
    """Return operations and bytes of `Retrain`."""
    copies = copies_together(batch)
    step = 20.0 * n_pairs * (batch * dim + n_weights / dim)
    numbers = copies * (4 * batch**2 + 6 * n_weights) + 10 * batch**2
    return epochs * (n_scored + 10) * step, 8 * numbers + (64 << 20)
