"""Scores from copies of a network that are trained side by side; a linear probe has no hidden layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lsi.errors import InputError
from lsi.loo.networks.curvature import NETWORK_POSTERIORS
from lsi.loo.networks.engine import NetworkEngine
from lsi.loo.networks.mlp_stack import MLPStack
from lsi.loo.networks.module_stack import ModuleStack
from lsi.loo.networks.stack import Stack
from lsi.loo.networks.trainer import Data
from lsi.loo.retrain.cost import AUDITED
from lsi.methods import Retrain
from lsi.probes.linear import LinearProbe
from lsi.probes.networks import ModuleProbe
from lsi.run.context import Outcome, Run
from lsi.system.machine import available_memory


def retrain(run: Run, settings: Retrain) -> Outcome:
    """Score by training copies of the whole probe, each without one sample."""
    engine = build_engine(run, settings)
    with run.clock("leave-one-out"):
        result = engine.run(run.index, run.work)
    run.notes["training"] = engine.training
    dtype = str(engine.data.x.dtype).removeprefix("torch.")
    report = {"dtype": dtype, "n_parameters": engine.stack.n_parameters}
    return result, run.audited(engine, result, AUDITED), report


def build_engine(run: Run, settings: Retrain) -> NetworkEngine:
    """Return the engine that trains copies of the probe."""
    problem, probe = run.problem, run.probe
    d, c = problem.n_features, problem.n_classes
    stack = build_stack(probe, d, c)
    last_only = not isinstance(probe, LinearProbe) and probe.posterior_layers == "last"
    if (
        run.posterior == "kron"
        and not last_only
        and isinstance(stack, ModuleStack)
        and not stack.is_all_linear
    ):
        raise InputError(
            "posterior='kron' needs a module whose parameters are those of linear layers that run once, on "
            "one vector a sample. Use 'diag' or 'full', or posterior_layers='last'."
        )
    x = torch.from_numpy(np.require(problem.features, requirements="W")).to(run.device)
    y = torch.from_numpy(problem.target).to(run.device)
    weight = _sample_weights(run)
    precise = Data(x.to(torch.float64), y, weight)
    posterior = NETWORK_POSTERIORS[run.posterior](stack, precise, run.prior_precision, last_only)
    _refuse_oversize(run.posterior, len(posterior.columns))

    dtype = torch.float64 if isinstance(probe, LinearProbe) else probe.torch_dtype
    data = Data(precise.x.to(dtype), y, weight)  # the same tensor where types agree
    return NetworkEngine(stack, data, settings, probe.weight_decay, posterior)


def build_stack(probe: Any, n_features: int, n_classes: int) -> Stack:
    """Return the stack in which many copies of the probe are held."""
    if isinstance(probe, ModuleProbe):
        return ModuleStack(probe.make, probe.loss, n_features, n_classes)
    if isinstance(probe, LinearProbe):
        return MLPStack((n_features, n_classes), bias=probe.fit_intercept)
    return MLPStack((n_features, *probe.widths, n_classes), probe.activation, probe.fit_intercept)


def _sample_weights(run: Run) -> torch.Tensor | None:
    """Return the weights of the samples, None where all weigh the same."""
    if not isinstance(run.probe, LinearProbe) or run.probe.class_weight is None:
        return None
    return torch.from_numpy(run.probe.sample_weights(run.problem.target, run.problem.classes)).to(run.device)


def _refuse_oversize(posterior: str, n_weights: int) -> None:
    """Refuse a dense posterior that does not fit: a factor, a precision, its change and a work array."""
    have = available_memory()
    if posterior == "full" and have is not None and 4 * 8 * n_weights**2 > have:
        raise InputError(
            f"posterior='full' of {n_weights} weights needs matrices of {n_weights} by {n_weights}, which do "
            "not fit in memory. Use 'diag' or 'kron', or posterior_layers='last'."
        )
