"""Laplace Sample Information of leaving out whole groups of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.errors import InputError
from lsi.execution.work import Arrays, Tick, Work
from lsi.loo.edits.batches import batches
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.refit import certified
from lsi.loo.edits.ridge import ridge_groups
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.ridge import RidgeEngine
from lsi.methods import Method, Newton
from lsi.probes.linear import LinearProbe
from lsi.probes.ridge import RidgeProbe
from lsi.probes.sigmoid import SigmoidProbe
from lsi.results.table import json_rows
from lsi.run.context import Run
from lsi.tasks.classification import NewtonFit
from lsi.tasks.sigmoid import HeadsEngine
from lsi.validation.features import name_some
from lsi.validation.labels import as_vector, check_hashable
from lsi.validation.problem import Problem

TOL = 1e-2  # of groups, where the method has no tolerance
TERMS = ("mean_term", "covariance_term", "relative_error")


def heads_of(fitted: Any) -> Iterator[NewtonEngine | RidgeEngine]:
    """Yield the engine of each head of what a task fitted: one, or L for several labels."""
    if isinstance(fitted, RidgeEngine):
        yield fitted
    elif isinstance(fitted, NewtonFit) and isinstance(fitted.engine, NewtonEngine):
        yield fitted.engine
    elif isinstance(fitted, HeadsEngine):
        yield from (fitted.head(label) for label in range(fitted.n_heads))
    else:
        raise InputError(
            "This probe has too many weights for a dense curvature, and class blocks only rank. Raise "
            "memory=, or use fewer features (a projection) or fewer classes."
        )


def group_table(
    fitted: Any,
    problem: Problem,
    tol: float,
    groups: Any,
    interaction: bool,
    work: Work,
    known: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return one row for each group: its LSI, terms, interaction and certificate.

    `known` is the LSI of all single rows `(N,)`, where a run has scored them already.
    """
    names, members = check_groups(groups, problem)
    totals, error, rows = np.zeros((2, len(names))), np.zeros(len(names)), np.zeros(len(names))
    everyone = torch.from_numpy(np.concatenate(members))
    owner = np.repeat(np.arange(len(names)), [len(group) for group in members])
    for head, engine in enumerate(heads_of(fitted)):
        part = work.within(f"head-{head}")
        terms = GroupEngine(engine, members, tol).run(part)
        # Heads share no weights: divergences add up, and so do absolute errors.
        error += terms[2] * (terms[0] + terms[1])
        totals += terms[:2]
        if interaction and known is None:
            found = engine.run(everyone.to(engine.model.design.device), part.within("rows"))
            rows += np.bincount(owner, found.lsi, minlength=len(names))
    if known is not None:
        rows += np.bincount(owner, known[everyone.numpy()], minlength=len(names))
    lsi, count = totals.sum(0), np.array([len(group) for group in members])
    return pd.DataFrame(
        {
            "group": names,
            "n": count,
            "lsi": lsi,
            "lsi_per_row": lsi / count,
            "mean_term": totals[0],
            "covariance_term": totals[1],
            "interaction": lsi - rows if interaction else np.nan,
            "relative_error": error / np.maximum(lsi, np.finfo(np.float64).tiny),
        }
    )


@dataclass(frozen=True, eq=False)
class GroupEngine:
    """Leaves groups of rows out of one head.

    Attributes:
        engine: The head's engine.
        members: Positions of each group's rows.
        tol: Relative error to reach.
    """

    engine: NewtonEngine | RidgeEngine
    members: list[np.ndarray]
    tol: float

    def run(self, work: Work) -> np.ndarray:
        """Return mean terms, covariance terms and certificates, `(3, G)`."""
        out = np.zeros((3, len(self.members)))
        sizes = [len(group) for group in self.members]
        parts = batches(sizes, len(getattr(self.engine.model, "theta", ())))
        blocks = [np.array(part) for part in parts]
        for place, arrays in work.map("groups", self, "leave_out", blocks):
            out[:, blocks[place]] = [arrays[name] for name in TERMS]
        return out

    def leave_out(self, block: np.ndarray, tick: Tick) -> Arrays:
        """Return the terms of the groups with the numbers in `block`."""
        device = self.engine.model.design.device
        groups = [torch.from_numpy(self.members[k]).to(device) for k in block.tolist()]
        if isinstance(self.engine, RidgeEngine):
            terms, certificate = ridge_groups(self.engine, groups)
        else:
            found = certified(self.engine, Edits.leaving(self.engine.model, groups), self.tol)
            terms, certificate = found.terms, found.certificate
        tick(len(block))
        columns = (terms.mean, terms.covariance, certificate)
        return {name: column.cpu().numpy() for name, column in zip(TERMS, columns, strict=True)}


