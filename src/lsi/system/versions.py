"""Versions of the library and of what it stands on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch


def versions() -> dict[str, str]:
    """Return the versions that decide a result: of the library, torch, numpy and Python."""
    try:
        own = version("laplace-sample-information")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "lsi": own,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
