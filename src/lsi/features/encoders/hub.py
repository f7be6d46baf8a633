"""Encoders on the Hugging Face hub: fetched as folders, without code or pickles, and held against sums."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path

from lsi.errors import InputError
from lsi.features.encoders.guards import foreign, reason_of
from lsi.system.door import open_regular

FILES = ("*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors")
"""Files of a model that are fetched: settings, vocabularies and weights."""
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FOLDER = "name the folder of an encoder on this machine: --encoder path/to/folder."


def fetch(name: str) -> tuple[Path, str]:
    """Return the folder of a model of the hub, and the commit that it is of."""
    import huggingface_hub

    with foreign(lambda error: _not_fetched(name, error)):
        found = huggingface_hub.snapshot_download(
            name, allow_patterns=list(FILES), ignore_patterns=["*/*"], library_name="lsi"
        )
    folder = Path(found)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            _check_sum(path, name)
    return folder, folder.name


def _check_sum(path: Path, name: str) -> None:
    """Hold a file against the hub's sum, which is its blob's name; what differs is removed."""
    blob = Path(os.path.realpath(path))
    if not _BLOB.fullmatch(blob.name):  # where links cannot be made, a copy lies there
        return
    with open_regular(blob) as file:
        if len(blob.name) == 64:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        else:  # as git names it
            size = os.fstat(file.fileno()).st_size
            header = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            found = hashlib.file_digest(file, lambda: header).hexdigest()
    if found != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise InputError(
            f"{path.name} of the encoder {name} is damaged: its content has not the sum that the hub states. "
            "It was removed from the hub's cache. Start the same command again to fetch it anew."
        )


def _not_fetched(name: str, error: BaseException) -> str:
    """Return what happened and what helps; the classes are `huggingface_hub`'s."""
    from huggingface_hub import constants, errors

    causes = [error, error.__cause__, error.__context__]
    place, start = constants.ENDPOINT, f"the encoder {name} "
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        terms = f"accept its terms at {place}/{name}"
        return f"{start}is gated: {terms}, then log in with `hf auth login`, or {_FOLDER}"
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return (
            f"{start}is not on the hub at {place}, or is private. Check its name; for a private one log in "
            f"with `hf auth login`; or {_FOLDER}"
        )
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return (
            f"{start}is not among earlier downloads, and HF_HUB_OFFLINE is set, so that nothing is fetched. "
            f"Fetch it once without HF_HUB_OFFLINE, or {_FOLDER}"
        )
    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in causes):
        where = constants.HF_HUB_CACHE
        return f"{start}does not fit on the disk of {where}. Make room, or set HF_HOME to another folder."
    if "onsistency check" in str(error):
        return (
            f"{start}came incomplete: the connection was cut. The files that are whole are kept. Start "
            "the same command again to fetch the rest."
        )
    return (
        f"{start}could not be fetched from the hub at {place}: {reason_of(error)} Check the network and "
        f"start the same command again, or {_FOLDER}"
    )
