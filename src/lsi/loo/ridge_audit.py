"""The audit of a ridge regression: least squares without the sample, solved anew."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from lsi.audit import Audit
from lsi.divergence import Terms, diag_divergence, full_divergence
from lsi.loo.audit import choose
from lsi.loo.result import LooResult
from lsi.loo.ridge import RidgeEngine
from lsi.probes.least_squares import LARGE
from lsi.progress import Progress


def audit_ridge(
    engine: RidgeEngine,
    index: Tensor,
    result: LooResult,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a regression.

    Args:
        engine: The engine that made the result.
        index: Positions that were scored.
        result: What the run reports.
        count: How many to leave out again.
        seed: Of the choice.
        progress: Called as `progress("audit", done, total)`.
    """
    began = time.perf_counter()
    picks = choose(result.lsi, count, seed)
    design, model = engine.model.design, engine.model
    x, y = design.rows(0, model.n_samples), model.target
    whole = _solve(x, y, model.ridge)
    gram = x.T @ x
    exact = []
    for done, where in enumerate(picks):
        left_out = int(index[where])
        keep = torch.arange(len(x), device=x.device) != left_out
        delta = _solve(x[keep], y[keep], model.loo_ridge) - whole
        terms = [
            _divergence(engine, gram, x[left_out], beta, delta[:, target])
            for target, beta in enumerate(engine.noise)
        ]
        exact.append(sum(float(term.total) for term in terms))
        if progress is not None:
            progress("audit", done + 1, len(picks))
    return Audit.from_values(
        index.cpu().numpy()[picks],
        exact,
        result.lsi[picks],
        result.relative_error[picks],
        time.perf_counter() - began,
    )


def _solve(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Return the weights `(D, T)`: least squares on the data with `√λ I` below them, or normal equations.

    The latter where the data are large, by Cholesky's factor and one step of iterative refinement.
    """
    n, d = x.shape
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    if n * d**2 <= LARGE:
        nothing = torch.zeros((d, y.shape[1]), dtype=y.dtype, device=y.device)
        q, r = torch.linalg.qr(torch.cat([x, ridge**0.5 * eye]))
        return torch.linalg.solve_triangular(r, q.T @ torch.cat([y, nothing]), upper=True)
    factor = torch.linalg.cholesky(x.T @ x + ridge * eye)
    weights = torch.cholesky_solve(x.T @ y, factor)
    return weights + torch.cholesky_solve(x.T @ (y - x @ weights) - ridge * weights, factor)


def _divergence(engine: RidgeEngine, gram: Tensor, x: Tensor, beta: Tensor, delta: Tensor) -> Terms:
    """Return the divergence of one target from dense precisions."""
    first = beta * gram
    first.diagonal().add_(engine.prior_precision)
    if engine.diagonal:
        return diag_divergence(first.diagonal(), -beta * x.square()[None], delta[None])
    factor = torch.linalg.cholesky(first)
    return full_divergence(factor, -beta * torch.outer(x, x)[None], delta[None])
