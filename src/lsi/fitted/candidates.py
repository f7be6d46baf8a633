"""What rows that are not in the data would be worth if they joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.design import Design
from lsi.fitted.answer import Answer
from lsi.loo.audit import REBUILD_LIMIT
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.joining import facing, outside_of, prepare_joining, with_room
from lsi.loo.edits.refit import certified
from lsi.loo.edits.solver import EditSolver
from lsi.loo.newton.engine import NewtonEngine
from lsi.system.progress import Progress
from lsi.validation.features import name_some
from lsi.validation.labels import as_vector
from lsi.validation.problem import Problem
from lsi.validation.queries import check_queries, check_query_labels, query_names

ROWS = 64  # that walk together
PAIRS = 1 << 24  # numbers of the steps of rows and labels that are estimated together

Columns = tuple[Tensor, ...]
"""Mean terms, covariance terms and their absolute errors of some rows, `(n,)` each."""


def score_candidates(
    engines: Iterable[NewtonEngine],
    problem: Problem,
    intercept: bool,
    tol: float,
    X: Any,
    y: Any = None,
    ids: Any = None,
    progress: Progress | None = None,
) -> Answer:
    """Return the table of `Fitted.candidates`: the sum over the engines of all heads."""
    features = check_queries(X, problem)
    target = None if y is None else check_query_labels(y, problem, len(features))
    names = candidate_names(X, ids, len(features))
    total = np.zeros((3, len(features)))
    likely: np.ndarray | None = None
    for head, engine in enumerate(engines):
        _refuse_rebuilding(engine)
        own = target if target is None or target.ndim == 1 else target[:, head]
        found = _head(engine, features, intercept, own, tol, progress)
        total += found[:3]
        likely = found[3].astype(np.int64)
    lsi = total[0] + total[1]
    columns: dict[str, Any] = {"candidate": names}
    if y is not None and target is not None and target.ndim == 1:
        columns["label"] = problem.classes[target]
    columns |= {"lsi": lsi, "mean_term": total[0], "covariance_term": total[1]}
    columns["relative_error"] = total[2] / np.maximum(lsi, np.finfo(np.float64).tiny)
    if y is None and len(problem.classes):
        columns["most_informative_label"] = problem.classes[likely]
    return Answer(pd.DataFrame(columns).infer_objects())


def candidate_names(X: Any, ids: Any, rows: int) -> np.ndarray:
    """Return what candidates are called: given ids, the index of a DataFrame, or their positions."""
    if ids is None:
        return query_names(X)
    given = as_vector(ids, "ids")
    if len(given) != rows:
        raise InputError(f"ids has {len(given)} entries but X has {rows} rows. Pass one id for each row.")
    twice = given[pd.Series(given).duplicated()]
    if len(twice):
        raise InputError(f"ids is not unique; repeated: {name_some([repr(i) for i in twice.tolist()])}.")
    return given


def _refuse_rebuilding(engine: NewtonEngine) -> None:
    """Refuse a posterior that would have to be built again for each candidate, for hours."""
    if engine.posterior.shift_is_current and engine.model.theta.numel() > REBUILD_LIMIT:
        raise InputError(
            f"posterior='full' with {engine.model.theta.numel():,} weights would be built again for each "
            f"candidate, and {REBUILD_LIMIT:,} are the most for which that is done. Use 'diag' or 'kron'."
        )


def _head(
    engine: NewtonEngine,
    features: np.ndarray,
    intercept: bool,
    target: np.ndarray | None,
    tol: float,
    progress: Progress | None,
) -> np.ndarray:
    """Return both terms, absolute errors and the most informative labels of one head, `(4, n)`."""
    design = engine.model.design
    rows = Design(features, intercept, design.dtype, design.device)
    out = np.zeros((4, rows.n_samples))
    for part, wide, x in _seen(engine, rows):
        if target is None:
            found = _expected(wide, x, tol)
        else:
            codes = torch.from_numpy(target[part]).to(x.device)
            found = (*_joined(wide, x, codes, tol), codes.to(torch.float64))
        out[:, part] = torch.stack(found).cpu().numpy()
        if progress is not None:
            progress("candidates", part.stop, rows.n_samples)
    return out


def _seen(engine: NewtonEngine, rows: Design) -> Iterator[tuple[slice, NewtonEngine, Tensor]]:
    """Yield blocks of rows in the coordinates of an engine that holds all of each row."""
    basis, named = engine.posterior.basis, engine.posterior.name
    deficient = basis is not None and basis.shape[1] < basis.shape[0]
    roomy = with_room(engine) if deficient else engine
    for part, x in rows.blocks(ROWS):
        inside = engine.posterior.project(x)
        if not deficient:
            yield part, engine, inside
            continue
        length, direction = outside_of(engine, x)
        whole = torch.cat([inside, length[:, None].to(x.dtype)], 1)
        if named != "diag":
            yield part, roomy, whole
            continue
        for k in range(len(x)):  # each has a direction of its own, which a diagonal takes part in
            one = slice(part.start + k, part.start + k + 1)
            yield one, facing(roomy, direction[k]), whole[k : k + 1]


def label_weights(engine: NewtonEngine) -> Tensor:
    """Return the sample weight of each label, `(C,)`: that of the rows of the data that have it."""
    model = engine.model
    of_class = torch.ones(model.n_classes, dtype=torch.float64, device=model.target.device)
    of_class[model.target] = model.weight
    return of_class


def _joined(engine: NewtonEngine, x: Tensor, target: Tensor, tol: float) -> Columns:
    """Return the columns of labelled rows, each certified."""
    parts = []
    for rows in torch.arange(len(x), device=x.device).split(ROWS):
        edits = Edits.joining(engine.model, x[rows], target[rows], label_weights(engine)[target[rows]])
        found = certified(engine, edits, tol, joined=True, prepare=prepare_joining)
        error = found.certificate * found.terms.total
        parts.append((found.terms.mean, found.terms.covariance, error))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _expected(engine: NewtonEngine, x: Tensor, tol: float) -> Columns:
    r"""Return the columns of rows without labels, :math:`\sum_c p_c\, \mathrm{LSI}(x, c)`, and labels.

    Labels that add next to nothing keep the value of their own equations, which then counts as its own error;
    together they are at most half of the tolerance.
    """
    model = engine.model
    chance = model.probabilities(x.to(torch.float64))
    mean, covariance = _estimated(engine, x)
    share = chance * (mean + covariance)
    share = share / share.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    ordered, label = share.sort(1)
    small = torch.zeros_like(share, dtype=torch.bool).scatter(1, label, ordered.cumsum(1) <= 0.5 * tol)
    row, code = (~small).nonzero(as_tuple=True)
    error = mean + covariance
    swept = _joined(engine, x[row], code, 0.5 * tol)
    mean[row, code], covariance[row, code], error[row, code] = swept
    sums = [(chance * each).sum(1) for each in (mean, covariance, error)]
    return (*sums, (mean + covariance).argmax(1).to(torch.float64))


def _estimated(engine: NewtonEngine, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return both terms for each row with each label, with the curvature of the data kept, `(B, C)` each."""
    model, posterior = engine.model, engine.posterior
    c, together = model.n_classes, max(1, PAIRS // (model.n_classes * model.theta.numel()))
    parts, solver = [], EditSolver(engine.solver)
    for rows in torch.arange(len(x), device=x.device).split(together):
        label = torch.arange(c, device=x.device).repeat(len(rows))
        edits = Edits.joining(model, x[rows].repeat_interleave(c, 0), label, label_weights(engine)[label])
        edit = edits.for_posterior(prepare_joining(solver, edits).delta)
        terms = posterior.divergence_of(edit, joined=True)
        parts.append(torch.stack([terms.mean, terms.covariance]).view(2, len(rows), c))
    mean, covariance = torch.cat(parts, 1)
    return mean, covariance
