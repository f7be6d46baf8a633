"""Frozen networks for images, texts and recordings, loaded through transformers without torchvision."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsi.data.decode import Audio
from lsi.errors import InputError, nearest
from lsi.execution.halving import halving
from lsi.features.encoders.base import Batches, Encoder
from lsi.features.encoders.loading import foreign, load_pretrained
from lsi.features.encoders.pooling import POOLINGS, pool
from lsi.system.door import read_json

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_BATCH = {"image": 32, "text": 32, "audio": 8}
_LONGEST_TEXT = 512
_LONGEST_SECONDS = 30


class PretrainedEncoder(Encoder):
    """A network of transformers with its own preprocessing.

    Args:
        kind: ``image``, ``text`` or ``audio``.
        source: A name on the Hugging Face hub, or a folder that `save_pretrained` wrote.
        pooling: One of `POOLINGS`. ``auto``: the class token of an image network that has one, else the
            mean over tokens or positions.
        precision: ``auto``: float16 on a GPU, float32 elsewhere.
        device: Torch device; None: a GPU where there is one.
        batch_size: Samples in each forward pass; None: 32, and 8 for recordings.

    Raises:
        InputError: If the network cannot be loaded, a package is missing, or a setting is not known.
    """

    def __init__(
        self,
        kind: str,
        source: str,
        pooling: str = "auto",
        precision: str = "auto",
        device: str | torch.device | None = None,
        batch_size: int | None = None,
    ) -> None:
        for flag, value, known in (
            ("--pooling", pooling, POOLINGS),
            ("--precision", precision, PRECISIONS),
        ):
            if value not in known:
                raise InputError(f"{flag} {value!r} is not known. {nearest(value, known)}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"--batch-size must be at least 1, got {batch_size}.")
        self.name = source
        self.kind = kind
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size = batch_size or _BATCH[kind]
        # Texts of similar length share a batch: in a larger chunk there is less padding.
        self.chunk = self.batch_size * (16 if kind == "text" else 1)
        self.model, self.processor = load_pretrained(kind, source)
        self.model = self.model.to(self.device)
        self.pooling = self._resolve(pooling)
        fast = "float16" if self.device.type == "cuda" else "float32"
        self.precision = fast if precision == "auto" else precision
        self.max_length = None
        if kind == "text":
            with foreign(self._unusable):
                self.max_length = self._longest(source)
                if self.processor.pad_token is None:
                    self.processor.pad_token = self.processor.eos_token

    def _unusable(self, error: BaseException) -> str:
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        return (
            f"the encoder {self.name} cannot be used: {reason.rstrip('.')}. Its settings do not fit each "
            "other or these items. Save it again, or name another one."
        )

    def _resolve(self, pooling: str) -> str:
        if pooling != "auto":
            return pooling
        names = [name.rpartition(".")[2] for name, _ in self.model.named_parameters()]
        has_token = {"cls_token", "class_embedding"} & set(names)
        return "cls" if self.kind == "image" and has_token else "mean"

    def _longest(self, source: str) -> int:
        """Return the most tokens of a text: what the network was made for, at most 512."""
        config = getattr(self.model.config, "text_config", self.model.config)
        limits = [_LONGEST_TEXT, self.processor.model_max_length]
        limits.append(getattr(config, "max_position_embeddings", None) or _LONGEST_TEXT)
        stated = Path(source) / "sentence_bert_config.json"
        if stated.is_file():
            limits.append(read_json(stated, "config")["max_seq_length"] or _LONGEST_TEXT)
        return max(1, int(min(limits)))

    def key(self) -> dict[str, Any]:
        """Return everything that determines the features; the weights by their content."""
        return {
            "encoder": "transformers",
            "kind": self.kind,
            "weights": weights_digest(self.model),
            "config": _digest(self.model.config.to_diff_dict()),
            "processor": _digest(_settings(self.processor)),
            "pooling": self.pooling,
            "precision": self.precision,
            "max_length": self.max_length,
            "version": 1,
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
            method = getattr(self.model, f"get_{self.kind}_features", None)
            output = self.model(**inputs) if method is None else method(**inputs)
            if method is not None and getattr(output, "pooler_output", None) is not None:
                output = output.pooler_output
            mask = inputs.get("attention_mask") if self.kind == "text" else None
            return pool(output, self.pooling, mask).float().cpu()


def weights_digest(module: torch.nn.Module) -> str:
    """Return a digest of a module's parameters and buffers, by name, type and content."""
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


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


def _settings(processor: Any) -> dict[str, Any]:
    """Return the settings of a processor, without the path that it came from."""
    if hasattr(processor, "backend_tokenizer"):
        return {"tokenizer": json.loads(processor.backend_tokenizer.to_str())}
    settings = processor.to_dict() if hasattr(processor, "to_dict") else dict(processor.init_kwargs)
    return {name: value for name, value in settings.items() if "path" not in name}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
