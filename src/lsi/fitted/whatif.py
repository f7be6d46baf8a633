"""Fitted objects of changed data: rows that leave, rows that join, labels that change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.execution.work import Work
from lsi.features.design import Design
from lsi.loo.edits.update import Change, pays_to_factorise, trained
from lsi.loo.newton.built import Built
from lsi.loo.newton.engine import NewtonEngine
from lsi.methods import Newton
from lsi.posterior import POSTERIORS
from lsi.probes.softmax.fit import Curvature
from lsi.probes.softmax.math import residuals
from lsi.probes.softmax.model import SoftmaxModel
from lsi.run.context import Clock, Run
from lsi.tasks import task_of
from lsi.tasks.classification import NewtonFit, assembled, untrained
from lsi.tasks.sigmoid import HeadsEngine
from lsi.validation.features import name_some
from lsi.validation.labels import as_vector, object_array
from lsi.validation.problem import MIN_SAMPLES, Problem, check_unique_ids
from lsi.validation.queries import check_queries, check_query_labels

ROWS = 2048  # whose change is computed together
BEARABLE = 0.25  # share of the tolerance that rounding may cost an inverse; certificates count it twice


# The changed data


def without(problem: Problem, ids: Any) -> Problem:
    """Return the data without the rows of these ids."""
    keep = np.ones(problem.n_samples, dtype=bool)
    keep[positions_of(problem, ids)] = False
    if int(keep.sum()) < MIN_SAMPLES:
        raise InputError(f"{int(keep.sum())} rows would be left. Leave at least {MIN_SAMPLES} of them.")
    features, target = problem.features[keep], problem.target[keep]
    changed = replace(problem, features=features, target=target, sample_id=problem.sample_id[keep])
    return _checked(changed)


def with_rows(problem: Problem, X: Any, y: Any, ids: Any = None) -> Problem:
    """Return the data with more rows at the end."""
    new = check_queries(X, problem)
    dtype = problem.features.dtype
    with np.errstate(over="ignore"):
        features = np.concatenate([problem.features, new.astype(dtype)])
    if not np.isfinite(features[problem.n_samples :]).all():
        raise InputError(f"X holds values beyond {dtype}, the type of the data. Scale them as the data were.")
    target = np.concatenate([problem.target, check_query_labels(y, problem, len(new))])
    names = _joined_ids(problem.sample_id, _new_ids(problem, X, ids, len(new)))
    check_unique_ids(names)
    return _checked(replace(problem, features=features, target=target, sample_id=names))


def relabelled(problem: Problem, labels: Mapping[Any, Any]) -> Problem:
    """Return the data with other labels for the rows of some ids."""
    if not labels or not hasattr(labels, "keys"):
        raise InputError("Pass the new label of each row by its id: relabel({id: label}).")
    where = positions_of(problem, list(labels))
    target = problem.target.copy()
    given = list(labels.values())
    target[where] = check_query_labels(given, problem, len(where))
    return _checked(replace(problem, target=target))


def positions_of(problem: Problem, ids: Any) -> np.ndarray:
    """Return where the rows of these ids are, `(n,)`; each once, and all of them known."""
    given = as_vector([ids] if isinstance(ids, str | int) else ids, "ids")
    if not len(given):
        raise InputError("ids is empty. Pass the sample_id of at least one row.")
    index = pd.Index(problem.sample_id)
    found = index.get_indexer(pd.Index(given)) if len(given) else np.empty(0, dtype=np.int64)
    unknown = [repr(name) for name, place in zip(given.tolist(), found, strict=True) if place < 0]
    if unknown:
        raise InputError(f"ids that no row has: {name_some(unknown)}. Pass entries of fitted.sample_id.")
    twice = pd.Series(given)[pd.Series(given).duplicated()]
    if len(twice):
        raise InputError(f"ids given twice: {name_some([repr(i) for i in twice.tolist()])}. Name each once.")
    return np.asarray(found)


def _new_ids(problem: Problem, X: Any, ids: Any, rows: int) -> np.ndarray:
    """Return the ids of new rows: given, from the index, or the next whole numbers."""
    held = problem.sample_id
    if ids is None and isinstance(X, pd.DataFrame):
        ids = X.index
    if ids is None:
        if held.dtype.kind not in "iu":
            raise InputError("the rows of the data have names of their own. Name the new ones: ids=[…].")
        return np.arange(rows) + int(held.max()) + 1
    given = as_vector(ids, "ids")
    if len(given) != rows:
        raise InputError(f"ids has {len(given)} entries but X has {rows} rows. Pass one id for each row.")
    return given


def _joined_ids(held: np.ndarray, new: np.ndarray) -> np.ndarray:
    if held.dtype.kind == new.dtype.kind:
        return np.concatenate([held, new])
    return object_array([*held.tolist(), *new.tolist()])


def _checked(problem: Problem) -> Problem:
    """Return changed data in which every class is still there; all of them are to be scored."""
    if problem.n_classes:
        left = np.bincount(problem.target, minlength=problem.n_classes)
        gone = [repr(problem.classes[c]) for c in np.flatnonzero(left == 0)]
        if gone:
            raise InputError(
                f"no row of class {name_some(gone)} would be left, and it could not be learned. Keep some of "
                "its rows, or fit again without the class."
            )
    return replace(problem, subset=np.arange(problem.n_samples))


# The probe trained on them


def retrained(run: Run, method: Newton, problem: Problem, tol: float) -> Run:
    """Return the run of changed data, its probe trained from where it is, for answers to a tolerance."""
    clock, before = Clock(), run.fitted
    notes = {name: value for name, value in run.notes.items() if name != "source"}
    after = replace(run, problem=problem, clock=clock, work=Work(), notes=notes, fitted=None)
    if isinstance(before, HeadsEngine):
        return replace(after, fitted=_heads(after, method, before))
    if isinstance(before, NewtonFit) and isinstance(before.engine, NewtonEngine):
        return replace(after, fitted=_softmax(after, method, run, before, BEARABLE * tol))
    fit = task_of(run.probe).fit  # in closed form, or by class blocks
    assert fit is not None
    return replace(after, fitted=fit(after, method))


def _heads(run: Run, method: Newton, before: HeadsEngine) -> HeadsEngine:
    """Return the trained heads; each is one row of weights, and factorised in no time."""
    engine = HeadsEngine.of(run, method)
    weights = (theta if before.basis is None else theta @ before.basis.T for theta in before.weights)
    engine.start = [theta if engine.basis is None else theta @ engine.basis for theta in weights]
    for label in range(engine.n_heads):
        engine.head(label)
    return engine


def _softmax(run: Run, method: Newton, old: Run, before: NewtonFit, allowed: float) -> NewtonFit:
    """Return the trained probe of classes."""
    assert isinstance(before.engine, NewtonEngine)
    dtype, held = before.model.design.dtype, before.engine.solver.inverse
    with run.clock("fit"):
        design = run.design(dtype)
        basis, old_basis = POSTERIORS[run.posterior].coordinates(design), before.posterior.basis
        model = untrained(run, design if basis is None else design.rotated(basis))
        model.weight_decay += method.added_weight_decay
        theta = before.model.theta if old_basis is None else before.model.theta @ old_basis.T
        model.theta = theta if basis is None else theta @ basis
        turn = None
        if basis is not None and old_basis is not None and not torch.equal(basis, old_basis):
            turn = old_basis.T @ basis
        # Fewer rows than features: the span of the data changes with them.
        if (basis is None) != (old_basis is None) or (turn is not None and not _is_square(basis)):
            model, curvature, report = trained(model, None, None, None, allowed)
        else:
            change = _change(old, run, before, model, basis)
            model, curvature, report = trained(model, held, change, turn, allowed)
    return assembled(run, method, model, curvature, basis, {**before.told, **asdict(report)})


def _is_square(basis: Tensor | None) -> bool:
    return basis is not None and basis.shape[0] == basis.shape[1]


def _change(old: Run, new: Run, before: NewtonFit, model: SoftmaxModel, basis: Tensor | None) -> Change:
    """Return which rows are only in one of two data sets, or have another label in them."""
    assert isinstance(before.engine, NewtonEngine)
    device, dtype = model.theta.device, model.design.dtype
    place = pd.Index(new.problem.sample_id).get_indexer(pd.Index(old.problem.sample_id))
    stays, gone = np.flatnonzero(place >= 0), np.flatnonzero(place < 0)
    moved = place[stays[old.problem.target[stays] != new.problem.target[place[stays]]]]
    came = np.setdiff1d(np.arange(new.problem.n_samples), place[stays])
    design = Design(old.problem.features[gone], new.probe.fit_intercept, dtype, device)
    x = design.rows(0, len(gone))
    held = before.engine.solver.inverse.built or Built.of(before.model)
    there, kept = (torch.from_numpy(where).to(device) for where in (place[stays], stays))
    q = held.probabilities.new_full((model.n_samples, model.n_classes), 1.0 / model.n_classes)
    weight = torch.zeros_like(model.weight)  # of rows that joined, nothing is there yet
    q[there], weight[there] = held.probabilities[kept], held.weight[kept]
    return Change(
        x if basis is None else x @ basis.to(x.dtype),
        held.curvature_at(torch.from_numpy(gone).to(device), model.contrasts),
        Built(q, weight, held.ridge),
        torch.from_numpy(np.concatenate([moved, came])).to(device),
    )


def refactorised(run: Run, method: Newton) -> Run:
    """Return the run with the curvature of its probe factorised where there is only an inverse near to it."""
    held = run.fitted
    if not isinstance(held, NewtonFit) or not isinstance(held.engine, NewtonEngine):
        return run
    if held.engine.solver.is_current:
        return run
    curvature = Curvature.of(held.model)
    fitted = assembled(run, method, held.model, curvature, held.posterior.basis, held.told)
    return replace(run, fitted=fitted)


def is_worth_factorising(run: Run, n_rows: int) -> bool:
    """Return whether solving for so many rows costs as much as factorising the probe's curvature."""
    held = run.fitted
    return isinstance(held, NewtonFit) and pays_to_factorise(held.model, n_rows)


