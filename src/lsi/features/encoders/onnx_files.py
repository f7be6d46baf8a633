"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsi.errors import InputError
from lsi.features.encoders import loading, protobuf
from lsi.features.encoders.guards import foreign, missing, reason_of
from lsi.features.encoders.network import Network, digest_of
from lsi.features.encoders.pictures import SIDE, Pictures
from lsi.system.door import charge, inside, open_regular, require_regular
from lsi.system.versions import install_hint

_NUMBERS = {
    "tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8, "tensor(int64)": torch.int64, "tensor(int32)": torch.int32,
}  # fmt: skip
_CHANNELS = 3


@dataclass(frozen=True)
class Input:
    """An input of a network: its name, the type of its numbers, and its sides; None: any length."""

    name: str
    type: str
    shape: tuple[int | None, ...]

    @classmethod
    def of(cls, entry: Any) -> Input:
        """Read what onnxruntime says, which may be no text at all."""
        shape = [side if isinstance(side, int) else None for side in entry.shape]
        return cls(str(entry.name), str(entry.type), tuple(shape))


class OnnxModule(nn.Module):
    """Runs an ONNX file as if it were a module; the session is opened where it is first needed."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        self.path, self.threads = path.absolute(), threads
        self._session: Any = None

    @property
    def session(self) -> Any:
        """The open session."""
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = self.threads, 4
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )  # the fallback would print what the file says
        return self._session

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the first output for inputs by name."""
        fed = {name: value.cpu().numpy() for name, value in inputs.items()}
        (found, *_) = self.session.run([self.session.get_outputs()[0].name], fed)
        return torch.from_numpy(np.asarray(found))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to other processes of this machine: all but the session."""
        return {**self.__dict__, "_session": None}


def load_onnx(kind: str, path: Path, name: str) -> Network:
    """Load an ONNX file of images or texts."""
    if kind == "audio":
        raise InputError(
            f"{name} is an ONNX file, which does not say how to prepare recordings. Prepare them in a "
            "function of your own: --encoder mymodule:function."
        )
    digest = _check_file(path)
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(missing(f"the encoder {name}", "onnxruntime", install_hint("onnx"))) from error
    module = OnnxModule(path, torch.get_num_threads())
    with foreign(
        lambda error: f"{name} cannot be opened as an ONNX file: {reason_of(error)} Export it again."
    ):
        given = {entry.name: Input.of(entry) for entry in module.session.get_inputs()}
        output = module.session.get_outputs()[0].name
    for entry in given.values():
        if entry.type not in _NUMBERS:
            raise InputError(
                f"{name}: its input {entry.name!r} is a {entry.type}, not numbers. Export it again."
            )
    prepare = _images if kind == "image" else _texts
    network_input, processor, longest = prepare(path, name, given)
    key = {
        "encoder": "onnx",
        "file": digest,
        "processor": digest_of(loading.settings_of(processor)),
        "output": output,
        "version": 1,
    }
    call = _Call(module, {entry.name: _NUMBERS[entry.type] for entry in network_input})
    single = any(entry.shape[:1] == (1,) for entry in network_input)
    batch = 1 if single else None
    return Network(module, processor, call, "mean", key, longest, precise=True, batch=batch)


class _Call:
    """Hands a network its inputs under its own names, in its own types."""

    def __init__(self, module: OnnxModule, types: dict[str, torch.dtype]) -> None:
        self._module, self._types = module, types

    def __call__(self, inputs: dict[str, Tensor], pooling: str) -> Tensor:
        if len(self._types) == 1:
            ((name, dtype),) = self._types.items()
            value = inputs.get("pixel_values", inputs.get(name))
            return self._module({name: _as(value, dtype)})
        return self._module({name: _as(inputs[name], dtype) for name, dtype in self._types.items()})


def _as(value: Any, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).contiguous()


def _images(path: Path, name: str, given: dict[str, Input]) -> tuple[list[Input], Any, None]:
    """Return the input of pictures, and what makes it: the file's neighbour, else what its shape says."""
    if len(given) != 1:
        raise InputError(
            f"{name} has {len(given)} inputs ({', '.join(map(repr, given))}), but an encoder of images has "
            "one. Export the part that encodes images, or feed it in a function of your own: --encoder "
            "mymodule:function."
        )
    (entry,) = given.values()
    shape = entry.shape
    if len(shape) != 4 or _CHANNELS not in (shape[1], shape[3]) and None not in (shape[1], shape[3]):
        raise InputError(
            f"{name}: its input {entry.name!r} has the shape {entry.shape}, but images are (batch, 3, "
            "height, width) or (batch, height, width, 3). Export an encoder of colour images."
        )
    _check_batch(name, entry)
    folder = _beside(path, "preprocessor_config.json")
    if folder is not None:
        loading.require_transformers(name)
        with loading.quiet(), foreign(lambda error: _no_settings(folder, error)):
            return [entry], loading.processor_of("image", folder), None
    last = shape[3] == _CHANNELS and shape[1] != _CHANNELS
    height, width = shape[1:3] if last else shape[2:]
    whole = _NUMBERS[entry.type] == torch.uint8
    raw = {"mean": (), "std": ()} if whole else {}
    return [entry], Pictures((height or SIDE, width or SIDE), channels_last=last, **raw), None  # type: ignore[arg-type]


