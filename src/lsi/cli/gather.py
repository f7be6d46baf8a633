"""From the options to features and labels: load, corrupt, choose, encode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.choose import chosen, standardised, with_labels
from lsi.cli.options import CorruptionOptions, DataOptions, EncoderOptions
from lsi.errors import InputError
from lsi.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from lsi.data import Corruption, Samples

_NAMED = 20


@dataclass(frozen=True, eq=False)
class Gathered:
    """Data that can be scored.

    Attributes:
        samples: With features; labels as they came.
        labels: ``(N,)`` labels to train on.
        corruption: What was changed on purpose, or is known to be wrong; or None.
        extra: What the manifest should know: encoder, items left out.
        notes: What to tell the user.
    """

    samples: Samples
    labels: np.ndarray
    corruption: Corruption | None
    extra: dict[str, Any]
    notes: tuple[str, ...] = ()


def gather(
    data: DataOptions,
    corruption: CorruptionOptions,
    encoder: EncoderOptions,
    *,
    seed: int,
    device: str | None,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Gathered:
    """Load the data, change them as asked, choose, and encode what is raw.

    Args:
        data: What is scored.
        corruption: What is changed on purpose.
        encoder: How raw items become features.
        seed: Seed of the changes.
        device: Torch device of the encoder.
        progress: Called as ``progress(stage, done, total)``.
        say: Called with sentences for the user before long work.

    Returns:
        The data with features.

    Raises:
        InputError: If anything cannot be used as it is.
    """
    from lsi.data import load_samples

    samples = load_samples(data.dataset, source_options(data, encoder, progress))
    loaded = len(samples)
    samples = with_labels(samples, data.skip_broken)
    if data.standardise:
        samples = standardised(samples)
    samples, truth = corrupted(samples, corruption, data, seed)
    samples, truth = chosen(samples, truth, data)
    if samples.features is not None:
        if encoder.encoder is not None:
            raise InputError(f"{samples.name} holds features: there is nothing to encode. Drop --encoder.")
        labels = samples.labels if truth is None else truth.labels
        gathered = Gathered(samples, labels, truth, {}, samples.notes)
    else:
        gathered = encoded(samples, truth, encoder, data.skip_broken, device, progress, say)
    if len(gathered.samples) < loaded:
        gathered.extra["selected_of"] = loaded
    return gathered


def source_options(data: DataOptions, encoder: EncoderOptions, progress: Progress | None) -> Any:
    """Return what the sources need to know.

    Args:
        data: What is scored.
        encoder: Where the cache is.
        progress: For downloads.

    Returns:
        `lsi.data.SourceOptions`.
    """
    from lsi.data import SourceOptions

    return SourceOptions(
        data_dir=data.data_dir,
        split=data.split,
        label_column=data.label_column,
        clean_label_column=data.clean_label_column,
        id_column=data.id_column,
        image_column=data.image_column,
        text_column=data.text_column,
        audio_column=data.audio_column,
        feature_columns=tuple(data.feature_columns),
        labels=data.labels,
        cache_dir=encoder.cache_dir,
        progress=progress,
    )


def corrupted(
    samples: Samples, options: CorruptionOptions, data: DataOptions, seed: int
) -> tuple[Samples, Corruption | None]:
    """Change labels and data as asked, in the order: people's labels, label noise, data noise.

    Args:
        samples: The data.
        options: What is changed.
        data: Where the file of people's labels may be.
        seed: Seed where none is given.

    Returns:
        The samples, and the truth about them.

    Raises:
        InputError: If a setting cannot be used.
    """
    from lsi.data import corrupt_data, corrupt_labels, human_labels, known_truth, read_transition

    seed = seed if options.corrupt_seed is None else options.corrupt_seed
    if options.corrupt_seed is not None and seed < 0:
        raise InputError(f"--corrupt-seed must not be negative, got {seed}.")
    truth: Corruption | None = None
    if samples.clean_labels is not None:
        truth = known_truth(samples.labels, samples.clean_labels)

    def add(change: Corruption) -> Corruption:
        return change if truth is None else truth.then(change)

    def current() -> np.ndarray:
        return samples.labels if truth is None else truth.labels

    wanted = (options.human_label_noise or "false").strip().lower()
    if wanted not in ("false", "none", "0"):
        where = options.human_labels or data.data_dir or Path()
        truth = add(human_labels(current(), wanted, where))
    if options.transition is not None:
        matrix = read_transition(options.transition)
        truth = add(corrupt_labels(current(), 0.0, seed, "transition", matrix))
    elif options.corrupt_label is not None:
        truth = add(corrupt_labels(current(), options.corrupt_label, seed, options.corrupt_kind))
    if options.corrupt_data:
        samples, change = corrupt_data(
            samples, current(), options.corrupt_data, options.corrupt_data_label, seed
        )
        truth = add(change)
    return samples, truth


def encoded(
    samples: Samples,
    truth: Corruption | None,
    options: EncoderOptions,
    skip_broken: bool,
    device: str | None,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Gathered:
    """Turn raw items into features, and leave out those that cannot be read.

    Args:
        samples: Samples with raw items.
        truth: What was changed.
        options: The encoder.
        skip_broken: Whether broken items are left out instead of refused.
        device: Torch device.
        progress: Called as ``progress(stage, done, total)``.
        say: Called with sentences for the user.

    Returns:
        The data with features.

    Raises:
        InputError: If the encoder cannot be had or an item cannot be read.
    """
    import numpy as np

    from lsi.features import FeatureCache, build_encoder, encode
    from lsi.problem import check_problem

    items = samples.items
    if items is None:
        raise InputError(f"{samples.name} holds neither features nor items.")
    labels = samples.labels if truth is None else truth.labels
    # What is wrong with labels or ids should be said before hours of encoding, not after.
    check_problem(np.zeros((len(samples), 1), dtype=np.float32), labels, sample_id=samples.ids)
    encoder = build_encoder(
        items.kind,
        options.encoder,
        pooling=options.pooling,
        precision=options.precision,
        device=device,
        batch_size=options.batch_size,
    )
    say(f"encoding {len(items):,} {items.kind} items with {encoder.name}")
    made = encode(
        items,
        encoder,
        FeatureCache(options.cache_dir),
        skip_broken=skip_broken,
        name=samples.name,
        progress=progress,
        on_wait=lambda: say("another process is encoding the same; waiting for it"),
    )
    extra: dict[str, Any] = {"encoder": made.record}
    notes = samples.notes
    features = made.features
    if made.broken:
        kept = np.setdiff1d(np.arange(len(samples)), list(made.broken))
        named = [f"{items.describe(position)}: {reason}" for position, reason in made.broken.items()]
        extra["left_out"] = {"n": len(named), "items": named[:_NAMED]}
        notes += (f"{len(named):,} items that cannot be read were left out, the first: {named[0]}.",)
        features, samples = features[kept], samples.select(kept)
        truth = None if truth is None else truth.select(kept)
    samples = replace(samples, features=features)
    labels = samples.labels if truth is None else truth.labels
    return Gathered(samples, labels, truth, extra, notes)