# What it means for the others


def most_affected(after: Run, before: Run, heads: Iterable[tuple[Any, Any]], k: int) -> np.ndarray:
    r"""Return the positions of the k rows whose scores change most, those that joined first.

    To first order, LSI goes with :math:`\tfrac12 g^\top Q g`; its change with g ranks. `heads` are the
    engines after and before the change.
    """
    place = torch.from_numpy(_place(after, before))
    held = place >= 0  # rows that joined have no residual from before
    found = []
    for new, old in heads:
        now, then = _residuals(new.model), _residuals(old.model)
        # Draws that go together, so that what they are off by cancels: those of another root do not.
        if new.solver.is_current == old.solver.is_current:
            found.append((_energy(new, now), _energy(old, then)))
        else:
            there = np.zeros(len(then))
            there[place[held]] = _energy(new, then[place.to(then.device)])[held]
            found.append((_energy(new, now), there))
    return rank_changes(after, before, found, k)


def rank_changes(
    after: Run, before: Run, scores: Iterable[tuple[np.ndarray, np.ndarray]], k: int
) -> np.ndarray:
    """Return the positions of the k rows whose scores differ most, those that joined first.

    Shapes: scores of each head after `(N,)` and before `(N₀,)` the change.
    """
    place, changed = _place(after, before), np.zeros(after.problem.n_samples)
    for here, there in scores:
        changed += np.where(place >= 0, np.abs(here - there[place]), np.inf)
    return np.argsort(-changed, kind="stable")[:k]


