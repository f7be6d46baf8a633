"""A job: what the options ask for, loaded, encoded and ready to be scored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from lsi.cli.console import speaker
from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.cli.inputs.settings import (
    CHECKED,
    build_probe,
    corruption_settings,
    encoder_settings,
    score_settings,
    source_options,
    subset_text,
    use_machine,
)
from lsi.cli.progress import progress_bar
from lsi.data import Corruption, Samples, corrupt, load_samples, parse_subset
from lsi.data.samples import row_texts, standardised
from lsi.data.subsets import chosen_positions, drop_unlabelled
from lsi.data.targets import CLASSES, choose_task, named, target_of, with_targets
from lsi.errors import InputError
from lsi.execution.checkpoint import Checkpoint
from lsi.features import EncodedSamples, encode
from lsi.features.reduction import check_components, reduce_features
from lsi.noisy_labels.consensus import consensus
from lsi.pipeline import check_settings, score_problem
from lsi.scores import Scores
from lsi.system.text import counted
from lsi.tasks import task_of
from lsi.tasks.columns import label_texts
from lsi.tasks.groups import check_groups, check_leaves_groups
from lsi.validation.problem import Problem, check_problem

_NAMED = 20
"""Most left-out items that the manifest names."""


@dataclass(frozen=True, eq=False)
class Job:
    """A run that is ready to be scored.

    Attributes:
        samples: The samples with features; of pairs, the left side.
        target: ``(N,)`` labels to train on, or a table with a column for each where a sample has several; of
            pairs, the features of the right side.
        settings: Keyword arguments of `lsi.score` or `lsi.score_pairs` apart from the data.
        problem: The data after the library's checks.
        truth: What was changed on purpose, or is known to be wrong; or None.
        extra: What only the command can add to the manifest: encoders, and what was left out.
        read: Fingerprint of the dataset as it was read, before anything was changed or left out.
    """

    samples: Samples
    target: Any
    settings: dict[str, Any]
    problem: Problem
    truth: Corruption | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    read: str | None = None


def prepare(
    data: DataOptions,
    encoder: EncoderOptions,
    corruption: CorruptionOptions,
    probe: ProbeOptions,
    method: MethodOptions,
    machine: MachineOptions,
    *,
    quiet: bool = False,
) -> Job:
    """Check the settings, then load, corrupt, choose and encode the samples."""
    settings = score_settings(probe, method, machine)
    if data.pca is not None:
        check_components(data.pca)
    check_settings(*(settings[name] for name in CHECKED))  # before hours of loading and encoding
    use_machine(machine)
    changes = corruption_settings(corruption, data, settings["seed"])
    with progress_bar(quiet) as progress:
        samples = load_samples(data.dataset, source_options(data, encoder, progress))
        loaded, read = len(samples), samples.fingerprint()
        samples = drop_unlabelled(samples, data.skip_broken)
        if data.standardise:
            samples = standardised(samples)
        task = choose_task(probe.task, samples)
        if (decided := build_probe(probe, task)) != settings["probe"]:  # the data decided the task
            settings["probe"] = decided
            check_settings(*(settings[name] for name in CHECKED))
        samples = with_targets(samples, task)
        samples, truth = corrupt(samples, task, **changes)
        if samples.answers is not None:
            _check_annotators(task, truth, data)
        samples, truth = _choose(samples, truth, data)
        _check_labels(samples, truth, task)
        if samples.groups is not None:
            samples = _with_groups(samples, truth, task, data, settings)
        encoded = encode(
            samples, **encoder_settings(encoder, data, machine), progress=progress, say=speaker(quiet)
        )
    samples, truth = encoded.samples, truth and truth.select(encoded.kept)
    extra = _extra(encoded, loaded)
    if samples.answers is not None:
        samples, extra["annotators"] = _with_consensus(samples)
    labels = _labels(samples, truth)
    settings["subset"] = _subset(data, labels if labels.ndim == 1 else samples.labels, task, settings["seed"])
    target = named(labels, samples.target_names)
    features, names = samples.features, samples.feature_names
    if data.pca is not None:
        reduced = reduce_features(features, data.pca)
        features, names, extra["pca"] = reduced.features, None, reduced.describe()
    problem = task_of(settings["probe"]).problem(
        named(features, names),
        target,
        subset=settings["subset"],
        sample_id=samples.ids,
    )
    return Job(samples, target, settings, problem, truth, extra, read)


def _check_annotators(task: str, truth: Corruption | None, data: DataOptions) -> None:
    """Refuse what needs one label a sample before there is a consensus."""
    if task not in CLASSES:
        raise InputError(f"--annotators gives each sample a class, which is no target of {task}. Drop one.")
    if truth is not None or data.active_classes:
        raise InputError(
            "with --annotators the label is not known before features are made. Drop the options that change "
            "labels, compare them or choose by them; `lsi consensus` takes --clean-label-column."
        )


def _with_consensus(samples: Samples) -> tuple[Samples, dict[str, Any]]:
    """Return samples with the consensus of their annotators as labels, and the manifest's entry."""
    found = consensus(samples.answers, features=samples.features)
    record = {"n": len(found.annotators), "expected_right": found.n_right / len(samples)}
    return replace(samples, labels=found.label, notes=(*samples.notes, str(found))), record


