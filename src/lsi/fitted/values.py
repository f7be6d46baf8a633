"""What training samples, or groups of them, are worth to a validation set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.fitted.asked import Asked
from lsi.loo.attribution.queries import TINY
from lsi.loo.attribution.values import Valuer, Values
from lsi.loo.attribution.walks import PRECISION, light
from lsi.loo.edits.batches import batches
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.refit import certified
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.newton.secants import dot
from lsi.system.progress import Progress
from lsi.tasks.groups import check_groups


def value_samples(
    engines: Iterable[NewtonEngine], asked: Asked, tol: float, progress: Progress | None
) -> pd.DataFrame:
    """Return the table of `Fitted.values` for single samples."""
    problem = asked.run.problem
    heads = [
        Valuer(engine, asked.queries(engine, head)).all(tol, progress) for head, engine in enumerate(engines)
    ]
    return _table({"sample_id": problem.sample_id}, heads)


def value_groups(
    engines: Iterable[NewtonEngine], asked: Asked, groups: Any, progress: Progress | None
) -> pd.DataFrame:
    """Return the table of `Fitted.values` for groups."""
    names, members = check_groups(groups, asked.run.problem)
    heads = [
        _group_values(Valuer(engine, asked.queries(engine, head)), members, progress)
        for head, engine in enumerate(engines)
    ]
    return _table({"group": names, "n": [len(rows) for rows in members]}, heads)


def _group_values(valuer: Valuer, members: list[np.ndarray], progress: Progress | None) -> Values:
    """Return the values of groups for one head, each at its own optimum."""
    values, engine, done = Values.empty(len(members)), light(valuer.engine), 0
    values.error.fill_(torch.inf)
    for part in batches([len(rows) for rows in members], len(engine.model.theta)):
        edits = Edits.leaving(
            engine.model, [torch.from_numpy(members[k]).to(engine.model.theta.device) for k in part]
        )
        found = certified(engine, edits, PRECISION)
        size = dot(found.delta.to(torch.float64), edits.first_gradient()).abs().sqrt()
        valuer.keep(values, torch.tensor(part), found.delta, 0.5 * found.certificate * size)
        done += len(part)
        if progress is not None:
            progress("values", done, len(members))
    return values


def _table(first: dict[str, Any], heads: list[Values]) -> pd.DataFrame:
    """Return the sum over heads, which share no weights; accuracy is the mean over them."""
    loss, error = (
        torch.stack([getattr(head, name) for head in heads]).sum(0).numpy() for name in ("loss", "error")
    )
    accuracy = torch.stack([head.accuracy for head in heads]).mean(0).numpy()
    effect = np.where(loss > 0, "helps", "hurts")
    return pd.DataFrame(
        {
            **first,
            "loss_change": loss,
            "effect": np.where(error < np.abs(loss), effect, "unclear"),
            "accuracy_change": accuracy,
            "relative_error": error / np.maximum(np.abs(loss), TINY),
        }
    )
