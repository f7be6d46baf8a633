"""All changes on purpose in one order: labels that people gave, then label noise, then noise on the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lsi.data.corruption.human import human_labels
from lsi.data.corruption.items import corrupt_data
from lsi.data.corruption.labels import (
    Corruption,
    corrupt_labels,
    corrupt_targets,
    known_truth,
    read_transition,
)
from lsi.data.samples import Samples
from lsi.data.targets import CLASSES, target_of
from lsi.errors import InputError


def corrupt(
    samples: Samples,
    task: str = "classification",
    *,
    label_share: float | None = None,
    label_kind: str = "symmetric",
    transition: Path | None = None,
    data_strength: float | None = None,
    data_classes: Sequence[str] = (),
    human_kind: str | None = None,
    human_path: Path | None = None,
    seed: int = 0,
) -> tuple[Samples, Corruption | None]:
    """Change labels and data on purpose.

    Args:
        samples: The data; where they have clean labels, these count as the truth.
        task: What is learnt. Targets that are no classes can only be changed by `label_share`.
        label_share: Share of labels or targets to change.
        label_kind: ``symmetric`` or ``pairwise``, as for `corrupt_labels`.
        transition: File with a matrix of probabilities from label to label, in place of `label_share`.
        data_strength: Strength of the noise on the data, as for `corrupt_data`; None or 0: no noise.
        data_classes: Classes that get this noise; empty: all.
        human_kind: Labels that people gave, as for `human_labels`; None or ``"false"``: none.
        human_path: Their file, or the folder that holds it; None: the current folder.
        seed: Seed of the changes.

    Returns:
        The samples (changed data, labels as they came), and the truth about them with the labels to train
        on; None where nothing was changed and nothing is known.

    Raises:
        InputError: If a change does not fit the data or the task.
    """
    truth = None if samples.clean_labels is None else known_truth(samples.labels, samples.clean_labels)
    human = None if (human_kind or "").strip().lower() in ("", "false", "none", "0") else human_kind
    if task not in CLASSES:
        refused = {
            "--transition": transition is not None,
            "--human-label-noise": human_kind is not None,
            "--corrupt-kind": label_kind != "symmetric",
            "--corrupt-data": bool(data_strength),
        }
        flags = ", ".join(flag for flag, given in refused.items() if given)
        if flags:
            raise InputError(f"{flags}: for classes, and this is a {task}. Use --corrupt-label alone.")
        if label_share is not None:
            truth = corrupt_targets(target_of(samples), label_share, seed, task)
        return samples, truth

    def current() -> np.ndarray:
        return samples.labels if truth is None else truth.labels

    def after(change: Corruption) -> Corruption:
        return change if truth is None else truth.then(change)

    if human is not None:
        truth = after(human_labels(current(), human, human_path or Path()))
    if transition is not None:
        truth = after(corrupt_labels(current(), 0.0, seed, "transition", read_transition(transition)))
    elif label_share is not None:
        truth = after(corrupt_labels(current(), label_share, seed, label_kind))
    if data_strength:
        samples, change = corrupt_data(samples, current(), data_strength, data_classes, seed)
        truth = after(change)
    return samples, truth
