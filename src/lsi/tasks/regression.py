"""Regression by a ridge probe: factorisation → leave-one-out in closed form → audit."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.loo.audit import default_count
from lsi.loo.result import LooResult
from lsi.loo.ridge import RidgeEngine, RidgeResult, ridge_cost
from lsi.methods import Method, Newton
from lsi.planning.cost import Estimate, product_rate
from lsi.probes.ridge import LARGE, RidgeModel
from lsi.run.context import Outcome, Run
from lsi.tasks.base import Task
from lsi.tasks.decay import ridge_curve, with_search
from lsi.validation.problem import Problem, check_problem


def check(probe: Any, posterior: str, method: Method) -> None:
    """Refuse stopped training: the optimum is known in closed form."""
    if not isinstance(method, Newton):
        raise InputError(
            "RidgeProbe is solved in closed form, without training. Leave method at 'newton'; stopped "
            "training acts like Newton.from_early_stopping(...)."
        )


def fit(run: Run, method: Method) -> RidgeEngine:
    """Factorise the data, which is all that leaving samples out takes."""
    target = torch.from_numpy(run.problem.target).to(run.device)
    added = method.added_weight_decay if isinstance(method, Newton) else 0.0
    with run.clock("fit"):
        model = RidgeModel.of(run.design(torch.float64), target, run.probe.weight_decay + added)
        noise = _noise(run, model)
    with run.clock("factor"):
        return RidgeEngine(model, run.posterior, run.prior_precision, noise)


def run(run: Run, method: Method) -> Outcome:
    """Score a regression."""
    engine: RidgeEngine = run.fitted or fit(run, method)
    model = engine.model
    with run.clock("leave-one-out"):
        result = engine.run(run.index, run.work)
    count = _audited(model.n_samples, model.design.n_features, run.posterior)
    return result, run.audited(engine, result, count), _report(model, engine.noise)


def _audited(n: int, d: int, posterior: str) -> int:
    """Return how many samples are left out again; each is a factorisation of its own."""
    count = default_count(d, posterior)
    return min(6, count) if n * d**2 > LARGE else count


def _noise(run: Run, model: RidgeModel) -> Tensor:
    """Return β, `(T,)`: given, or estimated from all samples."""
    given = run.probe.noise(model.target.shape[1])
    if given is not None:
        return torch.from_numpy(given).to(run.device)
    noise = model.noise_precision()
    if not bool(torch.isfinite(noise).all()):
        raise InputError(
            "noise_precision='estimate' finds no noise: the probe fits the targets exactly. Give a number."
        )
    return noise


def _report(model: RidgeModel, noise: Tensor) -> dict[str, Any]:
    spread = (model.target - model.target.mean(0)).square().sum(0)
    residual = model.squared_residuals()
    explained = torch.where(spread > 0, 1.0 - residual / spread, 0.0)
    return {
        "r_squared": explained.tolist(),
        "root_mean_squared_residual": (residual / model.n_samples).sqrt().tolist(),
        "degrees_of_freedom": model.degrees_of_freedom(),
        "noise_precision": noise.tolist(),
        "dtype": "float64",
    }


def cost(probe: Any, problem: Problem, posterior: str, method: Method, memory: int | None = None) -> Estimate:
    """Return the predicted time and memory."""
    shape = problem.shape()
    operations, count = ridge_cost(shape, _audited(shape.n_samples, shape.n_features, posterior))
    return with_search(Estimate(0.3 + operations / product_rate(torch.float64), count), probe, problem)


def columns(problem: Problem, result: LooResult) -> dict[str, np.ndarray]:
    """Return target and prediction without the sample."""
    assert isinstance(result, RidgeResult)
    given, predicted = problem.target[problem.subset], result.loo_prediction
    if given.shape[1] == 1:
        return {
            "label": given[:, 0],
            "loo_probability": result.loo_probability,
            "loo_prediction": predicted[:, 0],
            "loo_residual": given[:, 0] - predicted[:, 0],
            "loo_z": result.z[:, 0],
        }
    named = {f"label_{name}": given[:, t] for t, name in enumerate(problem.outputs)}
    named |= {f"loo_prediction_{name}": predicted[:, t] for t, name in enumerate(problem.outputs)}
    return {
        "label": _texts(given),
        "loo_probability": result.loo_probability,
        "loo_prediction": _texts(predicted),
        "loo_z": np.sqrt(np.mean(result.z**2, axis=1)),
        **named,
    }


def manifest(problem: Problem) -> dict[str, Any]:
    """Return the names of the targets."""
    return {"classes": [], "outputs": list(problem.outputs)}


def _texts(values: np.ndarray) -> np.ndarray:
    return np.array([", ".join(f"{value:.4g}" for value in row) for row in values], dtype=object)


TASK = Task(
    "regression",
    check,
    run,
    problem=partial(check_problem, task="regression"),
    cost=cost,
    columns=columns,
    manifest=manifest,
    decay_curve=ridge_curve,
    fit=fit,
)
