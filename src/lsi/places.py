"""Where the library keeps what can be made again: features, downloads, unpacked archives."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache's folder; it need not exist yet.

    Args:
        given: A folder; None: ``$LSI_CACHE``, else ``lsi`` in the user's cache folder.

    Returns:
        The folder.
    """
    if given is not None:
        return Path(given).expanduser()
    if named := os.environ.get("LSI_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lsi"
