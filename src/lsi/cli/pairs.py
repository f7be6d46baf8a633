"""Pairs on the command line: two columns, two arrays, or two views of the same items; no labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import lsi
from lsi.cli.console import speaker
from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    PairOptions,
    ProbeOptions,
)
from lsi.cli.inputs.settings import (
    CHECKED,
    encoder_settings,
    shared_settings,
    source_options,
    subset_text,
    use_machine,
)
from lsi.cli.job import Job
from lsi.cli.progress import progress_bar
from lsi.data import Corruption, Samples, parse_subset
from lsi.data.pairs import PairSource, augmented, holds_pairs, load_pairs, mismatched
from lsi.errors import InputError
from lsi.features import encode
from lsi.pipeline import check_settings
from lsi.tasks import task_of

_COLUMNS = ("image_column", "text_column", "audio_column")
_NAMED = 20
"""Most left-out pairs that the manifest names."""


def wants_pairs(data: DataOptions, pairs: PairOptions) -> bool:
    """Return whether the options ask for pairs: two item columns, two views, or a ``.npz`` of pairs."""
    columns = sum(getattr(data, name) is not None for name in _COLUMNS)
    return bool(
        columns > 1 or pairs.encoder_2 or pairs.text_encoder or pairs.augment or holds_pairs(data.dataset)
    )


def prepare_pairs(
    data: DataOptions,
    encoder: EncoderOptions,
    corruption: CorruptionOptions,
    probe: ProbeOptions,
    pairs: PairOptions,
    method: MethodOptions,
    machine: MachineOptions,
    *,
    quiet: bool = False,
) -> Job:
    """Check the settings, then load, encode and corrupt pairs."""
    if data.pca is not None:
        raise InputError("--pca is for samples with labels, not for pairs. Drop it.")
    settings = _settings(corruption, probe, pairs, method, machine)
    check_settings(*(settings[name] for name in CHECKED))  # before hours of loading and encoding
    use_machine(machine)
    with progress_bar(quiet) as progress:
        source = load_pairs(data.dataset, source_options(data, encoder, progress))
        more = {**encoder_settings(encoder, data, machine), "progress": progress, "say": speaker(quiet)}
        left, right, extra = _encoded(source, pairs, more)
    target: Any = right.features
    truth: Corruption | None = None
    if pairs.mismatch is not None:
        target, truth = mismatched(left, target, pairs.mismatch, settings["seed"])
    wanted, no_classes = subset_text(data, len(left)), np.zeros(len(left))
    settings["subset"] = None if wanted is None else parse_subset(wanted, no_classes, settings["seed"])
    check = task_of(settings["probe"]).problem
    problem = check(left.features, target, subset=settings["subset"], sample_id=left.ids)
    return Job(left, target, settings, problem, truth, extra)


def _settings(
    corruption: CorruptionOptions,
    probe: ProbeOptions,
    pairs: PairOptions,
    method: MethodOptions,
    machine: MachineOptions,
) -> dict[str, Any]:
    """Return the arguments of `lsi.score_pairs` apart from the data."""
    if corruption != CorruptionOptions():
        raise InputError("pairs have no labels to corrupt. Use --mismatch 0.1 to exchange partners instead.")
    if probe.weight_decay != ProbeOptions().weight_decay:
        raise InputError(
            "--weight-decay is for probes with labels. Use --pull for the pull of both heads to their start."
        )
    shared = shared_settings(probe, method)
    heads = lsi.ContrastiveProbe(
        dim=pairs.dim,
        temperature=pairs.temperature,
        weight_decay=pairs.pull,
        norm_floor=pairs.norm_floor,
        batch_size=pairs.pair_batch,
        seed=shared["seed"],
    )
    return {"probe": heads, **shared, "memory": machine.memory, "cluster": machine.ray}


def _encoded(
    source: PairSource, pairs: PairOptions, more: dict[str, Any]
) -> tuple[Samples, Samples, dict[str, Any]]:
    """Return both sides with features, and what the manifest says about them."""
    left, right, named, items = source.left, source.right, more["encoder"], source.left.items
    if left.features is not None and right is not left:
        if right.features is None or named or pairs.encoder_2 or pairs.text_encoder:
            raise InputError(f"{left.name} holds features: there is nothing to encode. Drop --encoder.")
        return left, right, {}
    if items is None or right.items is None:
        raise InputError(f"{left.name} holds features, and two views need images, texts or recordings.")
    if pairs.augment:
        right = replace(right, items=augmented(right.items, pairs.augment), images=None)
    first, second = _encoders(source, pairs, named)
    one, other = (
        encode(side, **{**more, "encoder": name}) for side, name in ((left, first), (right, second))
    )
    extra: dict[str, Any] = {"encoder": one.record, "encoder_right": other.record}
    kept = np.intersect1d(one.kept, other.kept)
    left, right = (side.samples.select(np.searchsorted(side.kept, kept)) for side in (one, other))
    if len(kept) == len(source.left):
        return left, right, extra
    broken = np.setdiff1d(np.arange(len(source.left)), kept)
    described = [items.describe(position) for position in broken[:_NAMED].tolist()]
    extra["left_out"] = {"n": len(broken), "items": described}
    note = f"{len(broken):,} pairs with an item that cannot be read were left out."
    return replace(left, notes=(*source.left.notes, note)), right, extra


def _encoders(source: PairSource, pairs: PairOptions, first: str | None) -> tuple[str | None, str | None]:
    """Return the names of both sides' encoders; None: the default one."""
    left, right = (side.items.kind if side.items else "" for side in (source.left, source.right))
    if pairs.text_encoder and "text" not in (left, right):
        raise InputError("--text-encoder needs a --text-column.")
    if source.left is source.right:
        second = pairs.encoder_2 or (first if pairs.augment else None)
        if not pairs.augment and (second is None or second == first):
            raise InputError("two views of the same items need --encoder-2 (another one), or --augment.")
        return first, second
    second = pairs.encoder_2 or (pairs.text_encoder if right == "text" else None)
    return (pairs.text_encoder if left == "text" else first), second
