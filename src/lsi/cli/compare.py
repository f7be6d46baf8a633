"""``lsi compare`` and ``lsi difficulty``: two runs, or several datasets, side by side."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.errors import InputError, LsiError
from lsi.results.marks import SCORES, Mark

if TYPE_CHECKING:
    from lsi.analysis.compare import Comparison
    from lsi.scores import Scores


class GateError(LsiError):
    """A condition that the user set does not hold (exit code 1)."""


def compare(
    old: Path,
    new: Path,
    *,
    min_rank_correlation: float | None = None,
    rows: Annotated[int, Parameter(name=["--rows", "-n"])] = 8,
    by_row: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what changed between two runs, or two versions of a dataset.

    Args:
        old: Folder of the earlier scores.
        new: Folder of the later scores.
        min_rank_correlation: Fail (exit code 1) if Spearman's rank correlation of the common samples is
            lower.
        rows: Number of samples shown in each list.
        by_row: Take equal row numbers of two different datasets for the same sample.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        InputError: If the runs cannot be compared.
        GateError: If the rank correlation is too low.
    """
    from lsi.analysis.compare import compare as compare_scores
    from lsi.decisions.former import former_ids
    from lsi.scores import Scores, load

    if rows < 1:
        raise InputError(f"--rows must be at least 1, got {rows}.")
    if min_rank_correlation is not None and not -1 <= min_rank_correlation <= 1:
        raise InputError(f"--min-rank-correlation must lie between -1 and 1, got {min_rank_correlation}.")
    first, second = load(old), load(new)
    former = former_ids(first, second)
    if former is not None:
        print("Samples are matched by the receipt of the cleaned dataset.", file=sys.stderr)
        second = Scores(second.to_frame().assign(sample_id=former), second.manifest, second.audit)
    check_comparable(str(old), first, str(new), second, by_row or former is not None)
    found = compare_scores(first, second)
    passed = min_rank_correlation is None or found.holds(min_rank_correlation)
    if json:
        gate = {"min_rank_correlation": min_rank_correlation, "passed": passed}
        print(json_module.dumps({**found.to_dict(rows), **gate}))
    else:
        _show(found, rows)
    if not passed:
        raise GateError(
            f"the rank correlation is {_figure(found.rank_correlation)}, below {min_rank_correlation:g}."
        )


def check_comparable(old: str, first: Scores, new: str, second: Scores, by_row: bool) -> None:
    """Refuse runs that have nothing to do with each other, by the names of both."""
    if first.task != second.task:
        raise InputError(
            f"{old!r} is of {first.task} and {new!r} of {second.task}. Compare runs of one task."
        )
    ids = [set(scores.sample_id.tolist()) for scores in (first, second)]
    kinds = [scores.sample_id.dtype.kind in "iu" for scores in (first, second)]
    if all(ids) and kinds[0] == kinds[1] and not ids[0] & ids[1]:
        raise InputError(f"{old!r} and {new!r} have no sample in common: check that both use the same ids.")
    read = [Mark.of(scores.manifest, SCORES).dataset_fingerprint for scores in (first, second)]
    numbered = all(kinds) and all(each == set(range(len(each))) for each in ids)
    if None not in read and read[0] != read[1] and numbered and not by_row:
        raise InputError(
            f"{old!r} and {new!r} are of two different datasets ({read[0]:.12}… and {read[1]:.12}…) whose "
            "ids are row numbers, so that nothing says which rows are the same sample. Score both with "
            "--id-column, or add --by-row if the same number is the same sample."
        )


def difficulty(
    *scores: Path,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Compare how hard datasets are: leave-one-out cross-entropy as a share of the label entropy.

    Args:
        scores: Folders that `lsi compute --output` wrote.
        json: Print one JSON list on stdout and nothing else there.

    Raises:
        InputError: If no folder is named, or one cannot be read.
    """
    from lsi.analysis.difficulty import compare_datasets

    if not scores:
        raise InputError("name at least one folder of scores: lsi difficulty scores-a/ scores-b/")
    frame = compare_datasets({str(path): path for path in scores})
    if json:
        print(frame.to_json(orient="records"))
        return
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table
    from lsi.system.text import plain_text

    table = plain_table("Difficulty (0: easy, 1: no better than the class frequencies)")
    table.add_column("scores", max_width=32)
    names = ("difficulty", "95 % interval", "LOO error", "nats a label", "of them told", "samples", "classes")
    for name in names:
        table.add_column(name, justify="right")
    for row in frame.to_dict("records"):
        cells = (
            f"{row['difficulty']:.3f}",
            f"{row['low']:.3f}–{row['high']:.3f}",
            f"{100 * row['loo_error']:.1f} %",
            f"{row['label_entropy']:.3f}",
            f"{row['usable_information']:.3f}",
            f"{row['n_samples']:,}",
            f"{row['n_classes']:,}",
        )
        table.add_row(Text(plain_text(row["dataset"], 32)), *cells)
    out_console().print(table)


def _show(found: Comparison, rows: int) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table
    from lsi.report.format import number
    from lsi.system.text import plain_text

    console = out_console()
    lines = [
        f"{found.n_old:,} samples before, {found.n_new:,} after, {len(found.common):,} in common",
        f"{len(found.added):,} added, {len(found.removed):,} removed, {len(found.relabelled):,} relabelled",
        f"rank correlation {_figure(found.rank_correlation)}, "
        f"overlap of the highest tenth {_figure(found.top_overlap)}",
    ]
    lines += [f"setting {name}: {pair[0]} → {pair[1]}" for name, pair in found.settings.items()]
    for which, audit in found.audits.items():
        told = "none" if audit is None else f"rank correlation {_figure(audit['spearman'])}"
        lines.append(f"audit of the {which} run: {told}")
    for line in (*lines, *(f"note: {note}" for note in found.notes)):
        console.print(Text(plain_text(line, 300)))
    if len(found.relabelled):
        table = plain_table("Relabelled")
        for name in ("sample", "before", "after"):
            table.add_column(name, max_width=32)
        for row in found.relabelled.head(rows).to_dict("records"):
            cells = (row["sample_id"], row["old_label"], row["new_label"])
            table.add_row(*(Text(plain_text(cell, 32)) for cell in cells))
        console.print(table)
    if len(found.common):
        table = plain_table("Biggest moves (quantiles of LSI among the common samples)")
        for name in ("sample", "label"):
            table.add_column(name, max_width=32)
        for name in ("LSI before", "after", "quantile before", "after", "move"):
            table.add_column(name, justify="right")
        for row in found.common.head(rows).to_dict("records"):
            shown = [Text(plain_text(row[name], 32)) for name in ("sample_id", "label")]
            figures = [number(row["old_lsi"]), number(row["new_lsi"])]
            figures += [f"{row['old_quantile']:.3f}", f"{row['new_quantile']:.3f}", f"{row['move']:+.3f}"]
            table.add_row(*shown, *figures)
        console.print(table)


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
