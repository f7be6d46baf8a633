"""Which samples an audit leaves out again: some at random, and those likeliest to be wrong."""

from __future__ import annotations

import numpy as np

from lsi.loo.result import LooResult

RANDOM = 0.5  # share of the picks that is random: only these say how good the run is on the whole


def attack_picks(
    result: LooResult,
    count: int,
    seed: int,
    *,
    first: np.ndarray | None = None,
    alike: np.ndarray | None = None,
) -> np.ndarray:
    """Return the positions in `result` to audit, sorted, `(min(count, done),)`.

    Half of them are random, one from each of as many strata of rank. The others attack: in turn the highest
    scores, the highest leverages, the largest relative gap between `first` and the final score, and those
    most like another sample. What is not finite is passed over.

    Args:
        result: What the run found; only entries that are done are picked.
        count: How many to pick.
        seed: Of the random half.
        first: First-order scores in nats, `(n,)`; None: no gap is looked at.
        alike: How like its nearest neighbour each sample is, `(n,)`; None: not looked at.
    """
    done = np.flatnonzero(result.done)
    if count >= len(done):
        return done
    score = result.lsi
    reasons = [score, result.leverage]
    if first is not None:
        reasons.append(np.abs(score - first) / np.maximum(np.abs(score), np.finfo(float).tiny))
    if alike is not None:
        reasons.append(alike)
    picked = _strata(score, done, round(RANDOM * count), seed)
    queues = [iter(_highest(reason, done)) for reason in reasons]
    while len(picked) < count and queues:
        for queue in list(queues):
            fresh = next((int(place) for place in queue if int(place) not in picked), None)
            if fresh is None:
                queues.remove(queue)
            elif len(picked) < count:
                picked.add(fresh)
    left = [int(place) for place in done if int(place) not in picked]
    picked.update(left[: count - len(picked)])
    return np.array(sorted(picked))


def _strata(score: np.ndarray, done: np.ndarray, count: int, seed: int) -> set[int]:
    """Return a random entry of each of `count` equal strata of rank. Shapes: score `(n,)`, done `(m,)`."""
    generator = np.random.default_rng(seed)
    order = done[np.argsort(score[done], kind="stable")]
    edges = np.linspace(0, len(order), count + 1).astype(int)
    return {
        int(order[generator.integers(low, high)]) for low, high in zip(edges[:-1], edges[1:], strict=True)
    }


def _highest(reason: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Return the entries of `done` with a finite reason, the highest first. Shapes: reason `(n,)`."""
    known = done[np.isfinite(reason[done])]
    return np.asarray(known[np.argsort(-reason[known], kind="stable")])
