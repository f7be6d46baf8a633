"""Encoders that are functions of the user's own: ``module:function``, imported and called on request."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsi.errors import InputError, LsiError, nearest
from lsi.features.encoders.base import Batches, Encoder
from lsi.features.encoders.network import Network, digest_of, weights_digest
from lsi.features.encoders.pictures import Pictures
from lsi.features.encoders.pooling import pool
from lsi.system.door import read_bytes
from lsi.system.machine import expand

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WANTED = (
    "It must take no arguments and return a torch module for images, or a function from a list of items (PIL "
    "pictures, texts, or recordings) to features (b, D)."
)


def is_function(name: str) -> bool:
    """Return whether this is ``module:function``, and no file of that name."""
    return _NAME.fullmatch(name) is not None and not os.path.lexists(expand(name))


def build_function(name: str) -> tuple[Any, str]:
    """Import a module, call its function, and return what it returned, with a digest of the code."""
    module_name, _, function = name.partition(":")
    with _current_folder():
        module = _imported(name, module_name)
        if not callable(made := getattr(module, function, None)):
            known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
            raise InputError(
                f"--encoder: {module_name} has no function {function!r}. {nearest(function, known)}"
            )
        try:
            inspect.signature(made).bind()
        except TypeError as error:
            raise InputError(f"--encoder {name} needs arguments ({error}). {_WANTED}") from error
        except ValueError:
            pass  # made in C, it does not say
        with _own_code(name):
            found = made()
    if not callable(found) and not isinstance(found, Encoder):
        raise InputError(f"--encoder {name} returned {_kind_of(found)}. {_WANTED}")
    return found, _code_digest(module)


def _imported(name: str, module_name: str) -> ModuleType:
    try:
        with _own_code(name):
            return importlib.import_module(module_name)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and module_name.startswith(cause.name or "\0"):
            raise InputError(
                f"--encoder {name}: there is no module {module_name} in the current folder ({os.getcwd()}), "
                "nor installed. Change to its folder, or correct its name."
            ) from cause
        raise


@contextmanager
def _own_code(name: str) -> Iterator[None]:
    """Say where the user's own code failed, and how."""
    try:
        yield
    except LsiError:
        raise
    except (Exception, SystemExit) as error:
        (*_, last) = traceback.extract_tb(error.__traceback__)
        said = f": {error}" if str(error) else ""
        raise InputError(
            f"the encoder {name} raised {type(error).__name__}{said} (line {last.lineno} of "
            f"{last.filename}). Repair it and start again."
        ) from error


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules of the current folder be found, as ``python -m`` does."""
    here = os.getcwd()
    known = here in sys.path or "" in sys.path
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if not known:
            sys.path.append(here)  # for what the function imports when it is called


def _code_digest(module: ModuleType) -> str:
    """Return a digest of the files of the module's package and of modules from the current folder.

    Of other packages, only the version that a run's manifest names is known.
    """
    top = module.__name__.partition(".")[0]
    here, prefix = Path.cwd(), Path(sys.prefix)
    digest = hashlib.blake2b(digest_size=20)
    for key, one in sorted(sys.modules.items()):
        own = key.partition(".")[0]
        path = Path(getattr(one, "__file__", None) or "/")
        ours = here in path.parents and prefix not in path.parents and own not in ("lsi", "__main__")
        if (own == top or ours) and path.is_file():
            digest.update(f"{key} ".encode() + read_bytes(path))
    return digest.hexdigest()


def network_of(kind: str, name: str, module: nn.Module, code: str) -> Network:
    """Return a module of the user's as a network for images of the usual size and scale."""
    if kind != "image":
        raise InputError(
            f"--encoder {name} returned a torch module, which takes pictures. For other items return a "
            "function from a list of them to features (b, D), such as `model.encode` of "
            "sentence-transformers."
        )
    pictures = Pictures()
    key = {"encoder": "module", "code": code, "processor": digest_of(pictures.to_dict()), "version": 1}
    return Network(module.eval(), pictures, _Call(name, module), "mean", key, certain=False)


class _Call:
    """Calls a module of the user's."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self._name, self._module = name, module

    def __call__(self, inputs: dict[str, Tensor], pooling: str) -> Any:
        with _own_code(self._name):
            return self._module(inputs["pixel_values"])


class FunctionEncoder(Encoder):
    """A function from a list of decoded items to features.

    What a function does can change in ways that no key sees, above all with files that it reads. So its first
    items are encoded again wherever features are taken from the cache.
    """

    certain = False

    def __init__(
        self,
        kind: str,
        name: str,
        function: Callable[[list[Any]], Any],
        code: str,
        pooling: str,
        batch_size: int,
    ) -> None:
        self.kind, self.name, self.function, self.code = kind, name, function, code
        self.pooling, self.chunk = "mean" if pooling == "auto" else pooling, batch_size

    def key(self) -> dict[str, Any]:
        """Return a digest of the code, and of the weights of modules that the function holds."""
        return {
            "encoder": "function",
            "kind": self.kind,
            "name": self.name,
            "code": self.code,
            "weights": [weights_digest(module) for module in _modules(self.function)],
            "pooling": self.pooling,
            "version": 1,
        }

    def prepare(self, items: Sequence[Any]) -> Batches:
        """Return the items as they are, pictures in colour."""
        given = np.empty(len(items), dtype=object)
        given[:] = [item.convert("RGB") if self.kind == "image" else item for item in items]
        return [(list(range(len(items))), given)] if len(items) else []

    def forward(self, inputs: Any) -> Tensor:
        """Return what the function makes of a batch, `(b, D)`."""
        with _own_code(self.name), torch.inference_mode():
            found = self.function(list(inputs))
        return pool(self._tensor(found), self.pooling).detach().float().cpu()

    def _tensor(self, found: Any) -> Any:
        if isinstance(found, (list, tuple)) and found and isinstance(found[0], Tensor) and found[0].ndim == 1:
            found = [row.detach().cpu().numpy() for row in found]
        if isinstance(found, np.ndarray) and found.dtype.kind in "fiub":
            return torch.from_numpy(np.ascontiguousarray(found))
        if isinstance(found, (list, tuple)) and found and not isinstance(found[0], Tensor):
            try:
                return torch.from_numpy(np.asarray(found, dtype=np.float32))
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"the encoder {self.name} returned rows that are no numbers of one length."
                ) from error
        return found


def _modules(function: Any) -> list[nn.Module]:
    """Return the modules that a function holds: what it is bound to, closes over, or was given."""
    given = [function]
    if isinstance(function, functools.partial):
        given += [function.func, *function.args, *function.keywords.values()]
    held = [*given, *(getattr(one, "__self__", None) for one in given)]
    for one in filter(inspect.isfunction, given):
        held += inspect.getclosurevars(one).nonlocals.values()
    return [one for one in held if isinstance(one, nn.Module)]


def _kind_of(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
