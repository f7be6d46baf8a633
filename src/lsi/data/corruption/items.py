"""Noise on the data themselves: on images or features of some classes, or as added texts without meaning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lsi.data.corruption.labels import Corruption
from lsi.data.decode import BrokenItem, ItemImages, decode
from lsi.data.items import ArrayItems, Items, JoinedItems, Payload
from lsi.data.samples import Samples
from lsi.data.subsets import match_classes
from lsi.errors import InputError

_MEASURED = 1000
_LOREM = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et "
    "dolore magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea "
    "commodo consequat duis aute irure in reprehenderit voluptate velit esse cillum fugiat nulla pariatur "
    "excepteur sint occaecat cupidatat non proident sunt culpa qui officia deserunt mollit anim id est "
    "laborum"
).split()

MOST_ADDED = 100  # texts for each given one: beyond, nothing of the data is left, and memory fills


def corrupt_data(
    samples: Samples, labels: np.ndarray, strength: float, classes: Sequence[Any], seed: int = 0
) -> tuple[Samples, Corruption]:
    r"""Change the data on purpose.

    Images and features of the given classes become :math:`x + s\,\sigma\,\varepsilon` with strength s, ε
    standard normal, and σ the standard deviation: of the pixels of up to 1,000 images, or of each column of
    features. Pixels are then rounded and cut to 0–255. Texts stay as they are, and ``round(s · N)`` lorem
    ipsum texts with random labels are added after them.

    Args:
        samples: The data.
        labels: ``(N,)`` labels to train on.
        strength: s > 0.
        classes: Classes to change; for texts, classes from which the added ones get their labels. Empty:
            all classes.
        seed: Seed for the noise, not negative.

    Returns:
        The samples after the change, and the truth about them.

    Raises:
        InputError: If the strength is not positive, or above 100 for texts, a class is unknown, or the data
            are recordings.
    """
    if not (math.isfinite(strength) and strength > 0):
        raise InputError(f"--corrupt-data must be a positive number, got {strength}.")
    if seed < 0:
        raise InputError(f"the corruption seed must not be negative, got {seed}.")
    chosen = match_classes(labels, classes, "--corrupt-data-label")
    if samples.items is not None and samples.items.kind == "text":
        return _add_texts(samples, labels, strength, chosen, seed)
    mask = np.isin(labels, chosen)
    details = {"strength": strength, "classes": [str(label) for label in chosen]}
    truth = Corruption(labels, mask, labels, float(mask.mean()), seed, "data noise", details)
    if samples.items is None:
        if samples.features is None:
            raise InputError("the samples hold neither features nor items that could be corrupted.")
        return replace(samples, features=_noisy_rows(samples.features, mask, strength, seed)), truth
    if samples.items.kind != "image":
        raise InputError("--corrupt-data works on images, texts and features, not on recordings.")
    items = NoisyImages(samples.items, mask, strength, seed)
    return replace(samples, items=items, images=ItemImages(items)), truth


class NoisyImages(Items):
    """Images of which those in `mask` carry Gaussian noise, which depends on seed and position only.

    `strength` is the standard deviation of the noise, in standard deviations of the pixels.
    """

    def __init__(self, base: Items, mask: np.ndarray, strength: float, seed: int) -> None:
        self.kind = base.kind
        self._base = base
        self._mask = mask
        self._strength = strength
        self._seed = seed
        self._spread: float | None = None

    def __len__(self) -> int:
        return len(self._base)

    def iterate(self, positions: np.ndarray) -> Iterator[Payload]:
        """Yield the payloads at ascending `positions`; those with noise as pixels."""
        if self._spread is None:
            self._spread = _pixel_spread(self._base)
        for position, payload in zip(positions, self._base.iterate(positions), strict=True):
            yield self._noisy(int(position), payload) if self._mask[position] else payload

    def _noisy(self, position: int, payload: Payload) -> Payload:
        try:
            pixels = np.asarray(decode("image", payload), dtype=np.float64)
        except BrokenItem:
            return payload  # the encoder decodes it again, and names it
        noise = np.random.default_rng((self._seed, position)).standard_normal(pixels.shape)
        noisy = pixels + self._strength * (self._spread or 0.0) * noise
        return np.clip(np.round(noisy), 0, 255).astype(np.uint8)

    def describe(self, position: int) -> str:
        """Return what the base calls the item."""
        return self._base.describe(position)

    def fingerprint(self) -> str:
        """Return a digest of the base and of the noise, without drawing it."""
        digest = hashlib.blake2b(self._base.fingerprint().encode(), digest_size=20)
        digest.update(np.packbits(self._mask).tobytes())
        digest.update(f"noise 1 {self._strength!r} {self._seed}".encode())
        return digest.hexdigest()


def _pixel_spread(items: Items) -> float:
    positions = np.unique(np.linspace(0, len(items) - 1, min(len(items), _MEASURED)).astype(np.int64))
    count, total, squares = 0, 0.0, 0.0
    for payload in items.iterate(positions):
        try:
            pixels = np.asarray(decode("image", payload), dtype=np.float64)
        except BrokenItem:
            continue
        count += pixels.size
        total += float(pixels.sum())
        squares += float((pixels**2).sum())
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0)) if count else 0.0


def _noisy_rows(features: np.ndarray, mask: np.ndarray, strength: float, seed: int) -> np.ndarray:
    values = np.array(features, dtype=np.result_type(features.dtype, np.float32))
    noise = np.random.default_rng(seed).standard_normal((int(mask.sum()), values.shape[1]))
    values[mask] += strength * values.std(axis=0) * noise
    return values


def _add_texts(
    samples: Samples, labels: np.ndarray, strength: float, classes: np.ndarray, seed: int
) -> tuple[Samples, Corruption]:
    if strength > MOST_ADDED:
        raise InputError(
            f"--corrupt-data {strength:g} would add that many made-up texts for each of yours. Use at most "
            f"{MOST_ADDED}."
        )
    n, count = len(samples), round(strength * len(samples))
    generator = np.random.default_rng(seed)
    texts = [_lorem(generator) for _ in range(count)]
    drawn = classes[generator.integers(0, len(classes), count)]
    all_labels = np.concatenate([labels, drawn])
    assert samples.items is not None  # texts are items
    added = replace(
        samples,
        ids=np.array([*map(str, samples.ids), *(f"lorem-{k}" for k in range(count))]),
        labels=np.concatenate([samples.labels, drawn]),
        items=JoinedItems(samples.items, ArrayItems("text", texts, "lorem text")),
        clean_labels=None,
        groups=None if samples.groups is None else np.append(samples.groups, [None] * count),
    )
    mask = np.arange(n + count) >= n
    truth = Corruption(
        all_labels, mask, all_labels, float(mask.mean()), seed, "text noise", {"strength": strength}
    )
    return added, truth


def _lorem(generator: np.random.Generator) -> str:
    sentences = []
    for _ in range(int(generator.integers(3, 13))):
        words = generator.choice(_LOREM, int(generator.integers(5, 18)))
        sentences.append(" ".join(words).capitalize() + ".")
    return " ".join(sentences)
