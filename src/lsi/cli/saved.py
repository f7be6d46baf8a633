"""``lsi show`` and ``lsi report``: saved scores on the screen and as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.cli.inputs.options import OTHER_FORM, AgainOptions, EncoderOptions
from lsi.cli.next_step import tell_apply
from lsi.errors import InputError
from lsi.system.text import plain_text

if TYPE_CHECKING:
    from lsi.data import Samples
    from lsi.scores import Scores

_AGAIN, _ENCODER = AgainOptions(), EncoderOptions()


def show(
    scores: Path,
    *,
    rows: Annotated[int, Parameter(name=["--rows", "-n"])] = 8,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show saved scores: the most and least informative samples, classes, audit.

    Args:
        scores: Folder that `lsi compute --output` wrote.
        rows: Number of samples shown at each end.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        InputError: If there are no scores, or no rows to show.
    """
    if rows < 1:
        raise InputError(f"--rows must be at least 1, got {rows}.")
    from lsi.cli.display import show_result
    from lsi.scores import load

    show_result(load(scores), as_json=json, rows=rows)


def report(
    scores: Path,
    dataset: Annotated[str | None, Parameter(name=["--dataset", "-d"])] = None,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("report.html"),
    validation: str | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    again: AgainOptions = _AGAIN,
    encoder: EncoderOptions = _ENCODER,
) -> None:
    """Write the HTML page of saved scores.

    Args:
        scores: Folder that `lsi compute --output` wrote.
        dataset: The data that were scored, for pictures. Default: where the scores say they came from.
        output: Page to write.
        validation: Rows with labels, a file or folder like the dataset: the page then shows the worst errors
            on them beside the training samples that caused them. The probe is trained again for this.
        overwrite: Replace a file that lsi did not write.
        again: How the dataset is read.
        encoder: How images, texts and recordings of `--validation` become features: as for the scores.
    """
    from lsi.cli.inputs.places import inputs_of, path_of, source_of
    from lsi.report import check_report, write_report
    from lsi.scores import load
    from lsi.system.places import check_apart

    read = {**inputs_of(again, encoder), "--dataset": path_of(dataset), "--validation": path_of(validation)}
    check_apart({"--output": output}, {"the scores": scores, **read})
    if validation is None and encoder != _ENCODER:
        raise InputError("options of an encoder are for the rows of --validation. Add it, or leave them out.")
    check_report(output, overwrite=overwrite)
    loaded = load(scores)
    check_apart({"--output": output}, {"the dataset": source_of(loaded)})
    samples = find_samples(loaded, dataset, again)
    errors = None
    if validation is not None:
        from lsi.cli.validation import worst_errors

        errors = worst_errors(scores, validation, encoder)
    written = write_report(output, loaded, samples, validation=errors, overwrite=overwrite)
    print(plain_text(f"Report: {written}", 400))
    if loaded.task == "classification":
        print("Review: open it, accept, reject or remove suspected labels, and export the decisions.")
        words = again.words() if dataset else []
        tell_apply(Path("decisions.csv"), loaded.manifest, Path(dataset) if dataset else None, words)


def find_samples(scores: Scores, dataset: str | None, again: AgainOptions = _AGAIN) -> Samples | None:
    """Return the samples that were scored, for pictures; None where they are not found."""
    from lsi.data import SourceOptions, load_samples
    from lsi.data.reload import reload_samples
    from lsi.report.summary import check_samples

    source = scores.manifest.get("source") or {}
    options = {**(source.get("options") or {}), **again.columns()}
    if again.labels is not None:
        options["labels"] = again.labels
    try:
        if dataset:
            samples = load_samples(dataset, SourceOptions.restore(options))
        else:
            samples = reload_samples({**source, "options": options})
        if again.ids_only:
            samples = by_id(samples, scores)
        else:
            check_read(scores, samples)
            samples = align(samples, scores)
        check_samples(scores, samples)
        return samples
    except InputError as error:
        if dataset:
            raise
        print(plain_text(f"warning: the page has no pictures: {error}", 2000), file=sys.stderr)
        return None


def check_read(scores: Scores, samples: Samples) -> None:
    """Refuse a dataset that is not the one that was scored, where the scores say which that was."""
    said = (scores.manifest.get("source") or {}).get("fingerprint")
    if said is not None and samples.fingerprint() != said:
        raise InputError(
            f"{samples.name!r} is not the dataset that was scored: fingerprint "
            f"{samples.fingerprint()[:12]}… here, "
            f"{said[:12]}… there. Give the data of that run, unchanged. {OTHER_FORM}"
        )


def align(samples: Samples, scores: Scores) -> Samples:
    """Return the samples at the positions of the scored data, where the run used only some of them."""
    if scores.manifest.get("selected_of") != len(samples):
        return samples
    try:
        return by_id(samples, scores)
    except InputError:  # `check_samples` says what does not fit
        return samples


def by_id(samples: Samples, scores: Scores) -> Samples:
    """Return the samples with the scored ids at the positions of the scored data."""
    import numpy as np

    frame = scores.to_frame()
    where = {str(sample_id): row for row, sample_id in enumerate(samples.ids)}
    missing = [str(sample_id) for sample_id in frame["sample_id"] if str(sample_id) not in where]
    if missing or len(where) < len(samples):
        what = f"has no {missing[0]!r}" if missing else "has ids that occur twice"
        raise InputError(
            f"{samples.name!r} {what}, so that its samples cannot be matched to the {len(frame):,} scored "
            "ones by id. Name the ids with --id-column."
        )
    total = int((scores.manifest.get("data") or {}).get("n_samples", len(samples)))
    order = np.zeros(total, dtype=np.int64)
    order[frame["position"].to_numpy()] = [where[str(sample_id)] for sample_id in frame["sample_id"]]
    return samples.select(order)
