"""State dicts of others: tensors by name, from `.safetensors`, `.pt` and `.pth`, without running anything."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from lsi.errors import InputError
from lsi.features.encoders.guards import foreign, missing, reason_of
from lsi.system.door import charge, open_regular, require_regular

SUFFIXES = (".safetensors", ".pt", ".pth")
"""Files that hold a state dict."""
_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where checkpoints of training programs keep it, the averaged one first, as timm reads them."""
_PREFIXES = ("_orig_mod.", "module.")
"""What torch.compile and DistributedDataParallel put before every name."""
_SAVE = "Save the state dict: torch.save(model.state_dict(), 'weights.pt')."
_COUNT = "num_batches_tracked"
"""A count of batch normalisation's that no forward pass reads, and that older files lack."""
_NAMED = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file by their names."""
    if path.suffix.lower() == ".safetensors":
        charge(require_regular(path).st_size, str(path))
        return _read_safetensors(path)
    with open_regular(path) as file, foreign(lambda error: _not_read(path, error)):
        size = file.seek(0, os.SEEK_END)
        charge(size, str(path))
        _check_zip(path, file, size)
        file.seek(0)
        found = torch.load(file, map_location="cpu", weights_only=True)
    found = next((found[name] for name in _INSIDE if isinstance(found, dict) and name in found), found)
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise InputError(f"{path} holds a {type(found).__name__}, no state dict. {_SAVE}")
    return _plain(path, found)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(missing(str(path), "safetensors")) from error
    with foreign(lambda error: f"{path} is damaged: {reason_of(error)} Get or save it again."):
        return _plain(path, load_file(path))


def _check_zip(path: Path, file: BinaryIO, size: int) -> None:
    """Refuse an archive that says it will become more than the file is: torch stores tensors as they are."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > size:
        raise InputError(f"{path} unpacks to more than its size, which torch.save never writes. {_SAVE}")
    for member in members:
        if member.filename.endswith("data.pkl"):
            charge(member.file_size, f"{path}: its list of tensors", "config")


def _plain(path: Path, found: dict[str, Any]) -> dict[str, Tensor]:
    """Return tensors that are what they seem: dense, on the processor, and no larger than their memory."""
    plain = {}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            continue  # counts and settings, which some programs keep among the weights
        held = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not held or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{path}: {name!r} is no plain tensor. {_SAVE}")
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        plain[name] = value
    if not plain:
        raise InputError(f"{path} holds no tensors. {_SAVE}")
    return plain


def _not_read(path: Path, error: BaseException) -> str:
    if "weights_only" in str(error) or "Unsupported" in str(error):
        return (
            f"{path} holds more than tensors, such as a pickled module: reading that could run code, so it "
            f"is never read. Where you trust it, load it yourself and keep the weights alone. {_SAVE}"
        )
    return f"{path} cannot be read: {reason_of(error)} {_SAVE}"


def put(
    weights: dict[str, Tensor], module: nn.Module, name: str, path: Path, dropped: tuple[str, ...]
) -> None:
    """Put weights into a network; tensors below a `dropped` prefix (its classifier) may be left over."""
    own = {key: value for key, value in module.state_dict().items() if not key.endswith(_COUNT)}
    given = {key: value for key, value in weights.items() if not key.endswith(_COUNT)}
    absent = [key for key in own if key not in given]
    unknown = [key for key in given if key not in own and not key.startswith(dropped)]
    unlike = [key for key in own if key in given and given[key].shape != own[key].shape]
    if absent or unknown or unlike:
        parts = [
            _count(f"of {len(own):,} are missing", absent),
            _count("are unknown to it", unknown),
            _count("have another shape", unlike),
        ]
        shapes = [f"{tuple(given[key].shape)} in place of {tuple(own[key].shape)}" for key in unlike[:1]]
        raise InputError(
            f"{path} does not fit the architecture {name}: {', '.join([*filter(None, parts), *shapes])}. "
            "Name the architecture that it was saved from, or build the network in a function of your own: "
            "--encoder mymodule:function."
        )
    module.load_state_dict({key: given[key] for key in own}, strict=False)


def _count(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    named = ", ".join(map(repr, keys[:_NAMED])) + (", …" if len(keys) > _NAMED else "")
    return f"{len(keys):,} tensors {what} ({named})"
