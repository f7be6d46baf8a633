"""Datasets known by name, shipped with scikit-learn: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lsi.data.samples import Samples
from lsi.errors import InputError, nearest


def standardise(features: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and standard deviation 1; a constant column becomes 0.

    Args:
        features: ``(N, D)`` numbers.

    Returns:
        ``(N, D)`` float64.
    """
    centred = features - features.mean(axis=0)
    scale = centred.std(axis=0)
    return np.asarray(centred / np.where(scale > 0, scale, 1.0), dtype=np.float64)


def _digits() -> Samples:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return Samples(
        name="digits",
        ids=np.arange(len(bunch.target)),
        labels=bunch.target,
        features=bunch.data / 16.0,
        images=np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8),
        feature_names=tuple(bunch.feature_names),
        description="Handwritten digits, 8×8 pixels (scikit-learn); features are the pixels, scaled to 0–1.",
        source={"kind": "named", "name": "digits"},
    )


def _tabular(name: str, loader: str, what: str) -> Samples:
    import sklearn.datasets

    bunch: Any = getattr(sklearn.datasets, loader)()
    return Samples(
        name=name,
        ids=np.arange(len(bunch.target)),
        labels=bunch.target,
        features=standardise(bunch.data),
        class_names={code: str(text) for code, text in enumerate(bunch.target_names)},
        feature_names=tuple(str(text) for text in bunch.feature_names),
        description=f"{what} (scikit-learn); features are standardised to mean 0 and standard deviation 1.",
        source={"kind": "named", "name": name},
    )


def _wine() -> Samples:
    return _tabular("wine", "load_wine", "Chemical analysis of wines from three cultivars")


def _breast_cancer() -> Samples:
    return _tabular("breast_cancer", "load_breast_cancer", "Cell nuclei of breast masses")


NAMED: dict[str, Callable[[], Samples]] = {
    "digits": _digits,
    "wine": _wine,
    "breast_cancer": _breast_cancer,
}
"""Every dataset that `load_named` knows."""


def canonical_name(name: str) -> str:
    """Return `name` as the registry spells it: lower case, underscores.

    Args:
        name: A name as a user typed it, for example ``Breast-Cancer``.

    Returns:
        For example ``breast_cancer``.
    """
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def load_named(name: str) -> Samples:
    """Load one of the datasets in `NAMED`.

    Args:
        name: Its name; case and hyphens do not matter.

    Returns:
        The samples.

    Raises:
        InputError: If no dataset has this name.
    """
    loader = NAMED.get(canonical_name(name))
    if loader is None:
        raise InputError(
            f"unknown dataset {name!r}. {nearest(name, NAMED)} "
            "For your own data give the path of a .npz file that holds X and y."
        )
    return loader()
