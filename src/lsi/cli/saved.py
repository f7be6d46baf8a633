"""``lsi show`` and ``lsi report``: saved scores on the screen and as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.errors import InputError
from lsi.system.text import plain_text

if TYPE_CHECKING:
    from lsi.data import Samples
    from lsi.scores import Scores


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
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("report.html"),
    dataset: Annotated[str | None, Parameter(name=["--dataset", "-d"])] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write the HTML page of saved scores.

    Args:
        scores: Folder that `lsi compute --output` wrote.
        output: Page to write.
        dataset: The data that were scored, for pictures. Default: where the scores say they came from.
        overwrite: Replace a file that lsi did not write.
    """
    from lsi.cli.inputs.places import path_of, source_of
    from lsi.report import check_report, write_report
    from lsi.scores import load
    from lsi.system.places import check_apart

    check_apart({"--output": output}, {"the scores": scores, "--dataset": path_of(dataset)})
    check_report(output, overwrite=overwrite)
    loaded = load(scores)
    check_apart({"--output": output}, {"the dataset": source_of(loaded)})
    written = write_report(output, loaded, find_samples(loaded, dataset), overwrite=overwrite)
    print(plain_text(f"Report: {written}", 400))


def find_samples(scores: Scores, dataset: str | None) -> Samples | None:
    """Return the samples that were scored, for pictures; None where they are not found."""
    from lsi.data import SourceOptions, load_samples
    from lsi.data.reload import reload_samples
    from lsi.report.summary import check_samples

    source = scores.manifest.get("source") or {}
    try:
        if dataset:
            samples = load_samples(dataset, SourceOptions.restore(source.get("options") or {}))
        else:
            samples = reload_samples(source)
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
            f"{said[:12]}… there. Give the data of that run, unchanged."
        )


def align(samples: Samples, scores: Scores) -> Samples:
    """Return the samples at the positions of the scored data, where the run used only some of them."""
    import numpy as np

    frame = scores.to_frame()
    if scores.manifest.get("selected_of") != len(samples):
        return samples
    total = int((scores.manifest.get("data") or {}).get("n_samples", len(samples)))
    where = {str(sample_id): row for row, sample_id in enumerate(samples.ids)}
    rows = [where.get(str(sample_id)) for sample_id in frame["sample_id"]]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or len(where) < len(samples):
        return samples
    order = np.zeros(total, dtype=np.int64)
    order[frame["position"].to_numpy()] = known
    return samples.select(order)