def _choose(
    samples: Samples, truth: Corruption | None, data: DataOptions
) -> tuple[Samples, Corruption | None]:
    """Keep the classes and the first samples that were asked for; what was chosen sees changed labels."""
    labels = samples.labels if truth is None or truth.labels.ndim > 1 else truth.labels
    positions = chosen_positions(labels, data.active_classes, data.first)
    if len(positions) == len(samples):
        return samples, truth
    return samples.select(positions), truth and truth.select(positions)


def _labels(samples: Samples, truth: Corruption | None) -> np.ndarray:
    """Return what to train on: `(N,)` or `(N, T)`, with the changes where there are any."""
    return target_of(samples) if truth is None else truth.labels


def _check_labels(samples: Samples, truth: Corruption | None, task: str) -> None:
    """Say what is wrong with labels or ids before hours of encoding, not after."""
    if samples.features is None:
        _featureless(samples, truth, task)


def _featureless(samples: Samples, truth: Corruption | None, task: str) -> Problem:
    """Return the checked labels and ids of samples that need not have features yet."""
    kind = "classification" if task in CLASSES else task
    no_features = np.zeros((len(samples), 1), dtype=np.float32)
    return check_problem(no_features, _labels(samples, truth), sample_id=samples.ids, task=kind)


def _with_groups(
    samples: Samples, truth: Corruption | None, task: str, data: DataOptions, settings: dict[str, Any]
) -> Samples:
    """Return the samples with a note on their groups; refuse, before any work, what cannot be left out."""
    assert samples.groups is not None
    check_leaves_groups(settings["probe"], settings["method"])
    without = int(pd.isna(samples.groups).sum())
    names, counts = np.unique(samples.groups[~pd.isna(samples.groups)].astype(str), return_counts=True)
    if len(names) and counts.max() == 1:
        raise InputError(
            f"--group-column {data.group_column} has another value in each row, so it names samples rather "
            "than groups. Name another column; ids are for --id-column."
        )
    if samples.answers is None:  # else the labels are not known yet, and the run checks before it leaves out
        check_groups(samples.groups, _featureless(samples, truth, task))
    largest = counted(int(counts.max(initial=0)), "sample")
    note = f"{len(names):,} groups in {data.group_column!r}, the largest of {largest}"
    note += f"; {counted(without, 'sample')} without a value belong to none." if without else "."
    return replace(samples, notes=(*samples.notes, note))


def _subset(data: DataOptions, strata: np.ndarray, task: str, seed: int) -> np.ndarray | None:
    """Return the positions to score; None: all. Numbers have no classes to draw from evenly."""
    wanted = subset_text(data, len(strata))
    strata = np.zeros(len(strata)) if task == "regression" else strata
    return None if wanted is None else parse_subset(wanted, strata, seed)


def _extra(encoded: EncodedSamples, loaded: int) -> dict[str, Any]:
    """Return what the manifest says about encoder and choice."""
    extra: dict[str, Any] = {"encoder": encoded.record} if encoded.record else {}
    if encoded.samples.preparation is not None:
        extra["preparation"] = encoded.samples.preparation.describe()
    if encoded.left_out:
        extra["left_out"] = {"n": len(encoded.left_out), "items": list(encoded.left_out[:_NAMED])}
    if len(encoded.samples) < loaded:
        extra["selected_of"] = loaded
    return extra


def run(job: Job, *, quiet: bool, checkpoint: Checkpoint | None = None, shard: str | None = None) -> Scores:
    """Score a job, and add what only the command knows."""
    samples, truth = job.samples, job.truth
    with progress_bar(quiet) as progress:
        settings = {name: value for name, value in job.settings.items() if name != "subset"}
        settings |= {} if samples.groups is None else {"groups": samples.groups}
        scores = score_problem(job.problem, **settings, checkpoint=checkpoint, shard=shard, progress=progress)
    table, manifest = scores.to_frame(), dict(scores.manifest)
    manifest |= notes_of(job) | ({} if checkpoint is None else {"run": checkpoint.run})
    encoders = [job.extra[name] for name in ("encoder", "encoder_right") if name in job.extra]
    if encoders:
        encoding = sum(record["seconds"] for record in encoders)
        manifest["timings"] = {"encode": encoding, **manifest["timings"]}
    if truth is not None:
        positions = table["position"].to_numpy()
        table["corrupted"] = truth.mask[positions]
        original = truth.original_labels[positions]
        table["original_label"] = _as_column(original, manifest["task"], samples.target_names)
    return Scores(table, manifest, scores.audit)


def notes_of(job: Job) -> dict[str, Any]:
    """Return what only the command can tell a manifest: source, encoder, names of classes, changes."""
    samples, truth = job.samples, job.truth
    read = {} if job.read is None else {"fingerprint": job.read}
    notes = {"source": {**samples.source, "description": samples.description, **read}, **job.extra}
    if samples.class_names:
        notes["class_names"] = {str(label): name for label, name in samples.class_names.items()}
    return notes if truth is None else {**notes, "corruption": truth.describe()}


def _as_column(target: np.ndarray, task: str, names: tuple[str, ...]) -> np.ndarray:
    """Return `(N,)` or `(N, T)` targets as one column of a table."""
    if target.ndim == 1:
        return target
    return label_texts(target, names) if task == "multilabel" else row_texts(target)