def _place(after: Run, before: Run) -> np.ndarray:
    """Return where each row was before a change, `(N,)`; −1: it joined."""
    return np.asarray(pd.Index(before.problem.sample_id).get_indexer(pd.Index(after.problem.sample_id)))


def _residuals(model: SoftmaxModel) -> Tensor:
    """Return g' of all rows, `(N, C')` float64."""
    parts = []
    for rows, x in model.design.blocks(ROWS):
        p = model.probabilities(x.to(torch.float64))
        parts.append(residuals(p, model.target[rows]) @ model.contrasts)
    return torch.cat(parts)


def _energy(engine: NewtonEngine, residual: Tensor) -> np.ndarray:
    """Return `½ g'ᵀ Q g'` of each row, `(N,)`; Q is measured with draws of N(0, H̄⁻¹).

    Shapes: residual g' `(N, C')`.
    """
    model, probes, parts = engine.model, engine.solver.probes, []
    flat, shape = probes.flatten(0, 1), probes.shape[:2]
    for rows, x in model.design.blocks(ROWS):
        image = (x @ flat.T).view(len(x), *shape)
        seen = (image @ residual[rows, :, None].to(x.dtype))[:, :, 0]
        parts.append(0.5 * seen.square().mean(1))
    return torch.cat(parts).cpu().numpy().astype(np.float64)
