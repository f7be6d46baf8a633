r"""Samples that carry the same information.

Leaving sample i out moves the weights by :math:`\delta_i \approx H^{-1}(g_i \otimes x_i)`. To second order,
leaving out i and j together has the score

.. math:: \mathrm{LSI}(ij) \approx \mathrm{LSI}(i) + \mathrm{LSI}(j) + \delta_i^\top P\, \delta_j

so that one can stand in for the other as far as :math:`\delta_i` and :math:`\delta_j` point the same way:
each alone is cheap to lose, both together are not. Their similarity is the cosine in the curvature,

.. math:: s_{ij} = \frac{\delta_i^\top H \delta_j}{\sqrt{\delta_i^\top H \delta_i \; \delta_j^\top H
    \delta_j}} = \cos(u_i, u_j), \qquad u_i = L^{-1}(g_i \otimes x_i), \quad H = L L^\top .

1: the same information; 0: nothing in common; −1: the same features with contradicting labels. Beyond 512
weights, u is projected on 512 random directions (Johnson and Lindenstrauss, 1984): the cosine then has a
standard error of :math:`(1 - s^2) / \sqrt{512}`, 0.02 at 0.7 and nothing at 1. Where H is too large to be
factorised, :math:`B \otimes A` takes its place. The step that the weight decay takes when a sample leaves is
ignored: it is the same for all samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.analysis.grouping import group_around
from lsi.analysis.view import need_classes
from lsi.errors import InputError
from lsi.probes.linear import LinearProbe
from lsi.probes.softmax.fit import Curvature
from lsi.probes.softmax.math import residuals
from lsi.probes.softmax.model import SoftmaxModel
from lsi.probes.softmax.quick_fit import probe_of, quick_model
from lsi.results.table import ScoreTable
from lsi.validation.problem import Problem, check_problem
from lsi.validation.settings import check_choice

BASES = ("influence", "features")
THRESHOLD = 0.7
"""About √½: half of the squared effect on the weights is shared."""
DIRECTIONS = 512
"""Random directions that stand for the weights where there are more of these."""
LARGEST = 8192
"""Most weights for which the whole curvature is factorised, in half a gigabyte."""
_ROWS = 8192  # samples in a block
_TINY = 1e-30


def redundancy(
    X: Any,
    y: Any,
    *,
    lsi: np.ndarray | None = None,
    sample_id: Any = None,
    probe: LinearProbe | None = None,
    threshold: float = THRESHOLD,
    by: str = "influence",
) -> pd.DataFrame:
    """Return groups of samples that carry the same information.

    Each member's similarity to its group's representative is at least `threshold`, so the representatives
    alone carry what the others carried. The cost is at most N² R / 2 multiply-adds, with R the number of
    weights, 512 at most (D for ``by="features"``). Memory is bounded by blocks of rows: no N × N matrix.

    Args:
        X: `(N, D)` features: numpy, torch or pandas.
        y: `(N,)` labels.
        lsi: `(N,)` scores; the most informative sample of a group represents it. None: the first one.
        sample_id: `(N,)` unique ids; None: the index of X if it is a DataFrame, else `0 … N−1`.
        probe: Probe whose residuals and curvature define influence; None: ``LinearProbe()``.
        threshold: Least similarity to the representative, in (0, 1].
        by: `"influence"` (same effect on the weights, the formula of this module) or `"features"` (cosine
            of the features in their weighted second moment: near-duplicates, whatever their labels).

    Returns:
        One row per sample, in the order of X: `sample_id`, `label`, `redundancy_group` (−1: none; the largest
        group is 0), `representative` (an id) and `similarity` to it.

    Raises:
        InputError: Data or a setting cannot be used.
    """
    problem = check_problem(X, y, sample_id=sample_id)
    check_choice("by", by, BASES)
    if not 0 < threshold <= 1:
        raise InputError(f"threshold must lie in (0, 1], got {threshold!r}; the default is {THRESHOLD}.")
    if lsi is not None and len(lsi) != problem.n_samples:
        raise InputError(
            f"lsi has {len(lsi)} entries but X has {problem.n_samples} rows. Score every sample."
        )
    order = np.arange(problem.n_samples) if lsi is None else np.argsort(-np.asarray(lsi), kind="stable")
    found = group_around(directions(problem, probe or LinearProbe(), by), order, threshold)
    labels = pd.Series(problem.classes[problem.target]).infer_objects()
    return pd.DataFrame(
        {
            "sample_id": problem.sample_id,
            "label": labels,
            "redundancy_group": found.group,
            "representative": problem.sample_id[found.representative],
            "similarity": found.similarity,
        }
    )


def group_scores(
    scores: ScoreTable, X: Any, y: Any = None, *, threshold: float = THRESHOLD, by: str = "influence"
) -> pd.DataFrame:
    """Return a table of scores with the column `redundancy_group`. Shapes: X `(N, D)`, y `(N,)`."""
    need_classes(scores.task, "redundancy")
    table, manifest = scores.to_frame(), scores.manifest
    position = table["position"].to_numpy()
    n = len(X)
    total = int((manifest.get("data") or {}).get("n_samples", n))
    if n != total:
        raise InputError(f"X has {n:,} rows, but the scores are of {total:,}. Pass the same features.")
    if y is None and len(table) < n:
        raise InputError(f"only {len(table):,} of {n:,} rows were scored, so pass all labels as y too.")
    labels = y
    if y is None:
        labels = pd.Series(index=range(n), dtype=object)
        labels.iloc[position] = table["label"].to_numpy()
    # Samples without a score come last: a scored one represents the group.
    lsi = np.full(n, -np.inf)
    lsi[position] = table["lsi"].to_numpy()
    features = X.to_numpy() if isinstance(X, pd.DataFrame) else X
    found = redundancy(features, labels, lsi=lsi, probe=probe_of(manifest), threshold=threshold, by=by)
    return table.assign(redundancy_group=found["redundancy_group"].to_numpy()[position])


def directions(
    problem: Problem,
    probe: LinearProbe,
    by: str,
    *,
    n_directions: int = DIRECTIONS,
    largest: int = LARGEST,
) -> Tensor:
    """Return unit vectors whose inner products are the similarities, `(N, R)` with R at most `n_directions`.

    Beyond `largest` weights `B ⊗ A` takes the place of the curvature.
    """
    model = quick_model(problem.features, problem.target, problem.classes, probe)
    if by == "features":
        whitening = _feature_whitening(model).to(torch.float32)
        return torch.cat([unit_rows(x @ whitening) for _, x in model.design.blocks(_ROWS)])
    if model.theta.numel() > largest:
        return _influence(model, _class_whitening(model), _kronecker_map(model, n_directions))
    return _influence(model, torch.eye(model.n_classes - 1), _dense_map(model, n_directions))


def _influence(model: SoftmaxModel, turn: Tensor, mapping: Tensor) -> Tensor:
    """Return the unit rows of `Σ_c (g turn)_c · (x mapping_c)`, `(N, R)`.

    Shapes: turn `(C − 1, C − 1)`, mapping `(C − 1, D, R)`.
    """
    out = torch.empty((model.n_samples, mapping.shape[2]))
    for rows, x in model.design.blocks(_ROWS):
        probability = model.probabilities(x.to(torch.float64))
        residual = residuals(probability, model.target[rows]) @ model.contrasts @ turn.to(torch.float64)
        # Residuals of confident samples are tiny: their direction counts, not their size.
        residual = unit_rows(residual).to(torch.float32)
        total = torch.zeros((len(x), mapping.shape[2]))
        for part, to_rows in zip(residual.T, mapping, strict=True):
            total += part[:, None] * (x @ to_rows)
        out[rows] = unit_rows(total)
    return out


def _dense_map(model: SoftmaxModel, n_directions: int) -> Tensor:
    """Return `Z (C − 1, D, R)` with `Zᵀ v = Ω L⁻¹ v`; Ω is the identity, or random beyond R weights."""
    factor = Curvature.of(model).factor
    size = len(factor)
    wanted = torch.eye(size) if size <= n_directions else _random(size, n_directions)
    found = torch.linalg.solve_triangular(factor.T, wanted.to(factor.dtype), upper=True)
    return found.to(torch.float32).view(*model.theta.shape, -1)


def _kronecker_map(model: SoftmaxModel, n_directions: int) -> Tensor:
    """Return `Z` for the factor A of `H = B ⊗ A`; B turns the residuals instead (`_class_whitening`)."""
    random = _random(model.theta.numel(), n_directions).view(*model.theta.shape, -1)
    return torch.stack([_feature_whitening(model).to(torch.float32) @ part for part in random])


def _feature_whitening(model: SoftmaxModel) -> Tensor:
    """Return `A^{-½} (D, D)`, A the curvature-weighted second moment of the features plus the ridge."""
    d = model.design.n_features
    moment, total = torch.zeros((d, d), dtype=torch.float64), 0.0
    for _, x in model.design.blocks(_ROWS):
        trace = 1.0 - model.probabilities(x).square().sum(1)
        moment += ((x * trace[:, None]).T @ x).to(torch.float64)
        total += float(trace.sum())
    values, vectors = torch.linalg.eigh(moment / max(total, _TINY))
    ridge = model.ridge * (model.n_classes - 1) / max(total, _TINY)
    return (vectors * (values.clamp_min(0) + ridge).rsqrt()) @ vectors.T


def _class_whitening(model: SoftmaxModel) -> Tensor:
    """Return `B^{-½} (C − 1, C − 1)`, B the mean curvature over classes."""
    mean = torch.zeros((model.n_classes, model.n_classes), dtype=torch.float64)
    for _, x in model.design.blocks(_ROWS):
        p = model.probabilities(x.to(torch.float64))
        mean += torch.diag(p.sum(0)) - p.T @ p
    values, vectors = torch.linalg.eigh(model.contrasts.T @ mean @ model.contrasts)
    return (vectors * values.clamp_min(1e-9 * float(values.max()) + _TINY).rsqrt()) @ vectors.T


def _random(rows: int, n_directions: int) -> Tensor:
    """Return `(rows, n_directions)` Gaussian numbers, the same ones every time."""
    return torch.randn((rows, n_directions), generator=torch.Generator().manual_seed(0))


def unit_rows(rows: Tensor) -> Tensor:
    """Return rows scaled to length 1; rows of zeros stay."""
    norm = rows.norm(dim=1, keepdim=True)
    return torch.where(norm > 0, rows / norm.clamp_min(torch.finfo(rows.dtype).tiny), 0.0)
