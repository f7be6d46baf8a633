"""Frozen networks for images, texts and recordings: inputs in batches, and features out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.data.decode import Audio
from lsi.errors import InputError
from lsi.execution.halving import halving
from lsi.features.encoders.base import Batches, Encoder
from lsi.features.encoders.guards import foreign, reason_of
from lsi.features.encoders.network import Network, weights_digest
from lsi.features.encoders.pooling import pool

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BATCH = {"image": 32, "text": 32, "audio": 8}
"""Items in each forward pass where nothing else is asked for."""
_LONGEST_SECONDS = 30


class PretrainedEncoder(Encoder):
    """A network with its own preprocessing, whatever file it came from.

    Args:
        kind: ``image``, ``text`` or ``audio``.
        name: What the user called it.
        network: What `open_network` returned.
        pooling: One of `POOLINGS`. ``auto``: the class token of an image network that has one, a network's
            own summary (timm), else the mean over tokens or positions.
        precision: ``auto``: float16 on a GPU, float32 elsewhere.
        device: Torch device; None: a GPU where there is one.
        batch_size: Samples in each forward pass; None: 32, and 8 for recordings.

    Raises:
        InputError: If the network computes in its own precision, and another one is asked for.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        network: Network,
        pooling: str = "auto",
        precision: str = "auto",
        device: str | torch.device | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.network = network
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if network.precise:
            if precision not in ("auto", "float32"):
                raise InputError(f"{name} computes in its own precision. Drop --precision {precision}.")
            self.device, precision = torch.device("cpu"), "float32"
        self.origin, self.certain = network.origin, network.certain
        self.batch_size = network.batch or batch_size or BATCH[kind]
        # Texts of similar length share a batch: in a larger chunk there is less padding.
        self.chunk = self.batch_size * (16 if kind == "text" else 1)
        network.module.to(self.device)
        self.processor, self.max_length = network.processor, network.longest
        self.pooling = network.pooling if pooling == "auto" else pooling
        fast = "float16" if self.device.type == "cuda" else "float32"
        self.precision = fast if precision == "auto" else precision

    def _unusable(self, error: BaseException) -> str:
        return (
            f"the encoder {self.name} cannot be used: {reason_of(error)} Its settings do not fit each other "
            "or these items. Save it again, or name another one."
        )

    def key(self) -> dict[str, Any]:
        """Return everything that determines the features; the weights by their content."""
        return {
            **self.network.key,
            "kind": self.kind,
            "weights": weights_digest(self.network.module),
            "pooling": self.pooling,
            "precision": self.precision,
            "max_length": self.max_length,
        }

    def prepare(self, items: Sequence[Any]) -> Batches:
        """Turn decoded pictures, texts or `Audio` into inputs, in batches of at most `batch_size` items."""
        with foreign(self._unusable):
            if self.kind == "image":
                groups = _groups(range(len(items)), self.batch_size)
                return [self._prepare_images(items, group) for group in groups]
            return self._prepare_texts(items) if self.kind == "text" else self._prepare_audio(items)

    def _prepare_images(self, pictures: Sequence[Any], group: list[int]) -> tuple[list[int], dict[str, Any]]:
        chosen = [pictures[k].convert("RGB") for k in group]
        return group, dict(self.processor(images=chosen, return_tensors="pt"))

    def _prepare_texts(self, texts: Sequence[str]) -> Batches:
        found = self.processor(list(texts), truncation=True, max_length=self.max_length)
        lengths = [len(tokens) for tokens in found["input_ids"]]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        batches: Batches = []
        for group in _groups(order, self.batch_size):
            rows = {name: [found[name][k] for k in group] for name in found}
            batches.append((group, dict(self.processor.pad(rows, return_tensors="pt"))))
        return batches

    def _prepare_audio(self, recordings: Sequence[Audio]) -> Batches:
        rate = int(self.processor.sampling_rate)
        waves = [_resample(item, rate)[: rate * _LONGEST_SECONDS] for item in recordings]
        # Only recordings of equal length share a batch: many audio networks take padding for silence.
        by_length: dict[int, list[int]] = {}
        for k, wave in enumerate(waves):
            by_length.setdefault(len(wave), []).append(k)
        batches: Batches = []
        for same in by_length.values():
            for group in _groups(same, self.batch_size):
                chosen = [waves[k] for k in group]
                inputs = self.processor(chosen, sampling_rate=rate, return_tensors="pt")
                batches.append((group, dict(inputs)))
        return batches

    def forward(self, inputs: Any) -> Tensor:
        """Return the features of one batch, `(b, D)` float32 on the processor; in parts if memory is low."""
        count = len(next(iter(inputs.values())))

        def encode(part: np.ndarray) -> Tensor:
            whole = len(part) == count
            return self._encode(inputs if whole else {name: value[part] for name, value in inputs.items()})

        with foreign(self._unusable):
            return torch.cat(list(halving(np.arange(count), max(1, count), encode)))

    def _encode(self, inputs: dict[str, Tensor]) -> Tensor:
        inputs = {name: value.to(self.device, non_blocking=True) for name, value in inputs.items()}
        dtype = getattr(torch, self.precision)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32),
        ):
            output = self.network.call(inputs, self.pooling)
            mask = inputs.get("attention_mask") if self.kind == "text" else None
            return pool(output, self.pooling, mask).float().cpu()


def _groups(order: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield list(order[start : start + size])


def _resample(recording: Audio, rate: int) -> np.ndarray:
    from scipy.signal import resample_poly

    if recording.rate == rate:
        return recording.waveform
    common = math.gcd(recording.rate, rate)
    return np.asarray(
        resample_poly(recording.waveform, rate // common, recording.rate // common), dtype=np.float32
    )
