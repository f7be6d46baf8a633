"""Laplace Sample Information of leaving out whole groups of rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.errors import InputError
from lsi.fitted.answer import Answer
from lsi.loo.edits.batches import batches
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.refit import certified
from lsi.loo.newton.engine import NewtonEngine
from lsi.system.progress import Progress
from lsi.validation.features import name_some
from lsi.validation.labels import as_vector
from lsi.validation.problem import Problem


def score_groups(
    engines: Iterable[NewtonEngine],
    problem: Problem,
    tol: float,
    groups: Any,
    interaction: bool,
    progress: Progress | None,
) -> Answer:
    """Return the table of `Fitted.groups`: the sum over the engines of all heads."""
    names, members = check_groups(groups, problem)
    mean, covariance, error = np.zeros((3, len(names)))
    rows = np.zeros(len(names))
    everyone = np.concatenate(members)
    owner = np.repeat(np.arange(len(names)), [len(group) for group in members])
    for engine in engines:
        terms = _head(engine, members, tol, progress)
        # Heads share no weights: divergences add up, and so do absolute errors.
        error += terms[2] * (terms[0] + terms[1])
        mean, covariance = mean + terms[0], covariance + terms[1]
        if interaction:
            found = engine.run(torch.from_numpy(everyone).to(engine.model.design.device))
            rows += np.bincount(owner, found.lsi, minlength=len(names))
    lsi = mean + covariance
    count = np.array([len(group) for group in members])
    frame = pd.DataFrame(
        {
            "group": names,
            "n": count,
            "lsi": lsi,
            "lsi_per_row": lsi / count,
            "mean_term": mean,
            "covariance_term": covariance,
            "interaction": lsi - rows if interaction else np.nan,
            "relative_error": error / np.maximum(lsi, np.finfo(np.float64).tiny),
        }
    )
    return Answer(frame)


def _head(
    engine: NewtonEngine, members: list[np.ndarray], tol: float, progress: Progress | None
) -> np.ndarray:
    """Return mean terms, covariance terms and certificates of one head, `(3, G)`."""
    device, out, done = engine.model.design.device, np.zeros((3, len(members))), 0
    for part in batches([len(group) for group in members], len(engine.model.theta)):
        picked = [torch.from_numpy(members[k]).to(device) for k in part]
        found = certified(engine, Edits.leaving(engine.model, picked), tol)
        columns = (found.terms.mean, found.terms.covariance, found.certificate)
        out[:, part] = torch.stack(columns).cpu().numpy()
        done += len(part)
        if progress is not None:
            progress("groups", done, len(members))
    return out


def check_groups(groups: Any, problem: Problem) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the names of the groups, sorted where they can be, and the positions of each one's rows."""
    given = as_vector(groups, "groups")
    if len(given) != problem.n_samples:
        raise InputError(
            f"groups has {len(given)} entries but the data have {problem.n_samples} rows. Pass the group of "
            "each row, and None for a row that belongs to none."
        )
    codes, names = pd.factorize(pd.Series(given, dtype=object), use_na_sentinel=True)
    if not len(names):
        raise InputError("groups names no group: every entry is missing. Pass the group of each row.")
    members = [np.flatnonzero(codes == k) for k in range(len(names))]
    try:
        order = np.argsort(np.array(names.tolist()), kind="stable")
    except TypeError:
        order = np.arange(len(names))  # names of different types keep their order of appearance
    found = pd.Series(names[order]).infer_objects().to_numpy()
    members = [members[k] for k in order.tolist()]
    _refuse_whole(found, members, problem)
    return found, members


def _refuse_whole(names: np.ndarray, members: list[np.ndarray], problem: Problem) -> None:
    """Refuse a group without which nothing, or not every class, would be left."""
    counts = np.bincount(problem.target, minlength=problem.n_classes) if problem.n_classes else None
    for name, rows in zip(names, members, strict=True):
        if len(rows) == problem.n_samples:
            raise InputError(f"group {name!r} is all of the data. Pass groups without which data are left.")
        if counts is None:
            continue
        whole = np.flatnonzero(np.bincount(problem.target[rows], minlength=len(counts)) == counts)
        if whole.size:
            shown = name_some([repr(problem.classes[c]) for c in whole])
            raise InputError(
                f"group {name!r} holds every sample of class {shown}, which could not be learned without it. "
                "Pass None for its rows, or join it with another class."
            )
