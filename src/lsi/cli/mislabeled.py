"""``lsi mislabeled``: the labels that are probably wrong, on the screen or in a file."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import BadZipFile

from cyclopts import Parameter

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    ListedData,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.cli.inputs.places import inputs_of
from lsi.cli.next_step import tell_apply, tell_next
from lsi.errors import InputError
from lsi.results.marks import SUSPECTS, Mark, marked_table
from lsi.system.places import check_apart
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from lsi.analysis.label_noise import LabelNoise
    from lsi.scores import Scores

FORMATS = (".csv", ".json", ".parquet")
SHOWN = 20


_DATA, _ENCODER, _CORRUPTION, _MACHINE = ListedData(), EncoderOptions(), CorruptionOptions(), MachineOptions()


def mislabeled(
    place: Path,
    /,
    *,
    fdr: float | None = None,
    top: Annotated[int | None, Parameter(name=["--top", "-n"])] = None,
    pred_probs: Path | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    data: ListedData = _DATA,
    encoder: EncoderOptions = _ENCODER,
    corruption: CorruptionOptions = _CORRUPTION,
    machine: MachineOptions = _MACHINE,
) -> None:
    """List the labels that are most likely wrong, with the label that is likely right.

    Of scores, or of a dataset that was never scored: `lsi mislabeled digits`, `lsi mislabeled photos/`. That
    takes seconds, once images and texts are encoded.

    Args:
        place: Folder that `lsi compute --output` wrote, or a dataset as `lsi compute --dataset` takes it.
        fdr: Shorten the list so that the expected share of right labels in it stays below this, as `0.1`.
            It is empty where the data do not show that any label is wrong.
        top: Show only this many. Default: all in a file, 20 on the screen.
        pred_probs: Out-of-sample probabilities of another model in place of the run's own estimate: .npy or
            .npz, one row a sample, one column a class in sorted order.
        output: File to write: .csv, .json or .parquet. Never overwritten.
        json: Print one JSON object on stdout and nothing else there.
        data: How a dataset is read.
        encoder: How its images, texts and recordings become features.
        corruption: What is changed on purpose.
        machine: What the computation runs on.

    Raises:
        InputError: If the data or scores are not those of a classification, or a limit is out of range.
    """
    from lsi.analysis.label_noise import check_limits

    if output is not None:
        check_list_file(output)
    check_limits(fdr, top)
    options = (data, encoder, corruption, machine)
    if is_dataset(place):
        check_apart({"--output": output}, inputs_of(replace(data, dataset=str(place)), encoder, corruption))
        found = of_dataset(str(place), *options, pred_probs=pred_probs, fdr=fdr, top=top, quiet=json)
    else:
        check_apart({"--output": output}, {"the scores": place})
        if options[:3] != (_DATA, _ENCODER, _CORRUPTION):
            raise InputError(
                f"{str(place)!r} is no dataset, and scores say themselves how their data were read. Drop the "
                "options for data, encoder and corruption, or name a dataset."
            )
        found = of_scores(place, pred_probs, fdr, top)
    if output is not None:
        write_list(found.frame, output, found.mark)
    if json:
        shown = found.frame if top is not None or fdr is not None else found.frame.head(SHOWN)
        print(json_module.dumps({**found.summary, "rows": records(shown)}))
        return
    _show(found.frame, found.summary, fdr)
    if output is not None:
        print(plain_text(f"Written: {output} ({len(found.frame):,} rows)", 400))
        print("Review: write accept, reject or remove into the column decision; empty rows stay as they are.")
        tell_apply(output, found.manifest)
    if found.dataset is not None:
        words = dataset_words(found.dataset, data, encoder, corruption)
        if output is None:
            tell_next("mislabeled", *words, "-o", "suspects.csv")
        told = {"then": "For the report"} if output is not None else {"then": "Or"}
        tell_next("compute", "--dataset", *words, "--output", "scores", "--report", "report.html", **told)


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


def of_scores(place: Path, pred_probs: Path | None, fdr: float | None, top: int | None) -> Found:
    """Return the list of a run."""
    from lsi.analysis.mislabeled import with_probabilities
    from lsi.scores import load

    loaded = load(place)
    if loaded.task != "classification":
        raise InputError(f"lsi mislabeled is for classification, and these are scores of {loaded.task}.")
    if pred_probs is not None:
        loaded = with_probabilities(loaded, read_probabilities(pred_probs))
    frame = loaded.mislabeled(fdr=fdr, top=top)
    mark = Mark.of(loaded.manifest, SUSPECTS, str(place))
    return Found(frame, summarise(loaded, frame), loaded.manifest, mark)


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
    from lsi.cli.job import described_source, prepare
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
    manifest = {"source": described_source(job), "data": describe_data(problem), **job.extra}
    summary = {
        "n_listed": len(frame),
        "n_scored": problem.n_samples,
        "estimated": True,
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


def dataset_words(dataset: str, *groups: Any) -> list[str]:
    """Return a dataset and the options with which it was read, as one would type them."""
    words = [dataset]
    for group in groups:
        for entry in fields(group):
            value = getattr(group, entry.name)
            if entry.name == "dataset" or value == entry.default:
                continue
            flag = f"--{entry.name.replace('_', '-')}"
            words += (
                [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else [value])]
            )
    return words


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


def check_list_file(path: Path) -> None:
    """Raise before any work if the file cannot be written."""
    from lsi.system.files import check_new

    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--output must end in {', '.join(FORMATS)}, got {path.name!r}.")
    check_new(path)


def write_list(frame: pd.DataFrame, path: Path, mark: Mark) -> None:
    """Write the list in the format that the suffix names, completely or not at all.

    It has a column for the decision of whoever looks at it, for `lsi apply`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lsi.decisions.guarded import write_guarded_csv
    from lsi.system.files import new_file

    kind, frame = path.suffix.lower(), frame.assign(decision="")
    with new_file(path) as staging:
        if kind == ".csv":
            write_guarded_csv(frame, staging, mark)
        elif kind == ".json":
            content = {**mark.fields(), "rows": records(frame)}
            staging.write_text(json_module.dumps(content, ensure_ascii=False), encoding="utf-8")
        else:
            pq.write_table(marked_table(pa.Table.from_pandas(frame, preserve_index=False), mark), staging)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON values."""
    rows: list[dict[str, Any]] = json_module.loads(frame.to_json(orient="records", date_format="iso"))
    return rows


def summarise(scores: Scores, frame: pd.DataFrame) -> dict[str, Any]:
    """Return what is known about the list, as JSON values."""
    estimated = bool(scores.manifest.get("label_noise"))
    known: dict[str, Any] = {"n_listed": len(frame), "n_scored": len(scores), "estimated": estimated}
    if estimated:
        known["n_wrong"] = scores.manifest["label_noise"]["n_wrong"]
        known["wrong_in_list"] = float(frame["wrong_probability"].sum())
        known["interval"] = list(scores.label_noise.interval)
    return known


def _show(frame: pd.DataFrame, summary: dict[str, Any], fdr: float | None) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table

    table = plain_table("Labels, the most doubtful first")
    for name in ("sample", "label", "suggested"):
        table.add_column(name)
    scored = "lsi" in frame
    for name in ("P(wrong)", *(["LSI (nats)"] if scored else [])):
        table.add_column(name, justify="right")
    shown = frame.head(SHOWN) if fdr is not None or summary["n_listed"] == summary["n_scored"] else frame
    for row in shown.itertuples():
        suggested = "" if row.suggested_label is None else plain_text(str(row.suggested_label), 40)
        cells = [plain_text(str(row.sample_id), 40), plain_text(str(row.label), 40), suggested]
        table.add_row(
            *map(Text, cells), f"{row.wrong_probability:.1%}", *([f"{row.lsi:.3g}"] if scored else [])
        )
    out_console().print(table)
    if summary["estimated"]:
        from lsi.analysis.label_noise import identified

        low, high = summary["interval"]
        print(
            f"About {summary['n_wrong']:,.0f} of {summary['n_scored']:,} labels are estimated to be wrong "
            f"(between {low:,.0f} and {high:,.0f}); about {summary['wrong_in_list']:,.0f} of the "
            f"{summary['n_listed']:,} listed. {identified(low, high)}".rstrip()
        )
    else:
        print(
            "This run did not estimate label noise: P(wrong) ranks labels, but is no probability to rely on."
        )
