"""Counted operations and bytes of `Newton`, by solver.

Symbols: N samples, D features, C classes, K = D·(C−1) parameters.
"""

from __future__ import annotations

import torch

from lsi.loo.audit import REBUILD_LIMIT, default_count
from lsi.loo.newton import block_engine
from lsi.loo.newton.coupled import coupled_bytes, coupled_work, walked_together
from lsi.loo.newton.dense import BLOCK_BYTES, block_of
from lsi.loo.newton.engine import REFINE_BLOCK, SAMPLED_TASK, TASKS, samples_rows
from lsi.loo.refit import PASSES, is_small
from lsi.probes.softmax.fit import DENSE_START, SINGLE_START
from lsi.probes.softmax.model import ROWS
from lsi.system.device import has_fast_double
from lsi.validation.problem import Shape

# Rows read for a left-out sample, what a weight of one costs in operations of a product, with gathering and
# choosing them, and the share of samples that are swept: measured on CIFAR-10 features.
TYPICAL_ROWS, ROW_WEIGHT, ROWS_SWEPT = 740, 90.0, 0.012
FIT_PASSES = 300  # over the data, of descent and conjugate gradients: 170 to 570 on CIFAR-10 features
AUDIT_PASSES = 15  # of a sample to 1e-7
# Measured by `python -m benchmarks.estimates`, on shapes from 150 × 4 × 3 to 20,000 × 384 × 2, in operations
# that a matrix product would have done in that time.
ELEMENT = {"kron": 2500.0}  # one probability of one row in a sweep, with its exponential; else:
PLAIN_ELEMENT = 700.0
SWEEPS = 2.0  # of a sample: 1.3 to 3 where classes overlap
# More where they are separable, the more features a sample has: 3 at D/N = 0.04, 5 to 11 above 0.25.
MORE_SWEEPS, FEW_SAMPLES = 5.5, 0.25
RANDOM_SEPARABLE = 2.0  # samples for each feature, up to which random labels are likely separable
SMALL_FIT = 30.0  # Hessians of a fit, each at a fifth of the speed of a product
FACTOR = 2.0  # of a large matrix with its inverse, at half the speed
REBUILT = 4.0  # of a full posterior
REFIT = 10.0  # of a sample of a small problem, in NumPy
TYPICAL_ENTRIES = (
    16  # classes with a noticeable probability in a row: 8 on features that fit, 32 where they do not
)
DOUBLE_LIMIT = 2e11  # (N + K)·K² up to which everything runs in float64: a few seconds at most
# GPUs without fast float64 have some 0.3 TFLOP/s of it, and a hundred times as much of float32.
SLOW_DOUBLE = 8.0


def working_dtype(shape: Shape, device: torch.device | None = None) -> torch.dtype:
    """Return the type of the dense solver's large products: float64 while the whole problem is small.

    A GPU without fast float64 does what a processor does in the same time.
    """
    limit = DOUBLE_LIMIT if device is None or has_fast_double(device) else DOUBLE_LIMIT / SLOW_DOUBLE
    k = _rank(shape)
    return torch.float64 if (shape.n_samples + k) * k**2 <= limit else torch.float32


def _rank(shape: Shape) -> int:
    """Return the parameters that the data determine: with N < D the probe lives in the span of the rows."""
    return min(shape.n_samples, shape.n_features) * (shape.n_classes - 1)


