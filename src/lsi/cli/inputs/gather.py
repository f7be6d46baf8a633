"""From the options to features and labels: load, corrupt, choose, encode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.cli.inputs.choose import chosen, standardised, with_labels
from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    ProbeOptions,
)
from lsi.cli.inputs.targets import build_probe, corrupt
from lsi.errors import InputError
from lsi.system.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from lsi.data import Corruption, Samples

_NAMED = 20


@dataclass(frozen=True, eq=False)
class Gathered:
    """Data that can be scored.

    Attributes:
        samples: With features; labels as they came.
        labels: ``(N,)`` labels to train on; ``(N, T)`` where a sample has several.
        corruption: What was changed on purpose, or is known to be wrong; or None.
        extra: What the manifest should know: encoder, items left out.
        notes: What to tell the user.
        probe: The probe that goes with the target.
    """

    samples: Samples
    labels: np.ndarray
    corruption: Corruption | None
    extra: dict[str, Any]
    notes: tuple[str, ...] = ()
    probe: Any = None


def gather(
    data: DataOptions,
    corruption: CorruptionOptions,
    encoder: EncoderOptions,
    probe: ProbeOptions,
    *,
    seed: int,
    machine: MachineOptions,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Gathered:
    """Load the data, change them as asked, choose, and encode what is raw."""
    from lsi.data import load_samples
    from lsi.data.targets import choose_task, with_targets

    samples = load_samples(data.dataset, source_options(data, encoder, progress))
    loaded = len(samples)
    samples = with_labels(samples, data.skip_broken)
    if data.standardise:
        samples = standardised(samples)
    task = choose_task(probe.task, samples)
    trained, samples = build_probe(probe, task), with_targets(samples, task)
    samples, truth = corrupted(samples, corruption, data, seed, task)
    samples, truth = chosen(samples, truth, data)
    if samples.features is not None:
        if encoder.encoder is not None:
            raise InputError(f"{samples.name} holds features: there is nothing to encode. Drop --encoder.")
        gathered = Gathered(samples, labels_of(samples, truth), truth, {}, samples.notes)
    else:
        gathered = encoded(samples, truth, encoder, data.skip_broken, task, machine, progress, say)
    gathered = replace(gathered, probe=trained)
    if len(gathered.samples) < loaded:
        gathered.extra["selected_of"] = loaded
    return gathered


def source_options(data: DataOptions, encoder: EncoderOptions, progress: Progress | None) -> Any:
    """Return what the sources need to know."""
    from lsi.data import SourceOptions

    return SourceOptions(
        data_dir=data.data_dir,
        split=data.split,
        label_column=data.label_column,
        label_columns=tuple(data.label_columns),
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
    samples: Samples, options: CorruptionOptions, data: DataOptions, seed: int, task: str
) -> tuple[Samples, Corruption | None]:
    """Change labels and data as asked, in the order: people's labels, label noise, data noise."""
    from lsi.data import corrupt_data, corrupt_labels, human_labels, known_truth, read_transition
    from lsi.data.targets import CLASSES

    seed = seed if options.corrupt_seed is None else options.corrupt_seed
    if options.corrupt_seed is not None and seed < 0:
        raise InputError(f"--corrupt-seed must not be negative, got {seed}.")
    truth: Corruption | None = None
    if samples.clean_labels is not None:
        truth = known_truth(samples.labels, samples.clean_labels)
    if task not in CLASSES:
        change = corrupt(samples, options, task, seed)
        return samples, truth if change is None else change

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


def labels_of(samples: Samples, truth: Corruption | None) -> np.ndarray:
    """Return what to train on: the changed labels where there are any."""
    from lsi.data.targets import target_of

    labels: np.ndarray = target_of(samples) if truth is None else truth.labels
    return labels


def encoded(
    samples: Samples,
    truth: Corruption | None,
    options: EncoderOptions,
    skip_broken: bool,
    task: str,
    machine: MachineOptions,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Gathered:
    """Turn raw items into features, and leave out those that cannot be read."""
    import numpy as np

    from lsi.data.targets import CLASSES
    from lsi.features import FeatureCache, build_encoder, encode
    from lsi.validation.problem import check_problem

    items = samples.items
    if items is None:
        raise InputError(f"{samples.name} holds neither features nor items.")
    # What is wrong with labels or ids should be said before hours of encoding, not after.
    kind = "classification" if task in CLASSES else task
    nothing = np.zeros((len(samples), 1), dtype=np.float32)
    check_problem(nothing, labels_of(samples, truth), sample_id=samples.ids, task=kind)
    encoder = build_encoder(
        items.kind,
        options.encoder,
        pooling=options.pooling,
        precision=options.precision,
        device=machine.device,
        batch_size=options.batch_size,
    )
    say(f"encoding {len(items):,} {items.kind} items with {encoder.name}")
    made = encode(
        items,
        encoder,
        FeatureCache(options.cache_dir),
        skip_broken=skip_broken,
        name=samples.name,
        cluster=machine.ray,
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
    return Gathered(samples, labels_of(samples, truth), truth, extra, notes)
