"""Classification by a network: copies of the whole, or leave-one-out optima of its last layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.loo.networks.engine import NetworkEngine
from lsi.loo.networks.trainer import check_batches
from lsi.loo.picks import choose_done
from lsi.methods import Method, Newton, Retrain
from lsi.probes.linear import LinearProbe
from lsi.probes.networks import ModuleProbe
from lsi.results.audit import spearman
from lsi.run.context import Outcome, Run
from lsi.system.machine import Machine
from lsi.tasks import classification
from lsi.tasks.base import Task
from lsi.tasks.copies import build_engine, retrain
from lsi.validation.problem import Problem


def check(probe: Any, posterior: str, method: Method) -> None:
    """Refuse training settings that do not fit the probe."""
    if probe.training is not None and not isinstance(probe.training, Retrain):
        raise InputError(f"training must be lsi.Retrain(...) or None, got {probe.training!r}.")
    if isinstance(method, Newton):
        classification.check(probe, posterior, method)
    training = method if isinstance(method, Retrain) else probe.training
    if isinstance(probe, ModuleProbe) and probe.is_fixed and training is not None and training.n_seeds > 1:
        raise InputError(
            "n_seeds > 1 needs a function that makes a new module: a given module always starts at the same "
            "weights."
        )


def plan(probe: Any, problem: Problem, posterior: str, method: Method, machine: Machine) -> None:
    """Refuse batches of one sample."""
    if isinstance(method, Retrain):
        check_batches(problem.n_samples, method.batch_size)


def cost(probe: Any, problem: Problem, posterior: str, method: Method, memory: int | None = None) -> None:
    """Predict nothing: the cost is that of an unknown network."""


def run(run: Run, method: Method) -> Outcome:
    """Score by copies of the whole network, or by optima of its last layer."""
    return retrain(run, method) if isinstance(method, Retrain) else _last_layer(run, method)


TASK = Task("classification", check, run, plan=plan, cost=cost)


def _last_layer(run: Run, settings: Newton) -> Outcome:
    """Train the network once, then leave samples out of its last layer only."""
    engine = build_engine(run, run.probe.training or Retrain())
    with run.clock("train"):
        trained = run.work.once("network", lambda: {"weights": _trained(run, engine)})
        features, has_bias = _last_features(run, engine, torch.from_numpy(trained["weights"]).to(run.device))
    problem = replace(run.problem, features=features.cpu().numpy())
    probe = LinearProbe(weight_decay=run.probe.weight_decay, fit_intercept=has_bias)
    outcome = classification.run(replace(run, problem=problem, probe=probe), settings)
    with run.clock("whole network"):
        _compare(run, engine, outcome)
    return outcome


def _trained(run: Run, engine: NetworkEngine) -> np.ndarray:
    """Return the weights of the network trained on all samples, a single copy."""
    seed, nothing = engine.settings.seed, torch.tensor([-1], device=run.device)
    return engine.train(engine.start(seed), nothing, seed, None, None).cpu().numpy()


def _last_features(run: Run, engine: NetworkEngine, copy: Tensor) -> tuple[Tensor, bool]:
    """Return the inputs of the last layer of the trained network, `(N, D)`, and whether it has a bias."""
    copy, nothing = copy.to(torch.float64), torch.tensor([-1], device=run.device)
    has_bias = len(engine.stack.last) == 2
    batch = engine.posterior.batch(nothing)
    parts = [
        engine.stack.roots(copy, block, True)[0].inputs[0]
        for block in batch.blocks(engine.posterior.rows_at_once(1))
    ]
    features = torch.cat(parts)
    return (features[:, :-1] if has_bias else features).contiguous(), has_bias


def _compare(run: Run, engine: NetworkEngine, outcome: Outcome) -> None:
    """Note how the last layer's scores rank a few samples, compared with whole networks trained again."""
    result = outcome[0]
    count = min(run.probe.compare_whole, int(result.done.sum())) if run.audit else 0
    if count == 0:
        return
    picks = torch.from_numpy(choose_done(result, count, run.seed)).to(run.device)
    # A shard compares samples of its own, and all of those: they are not divided again.
    whole = engine.run(run.index[picks], replace(run.work, shard=None).within("whole-network"))
    last = result.lsi[picks.cpu().numpy()]
    run.notes["whole_network"] = {
        "positions": run.index[picks].tolist(),
        "last_layer_lsi": last.tolist(),
        "whole_network_lsi": whole.lsi.tolist(),
        "spearman": spearman(whole.lsi, last),
        "training": engine.settings.describe(),
        **engine.training,
    }