def dense_cost(
    shape: Shape, posterior: str, tol: float | None, separable: bool | None = None
) -> tuple[float, int]:
    """Return operations and bytes of the dense solver.

    `separable`: whether the probe separates the classes; None: where even random labels would be, up to two
    samples for each feature (Cover, 1965).
    """
    n, d, c, n_scored = shape.n_samples, shape.n_features, shape.n_classes, shape.n_scored
    dtype, k = working_dtype(shape), _rank(shape)
    full, item = posterior == "full", dtype.itemsize
    rebuilt = REBUILT * (n * k**2 + 3.0 * k**3) if full else 0.0  # a full posterior without one sample
    if k <= DENSE_START:
        fit = SMALL_FIT * (n * k**2 / 2 + k**3 / 3)
    else:
        fit = FIT_PASSES * 4 * n * k + 0.63 * n * k**2 + FACTOR * k**3
    block, holds_reach = block_of(c - 1, min(n, d), dtype, BLOCK_BYTES)
    # Without reach, leverages take one more product, and some ten products and inverses of C × C in double.
    step = 2.0 * k**2 if holds_reach else 3.0 * k**2 + 20.0 * c**3
    leave = n_scored * (step + (1.2 * k**2 if full else 0.0))
    separable = n <= RANDOM_SEPARABLE * d if separable is None else separable
    swept = (SWEEPS + separable * MORE_SWEEPS * min(1.0, d / n / FEW_SAMPLES)) * n_scored
    if tol is None:
        swept = 0.0
    elif samples_rows(n, k, tol):
        swept = ROWS_SWEPT * n_scored if not full or k <= REBUILD_LIMIT else 0.0
        leave += n_scored * (2.0 * k**2 + ROW_WEIGHT * TYPICAL_ROWS * k)
    walk = 4.0 * n * k + 2.0 * k**2 + ELEMENT.get(posterior, PLAIN_ELEMENT) * n * c
    refine = swept * (walk + rebuilt)
    exact, exact_bytes = AUDIT_PASSES * (12.0 * n * k + 2.0 * k**2), 0
    if is_small(shape, posterior):
        # Three arrays of all rows and weights, in double precision.
        exact, exact_bytes = REFIT * (6.0 * PASSES * n * k + k**3), 3 * 8 * n * k
    audit = default_count(k, posterior) * (exact + rebuilt)

    # A block of first-order steps, the rows of a Hessian's panels, and what the libraries need themselves.
    tensors = 3 * k * (c - 1) * item if holds_reach else 3 * k * item + 6 * 8 * c**2
    least = SAMPLED_TASK if tol is not None and samples_rows(n, k, tol) else REFINE_BLOCK
    together = min(block, n, max(least, n_scored // TASKS))
    working = together * tensors + 2 * min(n, ROWS) * k * item + (32 << 20)
    inverse = 2 * item if k > SINGLE_START or item == 8 else 2 * 8 + item  # in the memory of the factor
    matrices = (7 * 8 + 2 * item if full else inverse) * k**2
    return fit + leave + refine + audit, int(2 * n * d * item + matrices + max(working, exact_bytes))


def blocks_cost(shape: Shape, posterior: str, tol: float | None) -> tuple[float, int]:
    """Return operations and bytes of the solver by class blocks."""
    n, d, c, n_scored = shape.n_samples, shape.n_features, shape.n_classes, shape.n_scored
    k, product = d * (c - 1), 4.0 * n * d * (c - 1)
    entries = min(c, TYPICAL_ENTRIES) * n
    blocks = 2.0 * entries * d**2
    # Some 30 evaluations of descent; then two Newton steps of ten products each, which take the logits twice.
    fit = 30 * product + 2 * (10 * 1.5 + 2) * product + 2 * blocks
    leave = n_scored * (2.0 * min(c, TYPICAL_ENTRIES) * d**2 + 6.0 * d * c)
    solved = block_engine.solving_work(n, d, c, entries)
    refine = 0.0
    if tol is not None:
        refined, coupled = block_engine.refined_counts(n_scored, n, d, c, entries, posterior)
        pilots = min(block_engine.PILOTS, n_scored - refined)
        refine = (refined + pilots) * solved + coupled * coupled_work(entries, d, c, posterior)
    audit = default_count(k, posterior) * 3 * solved

    resident = 4 * n * d + 20 * entries
    if tol is not None:
        together = min(n_scored, walked_together(d, c, block_engine.BLOCK_BYTES))
        resident += coupled_bytes(together, d, c, entries)
    # What was measured for 20 to 1,000 classes; small data do not fill the blocks.
    working = min((512 << 20) + (3 << 30) * min(1.0, c / 1000), (64 << 20) + 300 * n * c)
    modes = 16 * 4 * c * c if posterior == "kron" else 0
    memory = resident + 4 * c * d * d + 60 * 8 * k + working + modes
    return fit + leave + refine + audit, int(memory)
