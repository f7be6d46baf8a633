r"""Which rows without labels to take: greedily, so that each pick knows those before it.

What a row's label will tell of the weights, before it is known, is to first order the information

.. math:: I(x) = \tfrac12 \ln\det\bigl(I + S\, E^\top H_t^{-1} E\bigr), \qquad
          H_{t+1} = H_t + E S E^\top

with the curvature :math:`S = \mathrm{diag}(p) - p p^\top` that the row is expected to bring: the label is not
known, so that the weights stay, and only the curvature grows. It is the criterion of Bayesian D-optimal
design, and BALD for a Gaussian posterior (Houlsby et al., 2011). Gains only shrink as rows are taken
(submodularity), so that old gains are bounds: few are computed again for each pick (lazy greedy, Minoux
1978), and the rows taken are worth at least 1 − 1/e of the best set.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.design import Design
from lsi.fitted.candidates import candidate_names, label_weights
from lsi.loo.newton.engine import NewtonEngine
from lsi.probes.softmax.math import contrast_curvature
from lsi.system.progress import Progress
from lsi.validation.problem import Problem
from lsi.validation.queries import check_queries

LOOKED = 64  # rows whose gain is computed again together
ROOM = 4 << 30  # bytes of the rows' information matrices


def choose_rows(
    engines: Iterable[NewtonEngine],
    problem: Problem,
    intercept: bool,
    X: Any,
    budget: int,
    ids: Any = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the table of `Fitted.choose`."""
    features = check_queries(X, problem)
    names = candidate_names(X, ids, len(features))
    if not 1 <= budget <= len(features):
        raise InputError(f"budget must lie between 1 and the {len(features)} rows of X, got {budget}.")
    heads = [_Pool(engine, features, intercept) for engine in engines]
    bound = sum(head.gains(slice(None)) for head in heads)
    assert isinstance(bound, Tensor)
    picked, gains = [], []
    for done in range(budget):
        best = _next(heads, bound)
        picked.append(best)
        gains.append(float(bound[best]))
        bound[best] = -torch.inf
        for head in heads:
            head.take(best)
        if progress is not None:
            progress("choose", done + 1, budget)
    return pd.DataFrame({"candidate": names[picked], "position": picked, "gain": gains})


def _next(heads: list[_Pool], bound: Tensor) -> int:
    """Return the row of the largest gain, whose exact gain is in `bound` then. Shapes: bound `(M,)`."""
    fresh = torch.zeros(len(bound), dtype=torch.bool, device=bound.device)
    while True:
        top = bound.topk(min(LOOKED, len(bound))).indices
        stale = top[~fresh[top] & torch.isfinite(bound[top])]
        if bool(fresh[top[0]]):
            return int(top[0])
        gains = torch.stack([head.gains(stale) for head in heads]).sum(0)
        bound[stale] = torch.minimum(bound[stale], gains)  # rounding must not let a gain grow
        fresh[stale] = True


class _Pool:
    """The rows that may be taken, as one head sees them.

    With `S = L Lᵀ`, it keeps `A = Lᵀ Q L` of every row, `(M, C', C')`, and the columns W of what has been
    taken, `H_t⁻¹ = H̄⁻¹ − W Wᵀ`.
    """

    def __init__(self, engine: NewtonEngine, features: np.ndarray, intercept: bool) -> None:
        model, design = engine.model, engine.model.design
        self.k = model.theta.shape[0]
        if 24 * len(features) * self.k**2 > ROOM:
            most = ROOM // (24 * self.k**2)
            raise InputError(f"X has {len(features):,} rows. Choose among at most {most:,} at a time.")
        rows = Design(features, intercept, design.dtype, design.device).rows(0, len(features))
        inside = engine.posterior.project(rows)
        p = model.probabilities(inside.to(torch.float64))
        self.x, self.inverse = _whole(engine, rows, inside)
        curvature = contrast_curvature(p, model.contrasts) * (p @ label_weights(engine))[:, None, None]
        values, vectors = torch.linalg.eigh(curvature)
        self.root = vectors * values.clamp_min(0).sqrt()[:, None, :]
        self.information = self.root.mT @ self._grams() @ self.root
        self.taken = self.x.new_empty((len(self.inverse), 0))

    def _grams(self) -> Tensor:
        """Return `Q = Eᵀ H̄⁻¹ E` of every row, `(M, C', C')`, float64."""
        (m, d), k = self.x.shape, self.k
        out = torch.empty((m, k, k), dtype=torch.float64, device=self.x.device)
        for part in torch.arange(m, device=self.x.device).split(512):
            x = self.x[part]
            for c in range(k):
                reach = (x @ self.inverse[c * d : (c + 1) * d]).view(len(x), k, d)
                out[part, c] = torch.bmm(reach, x[:, :, None])[:, :, 0].to(torch.float64)
        return 0.5 * (out + out.mT)

    def gains(self, which: Any) -> Tensor:
        """Return `½ ln det(I + A)` of some rows."""
        eye = torch.eye(self.k, dtype=torch.float64, device=self.x.device)
        return 0.5 * torch.linalg.slogdet(eye + self.information[which]).logabsdet

    def take(self, row: int) -> None:
        """Let a row bring its curvature: `A ← A − G (I + A_k)⁻¹ Gᵀ` with `G = Lᵀ Eᵀ H_t⁻¹ E_k L_k`."""
        d, k = self.x.shape[1], self.k
        own = torch.einsum("cs,d->cds", self.root[row].to(self.x.dtype), self.x[row]).reshape(k * d, k)
        reach = self.inverse @ own - self.taken @ (self.taken.T @ own)  # H_t⁻¹ E_k L_k
        eye = torch.eye(k, dtype=torch.float64, device=self.x.device)
        lower = torch.linalg.cholesky(eye + self.information[row])
        column = torch.linalg.solve_triangular(lower, reach.T.to(torch.float64), upper=False).T
        column = column.to(self.x.dtype)
        self.taken = torch.cat([self.taken, column], 1)
        seen = (self.x @ column.view(k, d, k).permute(1, 0, 2).reshape(d, k * k)).view(-1, k, k)
        seen = self.root.mT @ seen.to(torch.float64)
        self.information -= seen @ seen.mT


def _whole(engine: NewtonEngine, rows: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and inverse in coordinates that hold all of the rows.

    Where the data span fewer directions than there are features, the rows' own are added: there the penalty
    is all the curvature there is. Shapes: rows `(M, D₀)`, inside `(M, D)`.
    """
    model, matrix, basis = engine.model, engine.solver.inverse.matrix, engine.posterior.basis
    if basis is None or basis.shape[0] == basis.shape[1]:
        return inside, matrix
    left = rows.to(torch.float64) - inside.to(torch.float64) @ basis.T
    extra = torch.linalg.qr(left.T, mode="reduced")[0]
    (k, d), wide = model.theta.shape, model.theta.shape[1] + extra.shape[1]
    whole = matrix.new_zeros((k, wide, k, wide))
    whole[:, :d, :, :d] = matrix.view(k, d, k, d)
    for c in range(k):
        whole[c, d:, c, d:].diagonal().fill_(1.0 / model.loo_ridge)
    return torch.cat([inside, (left @ extra).to(inside.dtype)], 1), whole.view(k * wide, k * wide)
