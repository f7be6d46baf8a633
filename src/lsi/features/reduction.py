"""Fewer features by principal components: deterministic, and in blocks where features are on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lsi.errors import InputError
from lsi.validation.features import as_matrix, check_finite, to_float
from lsi.validation.settings import AUTO

BLOCK = 8192  # rows read at a time
MOST_SIDE = 20_000  # of the matrix whose eigenvectors are needed: 3 GB
KEPT = 0.9  # share of the variance that "auto" keeps; measured in docs/explanation/tuning.md


@dataclass(frozen=True, eq=False)
class ReducedFeatures:
    """Features in their first principal components.

    Attributes:
        features: `(N, K)` float32, centred; columns of falling variance.
        mean: `(D,)`, mean of the features as given.
        components: `(K, D)`, orthonormal rows.
        explained: Share of the variance that is kept.
        rule: What K was asked for: ``"auto"`` or a number.
    """

    features: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    explained: float
    rule: int | str

    def transform(self, X: Any) -> np.ndarray:
        """Return other samples in the same components.

        Args:
            X: `(n, D)` features.

        Returns:
            `(n, K)` float32.

        Raises:
            InputError: X has other columns, or is no table of finite numbers.
        """
        x = to_float(as_matrix(X))
        check_finite(x)
        if x.shape[1] != len(self.mean):
            raise InputError(f"X has {x.shape[1]} features, and the components have {len(self.mean)}.")
        return _projected(x, self.mean, self.components)

    def describe(self) -> dict[str, Any]:
        """Return what a manifest says about the reduction, as JSON values."""
        kept, of = self.components.shape
        return {"n_components": kept, "of": of, "explained_variance": self.explained, "rule": self.rule}


def reduce_features(X: Any, n_components: int | Literal["auto"] = "auto") -> ReducedFeatures:
    r"""Return features in their first principal components.

    .. math:: Z = (X - \bar x)\, V_K, \qquad
              \tfrac1N \sum_i (x_i - \bar x)(x_i - \bar x)^\top = V \Lambda V^\top

    The cost of `Newton` grows with the third power of the number of features. A probe with weight decay
    hardly uses directions of little variance: its curvature there is below the penalty.

    Args:
        X: `(N, D)` features: numpy, torch or pandas. A memory-mapped array is read in blocks.
        n_components: K; ``"auto"``: as many as hold 90 % of the variance.

    Returns:
        The features, and what brings others into the same components.

    Raises:
        InputError: X is no table of finite numbers, K is out of range, or both sides of X exceed 20,000.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> found = reduce_features(load_digits().data)
        >>> found.features.shape, round(found.explained, 2)
        ((1797, 21), 0.9)
    """
    x = to_float(as_matrix(X))
    check_finite(x)
    check_components(n_components)
    n, d = x.shape
    if n_components != AUTO and int(n_components) > min(n - 1, d):
        raise InputError(
            f"{n_components} components of {n} samples with {d} features: give at most {min(n - 1, d)}."
        )
    if min(n, d) > MOST_SIDE:
        raise InputError(
            f"{n:,} samples with {d:,} features are too many for principal components, which take at most "
            f"{MOST_SIDE:,} of one or the other. Drop the reduction, or choose columns."
        )
    mean = sum((rows.sum(0) for rows in _blocks(x)), np.zeros(d)) / n
    values, vectors = _principal(x, mean)
    shares = np.cumsum(values) / max(values.sum(), np.finfo(float).tiny)
    k = int(np.searchsorted(shares, KEPT) + 1) if n_components == AUTO else int(n_components)
    k = min(k, len(values))
    components = vectors[:, :k].T
    # A component has no sign of its own: its largest entry is made positive.
    largest = np.abs(components).argmax(1)
    components = components * np.sign(components[np.arange(k), largest])[:, None]
    found = _projected(x, mean, components)
    return ReducedFeatures(found, mean, components, float(min(shares[k - 1], 1.0)), n_components)


def check_components(wanted: Any) -> None:
    """Refuse a number of components that is neither ``"auto"`` nor a positive integer."""
    whole = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
    if wanted != AUTO and not (whole and wanted >= 1):
        raise InputError(f"the number of components must be 'auto' or at least 1, got {wanted!r}.")


def _principal(x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variances, falling, and their directions as columns `(D, R)`, from the smaller square matrix."""
    n, d = x.shape
    if n > d:
        square = sum(((rows - mean).T @ (rows - mean) for rows in _blocks(x)), np.zeros((d, d)))
        values, vectors = np.linalg.eigh(square)
        values, vectors = values[::-1], vectors[:, ::-1]
    else:
        centred = np.concatenate([rows - mean for rows in _blocks(x)])
        values, left = np.linalg.eigh(centred @ centred.T)
        values, left = values[::-1], left[:, ::-1]
        # Centred rows add up to zero, so that at most n − 1 directions vary.
        kept = max(1, int((values > values[0] * n * np.finfo(float).eps).sum()))
        values = values[:kept]
        vectors = centred.T @ (left[:, :kept] / np.sqrt(np.maximum(values, np.finfo(float).tiny)))
    return values.clip(0), vectors


def _projected(x: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    out = np.empty((len(x), len(components)), dtype=np.float32)
    for start, rows in zip(range(0, len(x), BLOCK), _blocks(x), strict=True):
        out[start : start + BLOCK] = (rows - mean) @ components.T
    return out


def _blocks(x: np.ndarray) -> Any:
    """Yield float64 rows, `BLOCK` at a time."""
    for start in range(0, len(x), BLOCK):
        yield np.asarray(x[start : start + BLOCK], dtype=np.float64)
