"""The fit of a probe as a step that is done once, even if the run is interrupted and resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError
from lsi.execution.work import Arrays, Here, Work
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.class_rows import ClassRows
from lsi.probes.softmax.fit import DENSE_START, TARGET_DECREMENT, Curvature, FitReport, fit
from lsi.probes.softmax.fit_blocks import fit_blocks
from lsi.probes.softmax.model import SoftmaxModel

Fitted = tuple[SoftmaxModel, Curvature, FitReport]
FittedBlocks = tuple[SoftmaxModel, BlockCurvature, FitReport]


def fit_once(untrained: SoftmaxModel, work: Work) -> Fitted:
    """Train a probe and factorise its curvature; after an interruption only the factorisation is repeated.

    The factor is not stored: it is built again at the same weights, which gives the same bits.
    """
    fresh: list[Fitted] = []
    rows = ClassRows(untrained)

    def hessian(model: SoftmaxModel, dtype: torch.dtype) -> Tensor:
        if model.theta.device.type != "cpu" and isinstance(work.executor, Here):
            return model.hessian(dtype)  # the same bits, without a way through the processor's memory
        return rows.hessian(model.theta, work, dtype)

    def train() -> Arrays:
        model, curvature, report = fit(_near(untrained, work), work.progress, hessian=hessian)
        fresh.append((model, curvature, report))
        built = curvature.built_at.cpu().numpy()
        return {**_arrays(model, report), "built_at": built, "drift": np.array(curvature.drift)}

    kept = work.once("fit", train)
    if fresh:
        return fresh[0]
    model = replace(untrained, theta=_theta(kept["theta"], untrained))
    curvature = Curvature.of(replace(untrained, theta=_theta(kept["built_at"], untrained)), hessian)
    curvature.drift = float(kept["drift"])
    return model, curvature, _report(kept)


def _near(untrained: SoftmaxModel, work: Work) -> SoftmaxModel:
    """Return a model from which one factor reaches the optimum: a Hessian is costly where it is large."""
    one_row_a_class = len(untrained.outputs) == untrained.n_classes
    if untrained.theta.numel() <= DENSE_START or not one_row_a_class:
        return untrained
    try:
        return fit_blocks(untrained, work.progress, target=TARGET_DECREMENT)[0]
    except ConvergenceError:  # single precision is not enough for its directions; `fit` has none
        return untrained


def fit_blocks_once(untrained: SoftmaxModel, work: Work, basis: Tensor | None = None) -> FittedBlocks:
    """Train a probe of many classes, or load its stored weights. Shapes: basis `(D, R)`."""
    kept = work.once("fit", lambda: _arrays(*fit_blocks(untrained, work.progress)))
    model = replace(untrained, theta=_theta(kept["theta"], untrained))
    if basis is not None:
        model = replace(model, design=model.design.rotated(basis), theta=model.theta @ basis)
    return model, BlockCurvature.of(model), _report(kept)


def solver_once(work: Work, choose: Callable[[], str]) -> str:
    """Return the solver of a run, which an interrupted run keeps."""
    kept = work.once("solver", lambda: {"blocks": np.array(choose() == "blocks")})
    return "blocks" if bool(kept["blocks"]) else "dense"


def _theta(values: np.ndarray, model: SoftmaxModel) -> Tensor:
    return torch.from_numpy(values).to(model.theta.device)


def _arrays(model: SoftmaxModel, report: FitReport) -> Arrays:
    told = {name: np.array(value) for name, value in asdict(report).items()}
    return {"theta": model.theta.cpu().numpy(), **told}


def _report(kept: Arrays) -> FitReport:
    values: dict[str, Any] = {name: kept[name].item() for name in FitReport.__dataclass_fields__}
    return FitReport(**values)
