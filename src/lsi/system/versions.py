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


def install_hint(extra: str = "") -> str:
    """Return the command that installs the library, with one of its extras.

    No package index has it yet, so it is installed from a clone of the repository.
    """
    what = f"'.[{extra}]'" if extra else "."
    return f"in a clone of the repository, python -m pip install -c constraints.txt {what}"


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
