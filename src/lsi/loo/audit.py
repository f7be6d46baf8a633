"""The audit: a few samples of every run are left out again by brute force."""

from __future__ import annotations

import time

import numpy as np
from torch import Tensor

from lsi.execution.work import Work
from lsi.loo.engine import Engine
from lsi.loo.picks import attack_picks
from lsi.loo.refit import Refit
from lsi.loo.result import LooResult
from lsi.results.audit import Audit

REBUILD_LIMIT = 1500  # parameters up to which a full posterior can be built again for every sample


def audit(
    engine: Engine | Refit,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    work: Work | None = None,
    apart: np.ndarray | None = None,
) -> Audit:
    """Return how far `result`, of the samples at `index`, is from `engine.exact` for `count` of them.

    Shapes: index `(n,)`; apart `(n,)`, the distance of each sample to its nearest neighbour.
    """
    began = time.perf_counter()
    picks, work, size = attack_picks(result, count, seed, apart), work or Work(), engine.audit_block
    positions = index.cpu().numpy()[picks]
    blocks = [positions[low : low + size] for low in range(0, len(positions), size)]
    # A shard audits samples of its own, and all of those: they are not divided again.
    found = dict(work.map("audit", engine, "exact", blocks, divided=False))
    exact = np.concatenate([found[place]["exact"] for place in range(len(blocks))])
    seconds = time.perf_counter() - began
    return Audit.from_values(
        positions,
        exact,
        result.lsi[picks],
        result.relative_error[picks],
        seconds,
        trusts=engine.trusts,
        resolution=engine.resolution,
    )


def default_count(n_parameters: int, posterior: str) -> int:
    """Return how many samples an audit leaves out: fewer where each costs a dense factorisation."""
    if n_parameters <= REBUILD_LIMIT:
        return 24
    return 4 if posterior == "full" else 16