def groups_of(groups: Any, run: Run, method: Method, shard: Any) -> np.ndarray:
    """Return the group of each row, `(N,)`, for a run that can leave groups out; refuse any other."""
    check_leaves_groups(run.probe, method)
    if shard is not None:
        raise InputError("groups= cannot be divided among shards. Score them in a run of their own.")
    check_groups(groups, run.problem)
    return check_membership(groups, run.problem)


def check_leaves_groups(probe: Any, method: Method) -> None:
    """Refuse a probe or a method that leaves out single rows only."""
    if not isinstance(method, Newton) or not isinstance(probe, LinearProbe | SigmoidProbe | RidgeProbe):
        raise InputError(
            "groups need method='newton' with a LinearProbe, SigmoidProbe or RidgeProbe (on the command line "
            "a probe without hidden layers). Score without groups, or change the probe."
        )


def describe_groups(run: Run, method: Method, members: np.ndarray, lsi: np.ndarray) -> list[dict[str, Any]]:
    """Return the table of the groups as JSON values, for the manifest; lsi: of the scored rows."""
    problem, known = run.problem, None
    if len(problem.subset) == problem.n_samples:
        known = np.empty(problem.n_samples)
        known[problem.subset] = lsi
    tol = method.tol if isinstance(method, Newton) else None
    with run.clock("groups"):
        work = run.work.within("groups")
        table = group_table(run.fitted, problem, tol or TOL, members, True, work, known)
    return json_rows(table)


def check_membership(groups: Any, problem: Problem) -> np.ndarray:
    """Return the group of each row as an object array, `(N,)`."""
    given = as_vector(groups, "groups")
    if len(given) != problem.n_samples:
        raise InputError(
            f"groups has {len(given)} entries but the data have {problem.n_samples} rows. Pass the group of "
            "each row, and None for a row that belongs to none."
        )
    if given.dtype.kind == "f" and np.isnan(given).any():
        known = given[~np.isnan(given)]
        if np.isfinite(known).all() and (known == known.round()).all():
            # Whole numbers became floats because some were missing.
            return np.array([None if np.isnan(value) else int(value) for value in given], dtype=object)
    return np.asarray(given, dtype=object)


def check_groups(groups: Any, problem: Problem) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the names of the groups, sorted where they can be, and the positions of each one's rows."""
    given = check_membership(groups, problem)
    check_hashable(given, "groups")
    codes, names = pd.factorize(given, use_na_sentinel=True)
    if not len(names):
        raise InputError("groups names no group: every entry is missing. Pass the group of each row.")
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:
        order = list(range(len(names)))  # names of different types keep their order of appearance
    # One sort finds the rows of all groups; those of no group come first.
    ends = np.cumsum(np.bincount(codes + 1, minlength=len(names) + 1))
    by_code = np.split(np.argsort(codes, kind="stable"), ends[:-1])[1:]
    members = [by_code[k] for k in order]
    found = pd.Series(names[order]).infer_objects().to_numpy()
    _refuse_whole(found, members, problem)
    return found, members


def _refuse_whole(names: np.ndarray, members: list[np.ndarray], problem: Problem) -> None:
    """Refuse a group without which nothing, or not every class, would be left."""
    counts = np.bincount(problem.target, minlength=problem.n_classes) if problem.n_classes else None
    for name, rows in zip(names.tolist(), members, strict=True):
        if len(rows) == problem.n_samples:
            raise InputError(f"group {name!r} is all of the data. Pass groups without which data are left.")
        if counts is None:
            continue
        whole = np.flatnonzero(np.bincount(problem.target[rows], minlength=len(counts)) == counts)
        if whole.size:
            shown = name_some([repr(problem.classes[c]) for c in whole])
            raise InputError(
                f"group {name!r} holds every sample of class {shown}, which could not be learned without it. "
                "Leave its rows without a group, or join the group with another that has this class."
            )
