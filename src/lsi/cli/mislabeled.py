"""``lsi mislabeled``: the labels that are probably wrong, on the screen or in a file."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lsi.cli.inputs.options import (
    CorruptionOptions,
    EncoderOptions,
    ListedData,
    MachineOptions,
)
from lsi.cli.inputs.places import inputs_of
from lsi.cli.inputs.recall import asked, words_of
from lsi.cli.next_step import tell_apply, tell_next
from lsi.cli.unscored import Found, is_dataset, of_dataset, read_probabilities
from lsi.errors import InputError
from lsi.results.marks import SUSPECTS, Mark, marked_table
from lsi.system.places import check_apart
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import pandas as pd

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
        InputError: If the scores are those of pairs, a dataset is no classification, or a limit is out of
            range.
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
        words = [found.dataset, *words_of(asked(data, encoder, corruption))]
        if output is None:
            tell_next("mislabeled", *words, "-o", "suspects.csv")
        told = {"then": "For the report"} if output is not None else {"then": "Or"}
        tell_next("compute", "--dataset", *words, "--output", "scores", "--report", "report.html", **told)


def of_scores(place: Path, pred_probs: Path | None, fdr: float | None, top: int | None) -> Found:
    """Return the list of a run."""
    from lsi.analysis.mislabeled import with_probabilities
    from lsi.scores import load

    loaded = load(place)
    if loaded.task == "contrastive":
        raise InputError("lsi mislabeled is for labels and targets, and these are scores of pairs.")
    if pred_probs is not None:
        loaded = with_probabilities(loaded, read_probabilities(pred_probs))
    frame = loaded.mislabeled(fdr=fdr, top=top)
    mark = Mark.of(loaded.manifest, SUSPECTS, str(place))
    return Found(frame, summarise(loaded, frame), loaded.manifest, mark)


def check_list_file(path: Path) -> None:
    """Raise before any work if the file cannot be written."""
    from lsi.system.files import check_new

    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--output must end in {', '.join(FORMATS)}, got {path.name!r}.")
    check_new(path)


def write_list(frame: pd.DataFrame, path: Path, mark: Mark) -> None:
    """Write the list with a column for the decision of whoever looks at it, for `lsi apply`."""
    write_table(frame.assign(decision=""), path, mark)


def write_table(frame: pd.DataFrame, path: Path, mark: Mark) -> None:
    """Write a table in the format that the suffix names, completely or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lsi.decisions.guarded import write_guarded_csv
    from lsi.system.files import new_file

    kind = path.suffix.lower()
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
    estimated = scores.task != "classification" or bool(scores.manifest.get("label_noise"))
    known: dict[str, Any] = {
        "n_listed": len(frame), "n_scored": len(scores), "estimated": estimated, "task": scores.task
    }  # fmt: skip
    if estimated:
        found = scores.label_noise
        known["n_wrong"] = found.n_wrong
        known["wrong_in_list"] = float(frame["wrong_probability"].sum())
        known["interval"] = list(found.interval)
    return known


def _show(frame: pd.DataFrame, summary: dict[str, Any], fdr: float | None) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table

    task = summary["task"]
    kind = "target" if task == "regression" else "label"
    table = plain_table(f"{kind.capitalize()}s, the most doubtful first")
    which = "most_doubtful" in frame
    for name in ("sample", kind, "suggested", *(["doubtful"] if which else [])):
        table.add_column(name)
    scored = "lsi" in frame
    for name in ("P(wrong)", *(["LSI (nats)"] if scored else [])):
        table.add_column(name, justify="right")
    shown = frame.head(SHOWN) if fdr is not None or summary["n_listed"] == summary["n_scored"] else frame
    for row in shown.itertuples():
        suggested = "" if row.suggested_label is None else _short(row.suggested_label)
        cells = [plain_text(str(row.sample_id), 40), _short(row.label), suggested]
        cells += [plain_text(str(row.most_doubtful), 40)] if which else []
        table.add_row(
            *map(Text, cells), f"{row.wrong_probability:.1%}", *([f"{row.lsi:.3g}"] if scored else [])
        )
    out_console().print(table)
    if summary["estimated"]:
        from lsi.analysis.label_noise import count_in_words, identified

        count = count_in_words(summary["n_wrong"], summary["n_scored"], summary["interval"], task)
        listed = f"about {summary['wrong_in_list']:,.0f} of the {summary['n_listed']:,} listed."
        low, high = summary["interval"]
        print(f"{count}; {listed} {identified(low, high, task)}".rstrip())
    else:
        print(
            "This run did not estimate label noise: P(wrong) ranks labels, but is no probability to rely on."
        )


def _short(value: Any) -> str:
    """Return a label or a target for the terminal."""
    return f"{value:.4g}" if isinstance(value, float) else plain_text(str(value), 40)
