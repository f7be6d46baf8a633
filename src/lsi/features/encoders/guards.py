"""What surrounds the opening of every encoder: foreign errors, and how much is let in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.modules import module as hooks

from lsi.errors import InputError, LsiError
from lsi.system.door import LIMITS, Refused, charge
from lsi.system.versions import install_hint

_counting = threading.Lock()


def missing(what: str, package: str, install: str = install_hint("encoders")) -> str:
    """Return how to go on where a package is missing."""
    return f"{what} needs {package}. Install it: {install}."


@contextmanager
def foreign(message: Callable[[BaseException], str]) -> Iterator[None]:
    """Turn whatever the libraries raise on the files of others into one error."""
    try:
        yield
    except (LsiError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # damaged files raise anything, and tokenizers panics below Exception
        raise InputError(message(error)) from error


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, as a sentence."""
    line = str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return line.rstrip(".:;, ") + "."


@contextmanager
def bounded(source: str) -> Iterator[None]:
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


def refuse_broken_torchvision() -> None:
    """Refuse a torchvision that cannot be imported: transformers and timm import it wherever it is found."""
    if find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        raise InputError(
            f"the torchvision that is installed here does not work with torch {torch.__version__}: "
            f"{reason_of(error)} lsi does without it: python -m pip uninstall torchvision, or install the "
            "version that belongs to your torch."
        ) from error
