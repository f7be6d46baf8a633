"""Versions of the library and of the packages below it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    """Return the version of the installed package, the only place that states it."""
    try:
        return version("laplace-sample-information")
    except PackageNotFoundError:
        return "unknown"


__version__ = _installed()


def versions() -> dict[str, str]:
    """Return the versions on which results depend: of the library, torch, numpy and Python."""
    import numpy as np  # here, so that `lsi --version` does not wait for them
    import torch

    return {
        "lsi": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
