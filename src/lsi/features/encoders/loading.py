"""Networks of transformers: their settings and weights are data, and no code of theirs is ever run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.features.encoders.guards import (
    bounded,
    foreign,
    missing,
    reason_of,
    refuse_broken_torchvision,
)
from lsi.features.encoders.network import Network, digest_of
from lsi.system.door import charge, files_below, read_json

_PLAIN = {"trust_remote_code": False, "local_files_only": True}
_WEIGHTS = {**_PLAIN, "use_safetensors": True, "low_cpu_mem_usage": True}
_VOCABULARIES = ("tokenizer.json", "vocab.json")
_LONGEST_TEXT = 512
_INPUTS = {
    "pixel_values": "images",
    "input_ids": "texts",
    "input_values": "recordings",
    "input_features": "recordings",
}
"""What networks encode, by the name of their main input in transformers."""
_ITEMS = {"image": "images", "text": "texts", "audio": "recordings"}


def load_pretrained(kind: str, folder: Path, name: str) -> Network:
    """Load a network and its preprocessing from a checked folder."""
    require_transformers(name)
    import transformers

    with quiet(), foreign(lambda error: _not_loaded(kind, name, error)), bounded(name):
        model, told = transformers.AutoModel.from_pretrained(folder, output_loading_info=True, **_WEIGHTS)
        _check_items(kind, name, model)
        processor = processor_of(kind, folder)
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
    untrained = _check_complete(name, model, told)
    model = model.eval().requires_grad_(False)
    key = {
        "encoder": "transformers",
        "config": digest_of(model.config.to_diff_dict()),
        "processor": digest_of(settings_of(processor)),
        "version": 1,
    }
    longest = None
    if kind == "text":
        with foreign(lambda error: _not_loaded(kind, name, error)):
            config = getattr(model.config, "text_config", model.config)
            longest = longest_text(processor, getattr(config, "max_position_embeddings", None), folder)
    return Network(model, processor, _Call(kind, model, untrained), _pooling(kind, model), key, longest)


class _Call:
    """Calls a network of transformers; one for several kinds of items is asked for the features of one."""

    def __init__(self, kind: str, model: Any, untrained: set[str]) -> None:
        self._model, self._method = model, getattr(model, f"get_{kind}_features", None)
        self._pools = not any("pooler" in name for name in untrained)

    def __call__(self, inputs: dict[str, Tensor], pooling: str) -> Any:
        if pooling == "pooler" and not self._pools:
            raise InputError("this encoder was saved without its pooler. Use --pooling mean or cls.")
        if self._method is None:
            return self._model(**inputs)
        output = self._method(**inputs)
        pooled = getattr(output, "pooler_output", None)
        return output if pooled is None else pooled


def _pooling(kind: str, model: Any) -> str:
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    return "cls" if kind == "image" and {"cls_token", "class_embedding"} & names else "mean"


def require_transformers(name: str) -> None:
    """Refuse to go on without transformers, or with what would break it."""
    refuse_broken_torchvision()
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        hint = missing(f"the encoder {name}", "transformers")
        raise InputError(f"{hint} --encoder raw works without it.") from error


def processor_of(kind: str, folder: Path) -> Any:
    """Return the preprocessing in a folder."""
    import transformers

    if kind == "image":
        return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **_PLAIN)
    if kind == "audio":
        return transformers.AutoFeatureExtractor.from_pretrained(folder, **_PLAIN)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_PLAIN)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def longest_text(tokenizer: Any, positions: int | None, folder: Path) -> int:
    """Return the most tokens of a text: what the network was made for, at most 512."""
    limits = [_LONGEST_TEXT, tokenizer.model_max_length, positions or _LONGEST_TEXT]
    stated = folder / "sentence_bert_config.json"
    if stated.is_file():
        limits.append(read_json(stated, "config")["max_seq_length"] or _LONGEST_TEXT)
    return max(1, int(min(limits)))


def settings_of(processor: Any) -> dict[str, Any]:
    """Return the settings of a processor, without the path that it came from."""
    if hasattr(processor, "backend_tokenizer"):
        return {"tokenizer": json.loads(processor.backend_tokenizer.to_str())}
    settings = processor.to_dict() if hasattr(processor, "to_dict") else dict(processor.init_kwargs)
    return {name: value for name, value in settings.items() if "path" not in name}


def check_folder(folder: Path) -> dict[str, Any]:
    """Refuse pipes, links out of the folder, code, and pickled weights; return the settings in it."""
    names, settings = [], None
    for path in files_below(folder):
        names.append(path.name)
        if path.suffix == ".json":
            limit = "text" if path.name in _VOCABULARIES else "config"
            charge(path.stat().st_size, str(path), limit)
            if path.name not in _VOCABULARIES and path.parent == folder:
                found = check_settings(path)
                settings = found if path.name == "config.json" else settings
    if settings is None:
        raise InputError(
            f"{folder} has no config.json, so it is no encoder's folder. Name one that save_pretrained "
            "wrote, or a snapshot of the hub."
        )
    if not any(name.endswith(".safetensors") for name in names):
        pickled = next((name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))), None)
        hint = f" {pickled} is a pickle, which may run code and is never read." if pickled else ""
        raise InputError(
            f"{folder} has no weights in the format safetensors.{hint} Save the network again: "
            "model.save_pretrained(folder)."
        )
    return settings


def check_settings(path: Path) -> Any:
    """Refuse settings that are no JSON, or that name code; return them."""
    try:
        settings = read_json(path, "config")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON ({error}). Save the encoder again.") from error
    if path.name == "config.json" and not isinstance(settings, dict):
        raise InputError(f"{path} does not hold an encoder's settings. Save the encoder again.")
    if isinstance(settings, dict) and "auto_map" in settings:
        raise InputError(
            f"{path} names code of its own (auto_map), which is never run. Name an encoder that transformers "
            "knows, or run that code yourself, in a function of your own: --encoder mymodule:function."
        )
    return settings


def _check_items(kind: str, name: str, model: Any) -> None:
    """Refuse an encoder of other items than these."""
    known = {_INPUTS.get(getattr(model, "main_input_name", ""))}
    known |= {_ITEMS[other] for other in _ITEMS if hasattr(model, f"get_{other}_features")}
    if None not in known and _ITEMS[kind] not in known:
        raise InputError(
            f"{name} encodes {' and '.join(sorted(map(str, known)))}, but these items are {_ITEMS[kind]}. "
            f"Name an encoder of {_ITEMS[kind]}."
        )


def _check_complete(source: str, model: Any, told: dict[str, Any]) -> set[str]:
    """Refuse weights that leave most of the network as it was made, at random; return what they leave.

    A few are usual, such as a pooler that nobody trained. They become zeros: random ones would give the
    network another key in the cache each time.
    """
    named = dict(model.named_parameters())
    left = {key for key in told.get("missing_keys", ()) if key in named}
    if len(left) > len(named) // 2:
        raise InputError(
            f"the weights of the encoder {source} do not belong to its config.json: {len(left):,} of "
            f"{len(named):,} are missing, the first {min(left)!r}. Save the encoder again."
        )
    with torch.no_grad():
        for key in left:
            named[key].zero_()
    return left


def _not_loaded(kind: str, name: str, error: BaseException) -> str:
    return (
        f"the {kind} encoder {name} could not be loaded: {reason_of(error)} Fetch or save it again, or name "
        "another one."
    )


@contextmanager
def quiet() -> Iterator[None]:
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
