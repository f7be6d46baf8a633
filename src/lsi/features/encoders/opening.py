"""From what `--encoder` names to a network: a folder, a file, an architecture's weights, a hub's name."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from lsi.errors import InputError
from lsi.features.encoders.hub import fetch
from lsi.features.encoders.loading import check_folder, load_pretrained, quiet, require_transformers
from lsi.features.encoders.network import Network
from lsi.features.encoders.onnx_files import load_onnx
from lsi.features.encoders.timm_models import load_timm, load_weights
from lsi.features.encoders.weights import SUFFIXES
from lsi.system.machine import expand

DEFAULTS = {
    "image": "facebook/dinov2-small",
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "audio": "facebook/wav2vec2-base-960h",
}
"""Encoders where none is named; all of them publish safetensors. For images: the smallest DINOv2
(Oquab et al., 2023, arXiv:2304.07193), whose features were made to be read by linear probes."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_ONNX = ".onnx"


def open_network(kind: str, name: str) -> Network:
    """Open what a name says; it is checked before any of it is loaded."""
    path = expand(name)
    architecture, colon, tail = name.partition(":")
    if os.path.lexists(path):
        return _open_folder(kind, path, name) if path.is_dir() else _open_file(kind, path, name)
    if colon and Path(tail).suffix.lower() in SUFFIXES:
        _only_images(kind, name)
        return load_weights(architecture, expand(tail))
    if not _HUB_NAME.fullmatch(name) or ".." in name or Path(name).suffix.lower() in (*SUFFIXES, _ONNX):
        raise InputError(
            f"--encoder: there is no folder or file {name}, and it is no name on the hub. It takes a "
            "folder, a file.onnx, ARCHITECTURE:weights.pt, module:function, or a name such as "
            "facebook/dinov2-small."
        )
    require_transformers(name)
    with quiet():
        folder, commit = fetch(name)
    return replace(_open_folder(kind, folder, name), origin={"hub": name, "commit": commit})


def _open_folder(kind: str, folder: Path, name: str) -> Network:
    settings = check_folder(folder)
    if isinstance(settings.get("architecture"), str) and "model_type" not in settings:
        _only_images(kind, name)
        return load_timm(folder, settings, name)
    return load_pretrained(kind, folder, name)


def _open_file(kind: str, path: Path, name: str) -> Network:
    if path.suffix.lower() == _ONNX:
        return load_onnx(kind, path, name)
    if path.suffix.lower() in SUFFIXES:
        raise InputError(
            f"--encoder {name} holds weights, but not which network they belong to. Name an architecture of "
            f"timm before it: --encoder resnet18:{name}."
        )
    raise InputError(
        f"--encoder {name} is a file. Name a folder that save_pretrained wrote, a file.onnx, or weights "
        "with their architecture: --encoder resnet18:weights.pt."
    )


def _only_images(kind: str, name: str) -> None:
    if kind != "image":
        raise InputError(
            f"{name} is a network of timm, which encodes images, but these items are "
            f"{'texts' if kind == 'text' else 'recordings'}. Name an encoder of these."
        )
