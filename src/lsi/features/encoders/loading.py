"""Encoders of others, opened: their settings and weights are data, and no code of theirs is ever run."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module as hooks

from lsi.errors import InputError, LsiError
from lsi.system.door import LIMITS, Refused, charge, files_below, read_json
from lsi.system.machine import expand
from lsi.system.versions import install_hint

DEFAULTS = {
    "image": "microsoft/resnet-18",
    "text": "sentence-transformers/all-MiniLM-L6-v2",
    "audio": "facebook/wav2vec2-base-960h",
}
"""Encoders where none is named; all of them publish safetensors. For images: a ResNet-18 trained on
ImageNet, as in the paper."""
_PLAIN = {"trust_remote_code": False}
_WEIGHTS = {**_PLAIN, "use_safetensors": True, "low_cpu_mem_usage": True}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_counting = threading.Lock()


def load_pretrained(kind: str, source: str) -> tuple[Any, Any]:
    """Load a network and its preprocessing."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"the encoder {source} needs transformers. Install it: {install_hint('encoders')}. "
            "--encoder raw works without it."
        ) from error
    local = expand(source)
    if os.path.lexists(local):
        check_folder(local)
        source = str(local)
    elif not _HUB_NAME.fullmatch(source) or ".." in source:
        raise InputError(f"--encoder: there is no folder {source}.")
    processors: dict[str, Callable[[], Any]] = {
        "image": lambda: transformers.AutoImageProcessor.from_pretrained(source, backend="pil", **_PLAIN),
        "text": lambda: transformers.AutoTokenizer.from_pretrained(source, **_PLAIN),
        "audio": lambda: transformers.AutoFeatureExtractor.from_pretrained(source, **_PLAIN),
    }
    with _quiet(), foreign(lambda error: _not_loaded(kind, source, error)), _bounded(source):
        model, told = transformers.AutoModel.from_pretrained(source, output_loading_info=True, **_WEIGHTS)
        processor = processors[kind]()
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
    _check_complete(source, model, told)
    return model.eval().requires_grad_(False), processor


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds pipes, links out of it, code, huge settings, or weights that are pickles."""
    if not folder.is_dir():
        raise InputError(f"--encoder {folder} is a file. Name the folder that save_pretrained wrote.")
    names = []
    for path in files_below(folder):
        names.append(path.name)
        if path.suffix == ".json":
            limit = "text" if path.name in _VOCABULARIES else "config"
            charge(path.stat().st_size, str(path), limit)
            if path.name not in _VOCABULARIES and path.parent == folder:
                _check_settings(path, path.name)
    if "config.json" not in names:
        raise InputError(
            f"{folder} has no config.json: save_pretrained did not write it. Name an encoder's folder."
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickled = next((name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))), None)
        hint = f" {pickled} is a pickle, which may run code and is never read." if pickled else ""
        raise InputError(
            f"{folder} has no weights in the format safetensors.{hint} Save the network again: "
            "model.save_pretrained(folder)."
        )


_VOCABULARIES = ("tokenizer.json", "vocab.json")


def _check_settings(path: Path, name: str) -> None:
    try:
        settings = read_json(path, "config")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON ({error}). Save the encoder again.") from error
    if name == "config.json" and not isinstance(settings, dict):
        raise InputError(f"{path} does not hold an encoder's settings. Save the encoder again.")
    if isinstance(settings, dict) and "auto_map" in settings:
        raise InputError(
            f"{path} names code of its own (auto_map), which is never run. Name an encoder that transformers "
            "knows, or encode with that code yourself and score the features."
        )


@contextmanager
def foreign(message: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn whatever the libraries raise on the files of others into one error."""
    try:
        yield
    except (LsiError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # damaged files raise anything, and tokenizers panics below Exception
        raise InputError(message(error)) from error


@contextmanager
def _bounded(source: str) -> Iterator[None]:
    """Count modules and weights as they are made: a line of settings can ask for millions of them."""
    modules, taken, most = 0, 0, LIMITS["modules"].value

    def module(*_: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > most:
            raise Refused(f"the encoder {source} has more than {most:,} modules. Name another one.")

    def tensor(owner: Any, name: str, value: torch.Tensor | None) -> None:
        nonlocal taken
        if value is not None:
            taken += value.numel() * value.element_size()
            charge(taken, f"the encoder {source}")

    with _counting:
        handles = [
            hooks.register_module_module_registration_hook(module),
            hooks.register_module_parameter_registration_hook(tensor),
            hooks.register_module_buffer_registration_hook(tensor),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _check_complete(source: str, model: Any, told: dict[str, Any]) -> None:
    """Refuse weights that leave most of the network as it was made, which is at random."""
    named = {name for name, _ in model.named_parameters()}
    missing = {key for key in told.get("missing_keys", ()) if key in named}
    if len(missing) > len(named) // 2:
        raise InputError(
            f"the weights of the encoder {source} do not belong to its config.json: {len(missing):,} of "
            f"{len(named):,} are missing, the first {min(missing)!r}. Save the encoder again."
        )


def _not_loaded(kind: str, source: str, error: BaseException) -> str:
    reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    default = (
        " (the default for images: a ResNet-18 trained on ImageNet)" if source == DEFAULTS["image"] else ""
    )
    return (
        f"the {kind} encoder {source}{default} could not be loaded: {reason} Without a network, name the "
        "folder of an encoder that was saved with save_pretrained: --encoder path/to/folder."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars and messages of the libraries off the terminal while a network is loaded."""
    from transformers.utils import logging

    hub = getLogger("huggingface_hub")
    verbosity, bars, level = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.level
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub.setLevel(ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
