"""A trained probe as arrays and back: what is stored is what training found, and the rest is built again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.execution.work import Arrays
from lsi.features.design import Design
from lsi.loo.newton.dense import PROBES, Inverse
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.ridge import RidgeEngine
from lsi.methods import Newton
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.fit import ACCEPTED_DECREMENT, FitReport
from lsi.probes.softmax.model import SoftmaxModel
from lsi.run.context import Run
from lsi.tasks import task_of
from lsi.tasks.classification import NewtonFit, assembled, untrained
from lsi.tasks.sigmoid import HeadsEngine

INVERSE = ("inverse", "probes", "decay_step", "drift")
"""Arrays of an `Inverse`."""
SLACK = 1e4  # that a decrement may have grown by: the sums of another machine round otherwise


def parts_of(fitted: Any) -> tuple[Arrays, Any]:
    """Return what restoring a trained probe takes: arrays, and what the fit reported as JSON values.

    A probe that is solved in closed form needs none.
    """
    if isinstance(fitted, RidgeEngine):
        return {}, {}
    heads = isinstance(fitted, HeadsEngine)
    arrays = {"theta": torch.stack(fitted.weights) if heads else fitted.model.theta}
    basis = fitted.basis if heads else fitted.posterior.basis
    if basis is not None:
        arrays["basis"] = basis
    if not heads and isinstance(fitted.engine, NewtonEngine):
        arrays |= _of(fitted.engine)
    if heads and fitted.n_heads == 1:  # of several, each is factorised again whenever it is asked
        arrays |= _of(fitted.head(0))
    told = [asdict(report) for report in fitted.reports] if heads else fitted.told
    return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}, told


def _of(engine: NewtonEngine) -> dict[str, Tensor]:
    held = engine.solver.inverse
    drift = torch.tensor(held.drift, dtype=torch.float64)
    return dict(zip(INVERSE, (held.matrix, held.probes, held.decay_step, drift), strict=True))


def restored(run: Run, settings: Newton, arrays: Arrays, told: Any) -> Any:
    """Return the trained probe of a run from `parts_of`.

    Raises InputError where the parts do not fit the data or each other.
    """
    kept = _Kept(arrays, run)
    if "theta" not in arrays:
        fit = task_of(run.probe).fit
        if fit is None or run.problem.n_classes or run.problem.target.dtype.kind == "i":
            raise InputError("there are no weights")
        return fit(run, settings)
    return (
        _heads(run, settings, kept, told) if isinstance(told, list) else _softmax(run, settings, kept, told)
    )


def _softmax(run: Run, settings: Newton, kept: _Kept, told: Any) -> NewtonFit:
    """Return the trained probe of classes."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[told["dtype"]]
    design = run.design(dtype)
    basis = kept.basis(design)
    model = untrained(run, design if basis is None else design.rotated(basis))
    model.weight_decay += settings.added_weight_decay
    model.theta = kept.take("theta", tuple(model.theta.shape), torch.float64)
    dense = told["solver"] == "dense"
    curvature = kept.inverse(model) if dense else BlockCurvature.of(model)
    if isinstance(curvature, Inverse):
        _check_optimum(model, curvature)
    return assembled(run, settings, model, curvature, basis, dict(told))


def _heads(run: Run, settings: Newton, kept: _Kept, told: Any) -> HeadsEngine:
    """Return the trained heads."""
    engine = HeadsEngine.of(run, settings, kept.basis)
    count, shape = engine.n_heads, (1, engine.design.n_features)
    if len(told) != count:
        raise InputError(f"{len(told)} heads are described, and the data have {count}")
    engine.weights = list(kept.take("theta", (count, *shape), torch.float64))
    engine.reports = [FitReport(**report) for report in told]
    if count == 1:
        engine.restore(kept.inverse)
    _check_optimum(engine.head(0).model, engine.head(0).solver.inverse)
    return engine


def _check_optimum(model: SoftmaxModel, inverse: Inverse) -> None:
    """Refuse weights that are not the optimum of the data."""
    objective, gradient = model.objective_and_gradient(model.theta)
    flat = gradient.reshape(-1).to(inverse.matrix)
    decrement = float((inverse.matrix @ flat) @ flat)
    if not abs(decrement) <= SLACK * ACCEPTED_DECREMENT * min(1.0, objective):
        raise InputError("the weights are not the optimum of the data")


class _Kept:
    """Stored arrays, each checked when it is taken."""

    def __init__(self, arrays: Arrays, run: Run) -> None:
        self.arrays, self.device = arrays, run.device

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an array of a shape and type on the device."""
        found = self.arrays.get(name)
        wanted = np.dtype(str(dtype).removeprefix("torch."))
        if found is None or found.shape != shape or found.dtype != wanted or not np.isfinite(found).all():
            raise InputError(f"{name} is not what the data and settings make it: finite {wanted} {shape}")
        return torch.from_numpy(found).to(self.device)

    def basis(self, design: Design) -> Tensor | None:
        """Return the basis of the model's coordinates, `(D₀, D)`; None: they are the original ones."""
        if "basis" not in self.arrays:
            return None
        width = min(design.n_samples, design.n_features)
        return self.take("basis", (design.n_features, width), torch.float64)

    def inverse(self, model: SoftmaxModel) -> Inverse:
        """Return the inverse of a model's curvature."""
        dtype, (k, d) = model.design.dtype, model.theta.shape
        return Inverse(
            self.take("inverse", (k * d, k * d), dtype),
            self.take("probes", (PROBES, k, d), dtype),
            self.take("decay_step", (k, d), dtype),
            float(self.take("drift", (), torch.float64)),
        )