def _texts(path: Path, name: str, given: dict[str, Input]) -> tuple[list[Input], Any, int]:
    """Return the inputs of texts, and the tokenizer beside the file."""
    folder = _beside(path, "tokenizer.json", "vocab.txt", "tokenizer_config.json")
    if folder is None:
        raise InputError(
            f"{name} needs a tokenizer for texts. Put its tokenizer.json and tokenizer_config.json beside "
            "the file, as `optimum-cli export onnx` does."
        )
    loading.require_transformers(name)
    with loading.quiet(), foreign(lambda error: _no_settings(folder, error)):
        tokenizer = loading.processor_of("text", folder)
        longest = loading.longest_text(tokenizer, None, folder)
        made = set(tokenizer("a"))
    if not given or not set(given) <= made:
        strange = ", ".join(repr(key) for key in given if key not in made)
        raise InputError(
            f"{name} has inputs that its tokenizer does not make ({strange}); it makes "
            f"{', '.join(map(repr, sorted(made)))}. Name an encoder of texts."
        )
    for entry in given.values():
        if len(entry.shape) != 2 or entry.shape[1] is not None:
            raise InputError(
                f"{name}: its input {entry.name!r} takes no texts of any length. Export it again with a "
                "dynamic length."
            )
        _check_batch(name, entry)
    return list(given.values()), tokenizer, longest


def _check_batch(name: str, entry: Input) -> None:
    if entry.shape[0] not in (None, 1):
        axes = f"dynamic_axes={{{entry.name!r}: {{0: 'batch'}}}}"
        raise InputError(
            f"{name}: its input {entry.name!r} takes exactly {entry.shape[0]} samples at a time. Export it "
            f"again with a dynamic batch: torch.onnx.export(…, {axes})."
        )


def _beside(path: Path, *names: str) -> Path | None:
    """Return the folder of the file, or the one above it, that holds one of these files; checked before."""
    for folder in (path.parent, path.parent.parent) if path.parent.name == "onnx" else (path.parent,):
        found = [folder / name for name in names if os.path.lexists(folder / name)]
        for place in found:
            inside(place, folder)
            charge(require_regular(place).st_size, str(place), "text")
        if found:
            _refuse_code(folder)
            return folder
    return None


def _refuse_code(folder: Path) -> None:
    for place in sorted(folder.glob("*.json")):
        inside(place, folder)
        loading.check_settings(place)


def _no_settings(folder: Path, error: BaseException) -> str:
    return (
        f"the settings in {folder} cannot be used: {reason_of(error)} Save them again with save_pretrained."
    )


def _check_file(path: Path) -> str:
    """Return a digest of a file and of the files that it takes tensors from, which must be in its folder."""
    charge(require_regular(path).st_size, str(path))
    digest = hashlib.blake2b(digest_size=20)
    _update(digest, path)
    with open_regular(path) as file:
        content = file.read()
    try:
        places = sorted(set(protobuf.external_files(content)))
    except protobuf.DamagedError as error:
        raise InputError(f"{path} is no ONNX file, or damaged: {error}. Export it again.") from error
    for place in places:
        other = path.parent / place
        if not place or "\0" in place or os.path.isabs(place):
            raise InputError(
                f"{path} takes tensors from {place!r}, which is not in its folder. Export it again into one "
                "file."
            )
        inside(other, path.parent)
        charge(require_regular(other).st_size, str(other))
        _update(digest, other)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:
    digest.update(json.dumps(path.stat().st_size).encode())
    for part in _parts(path):
        digest.update(part)


def _parts(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while part := file.read(1 << 20):
            yield part
