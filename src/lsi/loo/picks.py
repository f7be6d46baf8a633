"""Which samples are left out again: some at random, and those most likely to be wrong."""

from __future__ import annotations

import numpy as np

from lsi.loo.result import LooResult

RANDOM = 0.5  # share of an audit that is random: only these samples show how good the run is on the whole


def choose(scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which scores to audit: one at random from each of `count` equal strata of rank.

    Shapes: scores `(n,)`.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(scores, kind="stable")
    edges = np.linspace(0, len(order), min(count, len(order)) + 1).astype(int)
    picks = [order[generator.integers(low, high)] for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return np.sort(np.array(picks))


def choose_done(result: LooResult, count: int, seed: int) -> np.ndarray:
    """Return which of the entries that hold a result to audit, as `choose` does."""
    done = np.flatnonzero(result.done)
    return np.asarray(done[choose(result.lsi[done], count, seed)])


def attack_picks(result: LooResult, count: int, seed: int, apart: np.ndarray | None = None) -> np.ndarray:
    """Return the entries of `result` to audit, sorted, `(min(count, done),)`.

    Half of them are random, one from each of as many strata of rank. The others attack, in turn: the highest
    scores, the highest leverages, the largest steps from the first-order value to the final one, and the
    nearest neighbours of each other. Entries that are not finite come last.

    Shapes: apart `(n,)`, the distance to the nearest neighbour of each entry; None: not known.
    """
    done = np.flatnonzero(result.done)
    if count >= len(done):
        return done
    picked = dict.fromkeys(choose_done(result, max(1, round(RANDOM * count)), seed).tolist())
    reasons = [result.lsi, result.leverage, result.gap]
    if apart is not None:
        reasons.append(-apart)
    known = [reason[done] for reason in reasons if np.isfinite(reason[done]).any()]
    orders = [np.argsort(-reason, kind="stable") for reason in known or [np.zeros(len(done))]]
    for place in done[np.column_stack(orders)].ravel().tolist():  # in turn; NaN is sorted last
        if len(picked) == count:
            break
        picked.setdefault(place)
    return np.array(sorted(picked))
