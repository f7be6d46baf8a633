"""Suspected labels of a dataset that was never scored, for ``lsi mislabeled``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.errors import InputError
from lsi.results.marks import SUSPECTS, Mark

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from lsi.analysis.label_noise import LabelNoise


@dataclass(frozen=True)
class Found:
    """A list of labels, and what it is of.

    Attributes:
        frame: One row a label, the most doubtful first.
        summary: What is known about it, as JSON values.
        manifest: That of the scores; of a dataset, what a list has to say about it.
        mark: What a file of the list says about itself.
        dataset: The dataset that was not scored; None for scores.
    """

    frame: pd.DataFrame
    summary: dict[str, Any]
    manifest: Mapping[str, Any]
    mark: Mark
    dataset: str | None = None


def of_dataset(
    place: str,
    data: DataOptions,
    encoder: EncoderOptions,
    corruption: CorruptionOptions,
    machine: MachineOptions,
    *,
    pred_probs: Path | None,
    fdr: float | None,
    top: int | None,
    quiet: bool,
) -> Found:
    """Return the list of a dataset, without scoring it."""
    from lsi.analysis.label_noise import label_noise
    from lsi.cli.job import notes_of, prepare
    from lsi.noisy_labels.direct import label_errors
    from lsi.run.manifest import describe_data
    from lsi.system.text import parse_size

    job = prepare(
        replace(data, dataset=place),
        encoder,
        corruption,
        ProbeOptions(task="classification"),
        MethodOptions(),
        machine,
        quiet=quiet,
    )
    problem = job.problem
    labels = pd_labels(problem.classes)[problem.target]
    gain: dict[str, Any] = {}
    if pred_probs is not None:
        found = label_noise(read_probabilities(pred_probs), labels, classes=problem.classes)
    else:
        found, made = label_errors(problem, machine.device or "cpu", parse_size(machine.memory))
        gain = {"flip_gain": made.flip_gain}
    frame = listed(found, problem.sample_id, labels, gain, fdr, top)
    manifest = {**notes_of(job), "data": describe_data(problem)}
    summary = {
        "n_listed": len(frame),
        "n_scored": problem.n_samples,
        "estimated": True,
        "task": "classification",
        "n_wrong": found.n_wrong,
        "wrong_in_list": float(frame["wrong_probability"].sum()),
        "interval": list(found.interval),
    }
    if job.truth is not None:
        summary["n_changed"] = int(job.truth.n_corrupted)
    return Found(frame, summary, manifest, Mark.of(manifest, SUSPECTS), place)


def pd_labels(classes: np.ndarray) -> np.ndarray:
    """Return labels as an array of their own kind."""
    import pandas as pd

    return pd.Series(classes).infer_objects().to_numpy()


def listed(
    found: LabelNoise,
    sample_id: np.ndarray,
    labels: np.ndarray,
    more: Mapping[str, Any],
    fdr: float | None,
    top: int | None,
) -> pd.DataFrame:
    """Return the columns that a list from scores has, without those of the scores."""
    import pandas as pd

    same = found.suggested == labels
    frame = pd.DataFrame(
        {
            "sample_id": sample_id,
            "label": labels,
            "suggested_label": pd.Series(found.suggested.tolist(), dtype=object).where(~same, None),
            "wrong_probability": found.wrong_probability,
            **more,
        }
    )
    order = found.suspects(fdr=fdr, top=top)
    frame = frame.iloc[order]
    return frame.sort_values("wrong_probability", ascending=False, kind="stable", ignore_index=True)


def is_dataset(place: Path) -> bool:
    """Return whether this is a dataset and not a folder of scores, nor a place where one should be."""
    from lsi.data.archives.named import is_known

    if is_known(str(place)) or str(place).startswith("hf:"):
        return True
    if not place.is_dir():
        return place.is_file()
    entries = {entry.name for entry in place.iterdir()}
    return bool(entries) and not entries & {"manifest.json", "scores.parquet"}


def read_probabilities(path: Path) -> np.ndarray:
    """Return the only array, or the one called pred_probs, of a .npy or .npz file."""
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            name = "pred_probs" if "pred_probs" in found.files or len(found.files) != 1 else found.files[0]
            return np.asarray(found[name])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"--pred-probs {path.name!r} cannot be read ({error}). Write it with numpy.save."
        ) from error
