"""Which engine a factorised curvature is for."""

from __future__ import annotations

from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.newton.settings import Newton
from lsi.posterior.base import Posterior
from lsi.probes.blocks import BlockCurvature
from lsi.probes.fit import Curvature
from lsi.probes.model import SoftmaxModel


def make_engine(
    model: SoftmaxModel,
    curvature: Curvature | BlockCurvature,
    posterior: Posterior,
    settings: Newton,
    memory: int | None = None,
) -> NewtonEngine | BlockEngine:
    """Return the engine of a solver.

    Args:
        model: The trained probe.
        curvature: What its fit left: the whole Hessian, or class blocks of it.
        posterior: The posterior that scores are taken of.
        settings: Tolerance and limits.
        memory: Bytes that the run may use, from which the blocks get their size; None: no limit.
    """
    if isinstance(curvature, BlockCurvature):
        return BlockEngine(curvature, posterior, settings, memory)
    return NewtonEngine(model, curvature, posterior, settings, memory)
