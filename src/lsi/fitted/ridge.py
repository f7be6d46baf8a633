r"""Questions to a fitted `RidgeProbe`, in closed form.

Losses are those of its likelihood, :math:`\sum_t \tfrac{\beta_t}{2} (y_t - f_t)^2` in nats, with the noise
precision of the fit kept. With δ the change of the weights without a row, the loss of a query with the
residual r changes by :math:`\sum_t \beta_t (\tfrac12 s_t^2 - r_t s_t)`, :math:`s = x_q^\top \delta`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.analysis.nearness import nearness
from lsi.errors import InputError
from lsi.features.design import Design
from lsi.fitted.answer import Answer
from lsi.fitted.asked import Asked
from lsi.fitted.candidates import candidate_names
from lsi.fitted.leaks import FALSE_COPIES, FAR, in_words
from lsi.loo.attribution.causes import extremes
from lsi.loo.attribution.queries import TINY
from lsi.loo.edits.ridge import ridge_joined, ridge_step
from lsi.loo.ridge import EPS, SAFETY, RidgeEngine
from lsi.run.context import Run
from lsi.system.progress import Progress
from lsi.tasks.groups import check_groups
from lsi.validation.problem import Problem
from lsi.validation.queries import check_queries

TOGETHER = 128  # queries or removals that are looked at together


class RidgeAnswers:
    """Answers of one fitted ridge regression.

    Args:
        run: Of the fitted probe.
        engine: Its factorised data.
    """

    def __init__(self, run: Run, engine: RidgeEngine) -> None:
        self.run, self.engine, self.model = run, engine, engine.model
        model = self.model
        self._theta = model.weights(model.ridge)
        # What the smaller penalty of a removal moves, common to all of them.
        self._drift = model.weight_decay / (model.singular.square() + model.loo_ridge)
        self._drift = self._drift[:, None] * self._theta

    @property
    def _problem(self) -> Problem:
        return self.run.problem

    def _rows(self, features: np.ndarray) -> Tensor:
        """Return new rows with their intercept, `(M, D)`."""
        design = Design(features, self.run.probe.fit_intercept, torch.float64, self.model.design.device)
        return design.rows(0, len(features))

    def _residuals(self, z: Tensor, target: np.ndarray) -> Tensor:
        return torch.from_numpy(target).to(z.device) - z @ self._theta

    # Values

    def values(self, X: Any, y: Any, groups: Any, progress: Progress | None) -> pd.DataFrame:
        """Return the table of `Fitted.values`; numbers have no accuracy."""
        asked = Asked.of(self.run, X, y)
        assert asked.target is not None
        z, _ = self.model.split(self._rows(asked.features))
        residual, noise = self._residuals(z, asked.target), self.engine.noise
        slope, curved = -z.T @ (residual * noise) / len(z), z.T @ z / len(z)
        if groups is None:
            first, steps = {"sample_id": self._problem.sample_id}, self._removals()
            total = self.model.n_samples
        else:
            names, members = check_groups(groups, self._problem)
            first = {"group": names, "n": np.array([len(rows) for rows in members])}
            steps, total = self._departures(members), len(members)
        loss, error = [], []
        for delta, relative in steps:
            linear = delta * slope
            bent = 0.5 * noise * ((curved @ delta) * delta).sum(1)
            loss.append(linear.sum((1, 2)) + bent.sum(1))
            # A sum that cancels keeps the rounding of its parts.
            error.append(2.0 * relative * (linear.abs().sum((1, 2)) + bent.sum(1)))
            if progress is not None:
                progress("values", sum(map(len, loss)), total)
        return _valued(first, torch.cat(loss).cpu().numpy(), torch.cat(error).cpu().numpy())

    def _removals(self) -> Any:
        """Yield δ of blocks of samples, `(B, R, T)`, and how far each may be off, relative to it, `(B,)`."""
        size = max(1, (1 << 22) // self._theta.numel())
        for index in torch.arange(self.model.n_samples, device=self._theta.device).split(size):
            block = self.engine.removed(index)
            yield self._drift - block.a[:, :, None] * block.residual[:, None, :], self._relative(block.rest)

    def _relative(self, rest: Tensor) -> Tensor:
        return self.engine.floor + SAFETY * EPS * len(self.model.singular) ** 0.5 / rest

    def _departures(self, members: list[np.ndarray]) -> Any:
        for rows in members:
            delta, relative = ridge_step(self.engine, torch.from_numpy(rows).to(self._theta.device))
            yield delta[None], torch.full((1,), relative, dtype=torch.float64, device=delta.device)

    # Causes

    def explain(self, X: Any, y: Any, k: int, progress: Progress | None) -> pd.DataFrame:
        """Return the table of `Fitted.explain`, with the change of each prediction."""
        asked = Asked.of(self.run, X, y)
        if asked.target is None and self._theta.shape[1] > 1:
            raise InputError("y is None, and the changes of several targets have no order. Pass the targets.")
        removed = self.engine.removed(torch.arange(self.model.n_samples, device=self._theta.device))
        tables = []
        for low in range(0, len(asked), TOGETHER):
            tables.append(self._causes(asked.part(slice(low, low + TOGETHER)), removed, k))
            if progress is not None:
                progress("explain", min(low + TOGETHER, len(asked)), len(asked))
        return pd.concat(tables, ignore_index=True)

    def _causes(self, asked: Asked, removed: Any, k: int) -> pd.DataFrame:
        z, _ = self.model.split(self._rows(asked.features))
        target = (z @ self._theta).cpu().numpy() if asked.target is None else asked.target
        residual, noise = self._residuals(z, target), self.engine.noise
        common, reach = z @ self._drift, z @ removed.a.T
        shift = common[:, None] - reach[:, :, None] * removed.residual  # s, (M, N, T)
        loss = (noise * (0.5 * shift.square() - residual[:, None] * shift)).sum(2)
        ranked = shift[:, :, 0] if asked.target is None else loss
        whole = common.abs()[:, None] + (reach[:, :, None] * removed.residual).abs()
        doubt = (noise * (residual.abs()[:, None] + shift.abs()) * whole).sum(2)
        doubt = doubt * self._relative(removed.rest)
        samples = extremes(ranked, k)
        query = torch.arange(len(z), device=z.device)[:, None].expand_as(samples)
        rank = torch.arange(1, samples.shape[1] // 2 + 1, device=z.device)
        rank = torch.cat([rank, -rank]).expand_as(samples)
        keep = ranked[query, samples] * rank > 0
        query, samples, rank = query[keep], samples[keep], rank[keep]
        at = (query, samples)
        columns: dict[str, Any] = {
            "query": asked.names[query.cpu().numpy()],
            "rank": rank.cpu().numpy(),
            "sample_id": self._problem.sample_id[samples.cpu().numpy()],
            "loss_change": loss[at].cpu().numpy(),
        }
        names = self._problem.outputs
        for t in range(shift.shape[2]):
            name = "prediction_change" if shift.shape[2] == 1 else f"prediction_change_{names[t]}"
            columns[name] = shift[:, :, t][at].cpu().numpy()
        columns["relative_error"] = (doubt[at] / loss[at].abs().clamp_min(TINY)).cpu().numpy()
        return pd.DataFrame(columns)

    # New rows

    def candidates(self, X: Any, y: Any, ids: Any) -> Answer:
        """Return the table of `Fitted.candidates`."""
        asked = Asked.of(self.run, X, y)
        names = candidate_names(X, ids, len(asked))
        target = None if asked.target is None else torch.from_numpy(asked.target).to(self._theta.device)
        terms, error = ridge_joined(self.engine, self._rows(asked.features), target)
        columns: dict[str, Any] = {"candidate": names}
        if asked.target is not None and asked.target.shape[1] == 1:
            columns["label"] = asked.target[:, 0]
        columns |= {
            "lsi": terms.total.cpu().numpy(),
            "mean_term": terms.mean.cpu().numpy(),
            "covariance_term": terms.covariance.cpu().numpy(),
            "relative_error": error.cpu().numpy(),
        }
        return Answer(pd.DataFrame(columns))

    def choose(self, X: Any, budget: int, ids: Any, progress: Progress | None) -> pd.DataFrame:
        """Return the table of `Fitted.choose`: by `½ T ln(1 + xᵀ A_t⁻¹ x)`, with the picks so far in A."""
        features = check_queries(X, self._problem)
        names = candidate_names(X, ids, len(features))
        if not 1 <= budget <= len(features):
            raise InputError(f"budget must lie between 1 and the {len(features)} rows of X, got {budget}.")
        model, x = self.model, self._rows(features)
        rows, outside = model.split(x)
        a = (rows / (model.singular.square() + model.ridge)) @ model.basis.T
        if model.ridge:
            a = a + outside / model.ridge
        left = (x * a).sum(1)  # xᵀ A_t⁻¹ x
        picked: list[int] = []
        gains, taken = [], x.new_empty((0, len(x)))
        for done in range(budget):
            open_ = left.clone()
            open_[picked] = -torch.inf
            best = int(open_.argmax())
            # A_t⁻¹ = A⁻¹ − Σ u uᵀ: what the picks share with every row.
            shared = (x @ a[best] - taken.T @ taken[:, best]) / (1.0 + left[best]).sqrt()
            gains.append(0.5 * self._theta.shape[1] * float(torch.log1p(left[best])))
            picked.append(best)
            taken, left = torch.cat([taken, shared[None]]), (left - shared.square()).clamp_min(0)
            if progress is not None:
                progress("choose", done + 1, budget)
        return pd.DataFrame({"candidate": names[picked], "position": picked, "gain": gains})

    def leaks(self, X: Any, y: Any) -> pd.DataFrame:
        """Return the table of `Fitted.leaks`; a prediction that is a number hangs on no single row."""
        asked = Asked.of(self.run, X, y)
        z, _ = self.model.split(self._rows(asked.features))
        problem, near = self._problem, nearness(self._problem.features, asked.features)
        copy = near.copy_p * len(asked) <= FALSE_COPIES
        far = (near.far_p <= FAR) & ~copy
        same: Any = np.full(len(asked), np.nan)
        if asked.target is not None:
            same = (asked.target == problem.target[near.nearest]).all(1)
        nearest = problem.sample_id[near.nearest]
        agrees = np.ones(len(asked), dtype=bool) if asked.target is None else same
        found = [in_words(*row, None) for row in zip(copy, agrees, far, nearest, strict=True)]
        prediction = (z @ self._theta).cpu().numpy()
        columns: dict[str, Any] = {"query": asked.names}
        if prediction.shape[1] == 1:
            columns["prediction"] = prediction[:, 0]
        else:
            columns |= {f"prediction_{name}": prediction[:, t] for t, name in enumerate(problem.outputs)}
        columns |= {"nearest": nearest, "distance": near.distance, "same_label": same}
        columns |= {"copy_p": near.copy_p, "far_p": near.far_p}
        columns |= {"hangs_on": pd.Series([None] * len(asked), dtype=object), "finding": found}
        return pd.DataFrame(columns)

    def lsi(self) -> np.ndarray:
        """Return the scores of all samples, `(N,)`."""
        return self.engine.run(torch.arange(self.model.n_samples, device=self._theta.device)).lsi


def _valued(first: dict[str, Any], loss: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    effect = np.where(error < np.abs(loss), np.where(loss > 0, "helps", "hurts"), "unclear")
    relative = error / np.maximum(np.abs(loss), TINY)
    return pd.DataFrame({**first, "loss_change": loss, "effect": effect, "relative_error": relative})
