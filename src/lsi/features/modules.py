"""Features from a torch module and a loader of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lsi.errors import InputError, nearest
from lsi.features.encoders.pooling import POOLINGS, pool
from lsi.system.progress import Progress

LABEL_KEYS = ("labels", "label", "y", "target", "targets")
"""Keys under which the labels of a batch are found, where it is a mapping."""


class Extracted(NamedTuple):
    """Features and labels in the order of the loader.

    Attributes:
        features: ``(N, D)`` float32.
        labels: ``(N,)``, or None where the loader returns none.
    """

    features: np.ndarray
    labels: np.ndarray | None


def extract_features(
    module: nn.Module,
    loader: Iterable[Any],
    *,
    pooling: str = "auto",
    precision: str = "float32",
    progress: Progress | None = None,
) -> Extracted:
    """Return the output of a frozen module for every sample of a loader.

    The module runs on the device of its parameters, in evaluation mode and without gradients; its mode is
    restored afterwards. ``lsi.score(*lsi.extract_features(backbone, loader))`` scores the result.

    Args:
        module: Returns a tensor ``(B, D)``, ``(B, T, D)`` or ``(B, D, H, W)``, or an output of
            transformers.
        loader: Batches that are ``(inputs, labels)``, a mapping (passed to the module by keyword, without
            ``labels``), or inputs alone. It must return the samples in a fixed order.
        pooling: ``auto`` (mean over tokens or positions), ``mean``, ``cls``, ``last``, ``max``,
            ``pooler``.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for mixed precision.
        progress: Called as ``progress("encode", done, total)`` after every batch, with numbers of samples,
            where the loader knows how many there are.

    Returns:
        Features and labels.

    Raises:
        InputError: If the loader is empty or shuffles, or the module's output holds no features.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> batches = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
        >>> X, y = extract_features(torch.nn.Linear(3, 5), batches)
        >>> X.shape, y.tolist()
        ((8, 5), [0, 1, 0, 1, 0, 1, 0, 1])
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling={pooling!r} is not known. {nearest(pooling, POOLINGS)}")
    rows: list[Tensor] = []
    labels: list[np.ndarray] = []
    for output, target, inputs in run_batches(module, loader, precision=precision, progress=progress):
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        rows.append(pool(output, pooling, mask).float().cpu())
        if target is not None:
            labels.append(target)
    return Extracted(torch.cat(rows).numpy(), join_labels(labels))


def run_batches(
    module: nn.Module,
    loader: Iterable[Any],
    *,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Iterator[tuple[Any, np.ndarray | None, Any]]:
    """Run a frozen module over a loader."""
    check_loader(module, loader)
    if precision not in ("float32", "bfloat16", "float16"):
        known = ("float32", "bfloat16", "float16")
        raise InputError(f"precision={precision!r} is not known. {nearest(precision, known)}")
    device, dtype = _device(module), getattr(torch, precision)
    done, total = 0, _total(loader)
    with _frozen(module), torch.inference_mode():
        for batch in loader:
            inputs, target = _split(batch)
            inputs = _to(inputs, device)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                output = _call(module, inputs)
            yield output, target, inputs
            done += _length(inputs)
            if progress is not None and total:
                progress("encode", done, total)
    if not done:
        raise InputError(
            "the loader returns no batches. If it is a generator, it may be used up: make a new one."
        )


def check_loader(module: nn.Module, loader: Iterable[Any]) -> None:
    """Refuse what is no module or no loader, and a loader whose rows could not be traced to samples."""
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{type(module).__name__} is no torch module, so it has no layers to take features from. Score "
            "the features that it learns from: lsi.score(X, y). Behind the steps of a scikit-learn pipeline "
            "these are pipeline[:-1].transform(X)."
        )
    if isinstance(loader, Tensor | np.ndarray):
        raise InputError(
            "the loader is an array, and its rows would be taken for batches. Use "
            "torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, y), batch_size=256)."
        )
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, torch.utils.data.RandomSampler):
        raise InputError(
            "the loader shuffles, so scores could not be traced to samples. Use DataLoader(..., "
            "shuffle=False)."
        )
    if getattr(loader, "drop_last", False):
        raise InputError(
            "the loader drops the last samples if they do not fill a batch. Use drop_last=False."
        )


def join_labels(labels: list[np.ndarray]) -> np.ndarray | None:
    """Return the batches' labels as one array; None where there are none."""
    if not labels:
        return None
    joined = np.concatenate([np.atleast_1d(part) for part in labels])
    if joined.ndim != 1:
        raise InputError(
            f"labels must be one class for each sample, got shape {tuple(joined.shape)}. For one-hot labels "
            "use labels.argmax(1)."
        )
    return joined


def _split(batch: Any) -> tuple[Any, np.ndarray | None]:
    """Return inputs and labels of one batch."""
    if isinstance(batch, Mapping):
        key = next((name for name in LABEL_KEYS if name in batch), None)
        rest = {name: value for name, value in batch.items() if name != key}
        return rest, None if key is None else _labels(batch[key])
    if isinstance(batch, (tuple, list)):
        if len(batch) == 1:
            return batch[0], None
        inputs = batch[0] if len(batch) == 2 else tuple(batch[:-1])
        return inputs, _labels(batch[-1])
    return batch, None


def _labels(values: Any) -> np.ndarray:
    """Return the labels of a batch: numbers, or texts."""
    if isinstance(values, list | tuple) and any(isinstance(value, str) for value in values):
        return np.asarray(values, dtype=object)
    try:
        return np.asarray(torch.as_tensor(values).detach().cpu())
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"a batch has labels that are neither numbers nor texts ({error}).") from error


def _call(module: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return module(**inputs)
    if not isinstance(inputs, tuple):
        return module(inputs)
    try:
        return module(*inputs)
    except TypeError as error:
        raise InputError(
            f"the module does not take the {len(inputs)} inputs of a batch ({error}). The last part of a "
            "batch is taken for the labels, and all before it for inputs. Give batches (inputs, labels): "
            "[(x, y) for x, y, *_ in loader]."
        ) from error


def _to(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    if isinstance(inputs, Mapping):
        return {name: _to(value, device) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(_to(value, device) for value in inputs)
    return inputs


def _length(inputs: Any) -> int:
    parts: list[Any] = [inputs]
    if isinstance(inputs, Mapping):
        parts = list(inputs.values())
    elif isinstance(inputs, tuple):
        parts = list(inputs)
    return next(int(part.shape[0]) for part in parts if isinstance(part, Tensor))


def _total(loader: Iterable[Any]) -> int:
    dataset: Any = getattr(loader, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else 0


def _device(module: nn.Module) -> torch.device:
    tensor = next(iter(module.parameters()), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into evaluation mode, and back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
