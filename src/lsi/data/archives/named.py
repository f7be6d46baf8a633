"""Datasets known by name: scikit-learn's own, and published ones that are found on disk or downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lsi.data.archives.cifar import load_cifar
from lsi.data.archives.vision import load_archived_folder, load_fashion_mnist
from lsi.data.options import SourceOptions
from lsi.data.samples import Samples, standardise
from lsi.errors import InputError, nearest


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


def _diabetes() -> Samples:
    import sklearn.datasets

    bunch: Any = sklearn.datasets.load_diabetes(scaled=False)
    return Samples(
        name="diabetes",
        ids=np.arange(len(bunch.target)),
        labels=standardise(bunch.target[:, None])[:, 0],
        features=standardise(bunch.data),
        feature_names=tuple(str(text) for text in bunch.feature_names),
        description=(
            "Progress of diabetes in a year (scikit-learn), a number for each patient; features and target "
            "are standardised to mean 0 and standard deviation 1."
        ),
        source={"kind": "named", "name": "diabetes"},
        task="regression",
    )


NAMED: dict[str, Callable[[], Samples]] = {
    "digits": _digits,
    "wine": _wine,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
}
"""Datasets that come with scikit-learn: nothing is downloaded."""

PUBLISHED: dict[str, Callable[[str, SourceOptions], Samples]] = {
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "fashion_mnist": load_fashion_mnist,
    "imagenette": load_archived_folder,
    "imagewoof": load_archived_folder,
}
"""Datasets in archives, which are searched in ``data_dir`` and else downloaded."""

_SPELLINGS = {"cifar_10": "cifar10", "cifar_100": "cifar100", "fashionmnist": "fashion_mnist"}


def canonical_name(name: str) -> str:
    """Return `name` as the registry spells it: lower case, underscores."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    return _SPELLINGS.get(plain, plain)


def is_known(name: str) -> bool:
    """Return whether `load_named` knows this name."""
    return canonical_name(name) in (*NAMED, *PUBLISHED)


def load_named(name: str, options: SourceOptions | None = None) -> Samples:
    """Load one of the datasets in `NAMED` or `PUBLISHED`.

    Args:
        name: Its name; case and hyphens do not matter.
        options: Where archives are, and which split is wanted.

    Returns:
        The samples.

    Raises:
        InputError: If no dataset has this name, or it can be neither found nor downloaded.
    """
    known = canonical_name(name)
    if known in PUBLISHED:
        return PUBLISHED[known](known, options or SourceOptions())
    if known not in NAMED:
        raise InputError(
            f"unknown dataset {name!r}. {nearest(name, [*NAMED, *PUBLISHED])} "
            "For your own data give the path of a .npz file, of a table, or of a folder of images."
        )
    return NAMED[known]()
