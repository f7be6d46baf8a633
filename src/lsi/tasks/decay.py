"""`weight_decay="auto"`: the search of each kind of probe, as a step that a run does once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.design import Design
from lsi.loo.decay import (
    MOST_ROWS,
    SEARCH_WORK,
    DecayCurve,
    LogLikelihoods,
    SoftmaxLikelihoods,
    affordable,
    chosen_rows,
    heaviest_decay,
    ridge_log_likelihoods,
    search,
)
from lsi.methods import Method, Newton
from lsi.planning.cost import Estimate, product_rate
from lsi.probes.ridge import RidgeModel
from lsi.probes.sigmoid import SigmoidModel
from lsi.probes.softmax.model import SoftmaxModel
from lsi.run.context import Run
from lsi.validation.problem import Problem
from lsi.validation.settings import AUTO

CurveOf = Callable[[Run, float], DecayCurve]
"""Searches for a run; its last argument is the method's `added_weight_decay`."""
MATRICES = 32  # bytes for each entry of a curvature: its sum, factor and inverse, and a block of steps
TRIED, FIT = 8, 12.0  # weight decays that are tried, and products of N·K² that each takes
LEAST_ROWS = 100  # of a regression, however many features there are


def refuse_auto(probe: Any) -> None:
    """Refuse to choose the weight decay of stopped training."""
    if probe.weight_decay == AUTO:
        raise InputError(
            "weight_decay='auto' compares optima, and stopped training has none. Give a number such as 1e-4, "
            "or use method='newton'."
        )


def is_zero(probe: Any, method: Newton) -> bool:
    """Return whether a probe has no penalty."""
    return probe.weight_decay != AUTO and probe.weight_decay + method.added_weight_decay == 0


def with_weight_decay(run: Run, method: Method, curve: CurveOf | None) -> Run:
    """Return the run with the weight decay that was asked for, or that of the highest likelihood."""
    if curve is None or run.probe.weight_decay != AUTO:
        return run
    added = method.added_weight_decay if isinstance(method, Newton) else 0.0
    with run.clock("weight decay"):
        kept = run.work.once("weight-decay", lambda: vars(curve(run, added)))
    found = DecayCurve(**kept)
    run.notes["weight_decay"] = describe(found, run)
    return replace(run, probe=replace(run.probe, weight_decay=found.chosen))


def with_search(found: Estimate, probe: Any, problem: Problem) -> Estimate:
    """Return what a run takes with the search for its weight decay."""
    if probe.weight_decay != AUTO:
        return found
    shape = problem.shape(probe.fit_intercept)
    n, c = affordable(shape.n_samples, shape.n_features, max(2, shape.n_classes))
    k = float(min(n, shape.n_features) * (c - 1))
    operations = TRIED * (FIT * n * k**2 + 4.0 * k**3) * max(1, len(problem.outputs))
    seconds = operations / product_rate(torch.float64)
    return Estimate(found.seconds + seconds, max(found.bytes, int(MATRICES * k**2)))


def describe(found: DecayCurve, run: Run) -> dict[str, Any]:
    """Return what the manifest says about the choice, as JSON values."""
    pairs = zip(found.decays.tolist(), found.likelihoods.tolist(), strict=True)
    return {
        "chosen": found.chosen,
        "rule": "highest mean leave-one-out log-likelihood (nats a sample)",
        "curve": [list(pair) for pair in pairs],
        "n_samples": int(found.n_samples),
        "n_classes": int(found.n_classes),
        "whole": int(found.n_samples) == run.problem.n_samples,
    }


def class_curve(run: Run, added: float) -> DecayCurve:
    """Search for a softmax probe."""
    problem, probe = run.problem, run.probe
    d = problem.n_features + int(probe.fit_intercept)
    n_rows, n_classes = affordable(problem.n_samples, d, problem.n_classes, _work(run))
    where = chosen_rows(problem.target, n_rows, n_classes)
    design = _design(run, where)
    present, codes = np.unique(problem.target[where], return_inverse=True)
    target = torch.from_numpy(codes.astype(np.int64)).to(run.device)
    weight = torch.from_numpy(probe.sample_weights(problem.target, problem.classes)[where]).to(run.device)
    evaluate = SoftmaxLikelihoods(SoftmaxModel.start(design, target, weight, 1.0, len(present)))
    return _searched(run, evaluate, design, added, len(present), max(2, len(present)))


def heads_curve(run: Run, added: float) -> DecayCurve:
    """Search for one weight decay of all sigmoid heads: their log-likelihoods add up."""
    target = run.problem.target if run.problem.target.ndim > 1 else run.problem.target[:, None]
    n, d = run.problem.n_samples, run.problem.n_features + int(run.probe.fit_intercept)
    where = chosen_rows(target[:, 0], affordable(n, d, 2, _work(run) / target.shape[1])[0], 2)
    design = _design(run, where)
    ones = torch.ones(len(where), dtype=torch.float64, device=run.device)
    columns = torch.from_numpy(target[where]).to(run.device).T
    heads = [
        SoftmaxLikelihoods(SigmoidModel.start(design, column.contiguous(), ones, 1.0)) for column in columns
    ]

    def evaluate(penalty: float) -> Tensor:
        return torch.stack([head(penalty) for head in heads]).sum(0)

    # σ'(0) is a quarter.
    return _searched(run, evaluate, design, added, run.problem.n_classes, 4)


def ridge_curve(run: Run, added: float) -> DecayCurve:
    """Search for a ridge regression: exact, and from one factorisation for all weight decays."""
    n, d = run.problem.n_samples, run.problem.n_features + int(run.probe.fit_intercept)
    n_rows = min(n, MOST_ROWS, max(LEAST_ROWS, int(_work(run) / d**2)))
    where = chosen_rows(np.zeros(n), n_rows, 1)
    design, target = _design(run, where), torch.from_numpy(run.problem.target[where]).to(run.device)
    model = RidgeModel.of(design, target, 1.0)
    return _searched(run, lambda penalty: ridge_log_likelihoods(model, penalty), design, added, 0, 1)


def _design(run: Run, where: np.ndarray) -> Design:
    """Return the rows that are searched on, float64."""
    every = len(where) == run.problem.n_samples
    features = run.problem.features if every else np.asarray(run.problem.features[where])
    return Design(features, run.probe.fit_intercept, torch.float64, run.device)


def _searched(
    run: Run, evaluate: LogLikelihoods, design: Design, added: float, n_classes: int, shrink: int
) -> DecayCurve:
    """Return the curve; `shrink`: by how much smaller a sample's curvature is than its squared length."""
    n, whole = design.n_samples, run.problem.n_samples
    heaviest = heaviest_decay(design, shrink) * n / whole
    decays, likelihoods = search(lambda penalty: evaluate(penalty + added * whole), heaviest, whole)
    return DecayCurve(decays, likelihoods, np.array(n), np.array(n_classes))


def _work(run: Run) -> float:
    """Return the operations that one fit may take, fewer where its matrices would exceed the memory."""
    memory = run.machine.memory
    return SEARCH_WORK if memory is None else min(SEARCH_WORK, (memory / MATRICES) ** 1.5)
