"""Networks of timm: from a folder that timm wrote, or from an architecture's name and a file of weights."""

from __future__ import annotations

import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from lsi.errors import InputError, nearest
from lsi.features.encoders.guards import bounded, foreign, missing, reason_of, refuse_broken_torchvision
from lsi.features.encoders.network import Network, digest_of
from lsi.features.encoders.pictures import Pictures
from lsi.features.encoders.weights import put, read_weights

_INSTALL = (
    "python -m pip install --no-deps timm (its training data alone need the torchvision that it asks for)"
)
_LOADS = ("pretrained", "checkpoint", "cache_dir", "features_only")
"""Beginnings of arguments by which a network would be fetched or changed: never taken from a folder."""
_HEADS = ("classifier", "head", "fc", "last_linear", "classif", "heads.head")
"""Names of the layers that turn features into classes, where the architecture's settings do not say."""
_ALIKE = 5
"""Most architectures that a message names, of more than a thousand."""


def load_timm(folder: Path, settings: dict[str, Any], name: str) -> Network:
    """Load a network from a folder that timm's ``save_for_hf`` wrote, such as a snapshot of the hub."""
    stated = {**settings, **_mapping(settings.get("pretrained_cfg"))}
    arguments = {
        str(key): value
        for key, value in _mapping(settings.get("model_args")).items()
        if not str(key).startswith((*_LOADS, "num_classes"))
    }
    path = folder / "model.safetensors"
    if not path.is_file():
        raise InputError(
            f"{folder} has no model.safetensors. Save the network again: timm.models.save_for_hf(model, "
            "folder)."
        )
    return _load(str(settings["architecture"]), path, name, stated, arguments)


def load_weights(architecture: str, path: Path) -> Network:
    """Load an architecture's weights from a file."""
    return _load(architecture, path, f"{architecture}:{path.name}", {}, {})


def _load(
    architecture: str, path: Path, name: str, stated: dict[str, Any], arguments: dict[str, Any]
) -> Network:
    timm = _timm(name)
    _check_known(timm, architecture)
    with foreign(lambda error: _not_built(name, error)), bounded(name), _silent():
        model = timm.create_model(architecture, pretrained=False, num_classes=0, **arguments)
        settings = {
            **model.pretrained_cfg,
            **{key: value for key, value in stated.items() if value is not None},
        }
        pictures = _pictures(settings)
        heads = settings.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(map(str, heads))
    weights = read_weights(path)
    with foreign(lambda error: _not_built(name, error)):
        put(
            _renamed(weights, model),
            model,
            architecture,
            path,
            tuple(f"{head}." for head in (*heads, *_HEADS)),
        )
    key = {
        "encoder": "timm",
        "architecture": architecture,
        "arguments": digest_of(arguments),
        "processor": digest_of(pictures.to_dict()),
        "version": 1,
    }
    return Network(model.eval().requires_grad_(False), pictures, _Call(model), "pooler", key)


class _Call:
    """Calls a network of timm: as it summarises itself, or for the tokens or maps before that."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, inputs: dict[str, Tensor], pooling: str) -> Any:
        if pooling == "pooler":
            return self._model(**{"x": inputs["pixel_values"]})
        found = self._model.forward_features(inputs["pixel_values"])
        last = getattr(self._model, "num_features", None)
        if found.ndim == 4 and found.shape[1] != last == found.shape[3]:
            found = found.permute(0, 3, 1, 2)  # some networks keep channels last
        return found


def _timm(name: str) -> ModuleType:
    """Return timm, where needed without the torchvision that its training data want."""
    if sys.modules.get("timm") is not None:
        return sys.modules["timm"]
    refuse_broken_torchvision()
    try:
        with _without_torchvision():
            import timm
    except ImportError as error:
        raise InputError(missing(f"the encoder {name}", "timm", _INSTALL)) from error
    return timm


def _check_known(timm: ModuleType, architecture: str) -> None:
    plain = architecture.partition(".")[0]
    if plain not in (known := timm.list_models()):
        alike = difflib.get_close_matches(plain, known, _ALIKE, 0.5)
        hint = f"Alike are {', '.join(map(repr, alike))}. " if alike else ""
        raise InputError(
            f"timm has no architecture {architecture!r}. {hint}All of them: "
            "python -c 'import timm; print(*timm.list_models())'."
        )


def _renamed(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights under timm's names: many architectures know how their authors called them."""
    own = model.state_dict()
    if all(key in weights for key in own if not key.endswith("num_batches_tracked")):
        return weights
    known = vars(sys.modules[type(model).__module__])
    for function in ("checkpoint_filter_fn", "_filter_torchvision_pretrained", "_filter_fn"):
        if function in known:
            try:
                return dict(known[function](dict(weights), model))
            except TypeError:  # older ones take the weights alone
                return dict(known[function](dict(weights)))
    return weights


def _pictures(settings: dict[str, Any]) -> Pictures:
    _, height, width = settings["input_size"]
    mode = settings.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise InputError(f"crop_mode {mode!r} is not known. {nearest(mode, ('center', 'squash'))}")
    return Pictures(
        size=(int(height), int(width)),
        mean=tuple(map(float, settings["mean"])),
        std=tuple(map(float, settings["std"])),
        crop=float(settings.get("crop_pct") or 0.875),
        squash=mode == "squash",
        interpolation=str(settings.get("interpolation") or "bicubic"),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _not_built(name: str, error: BaseException) -> str:
    return f"the encoder {name} could not be built: {reason_of(error)} Save it again, or name another one."


@contextmanager
def _silent() -> Iterator[None]:
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# timm imports torchvision on top of files whose architectures never use it. Where it is not installed, empty
# modules stand in for it while timm is imported, and are gone afterwards.


class _Names(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Absent(metaclass=_Names):
    """Stands in for a class of torchvision: nothing is an instance of it."""


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for torchvision and everything below it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        def found(name: str) -> type[_Absent]:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Absent

        module.__dict__["__getattr__"] = found


@contextmanager
def _without_torchvision() -> Iterator[None]:
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    finder = _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
