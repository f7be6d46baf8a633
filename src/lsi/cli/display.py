"""What `lsi compute`, `merge` and `show` print: the plan before the work, tables or JSON after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsi.cli.console import ALARM, out_console, plain_table, say
from lsi.report.format import number, percent, settings
from lsi.report.summary import summarize
from lsi.report.wording import GROUP_FINDINGS
from lsi.report.wording import detection as detection_sentence
from lsi.report.wording import features as features_sentence
from lsi.report.wording import groups as groups_sentence
from lsi.report.wording import weight_decay as decay_sentence
from lsi.system.text import counted, plain_text

if TYPE_CHECKING:
    import pandas as pd

    from lsi.data import Corruption
    from lsi.scores import Scores
    from lsi.validation.problem import Problem


ROWS = 8
"""Samples shown at each end."""
LEVELS = {"good": "", "fair": "yellow", "poor": ALARM}
"""Styles of the verdict on the features."""
CLASS_ROWS = 12
"""Most classes that are shown."""
_HEADINGS = {
    "classification": ("label", "likely", "p(label)"),
    "multilabel": ("labels", "likely", "p(labels)"),
    "regression": ("target", "expected", "p(further off)"),
    "contrastive": ("pair", "likely partner", "p(partner)"),
}


def announce(
    name: str,
    problem: Problem,
    chosen: dict[str, Any],
    truth: Corruption | None,
    notes: Sequence[str],
    n_right: int | None = None,
    n_groups: int = 0,
) -> None:
    """Say on stderr what will be done and what it will cost; `n_right`: right features of pairs."""
    n, d, n_scored = problem.n_samples, problem.n_features, len(problem.subset)
    which = f"all {n_scored:,}" if n_scored == n else f"{n_scored:,} of {n:,}"
    if n_right is None:
        lines = [
            f"{name}: {n:,} samples, {counted(d, 'feature')}, {_target(problem, chosen['probe'])}",
            f"scoring {which}: posterior {chosen['posterior']}, {_method(problem, chosen)}",
        ]
    else:
        lines = [f"{name}: {n:,} pairs, {d:,} and {counted(n_right, 'feature')}, no labels"]
    lines.append(f"expected cost: {_cost(problem, chosen, n_groups)}")
    if truth is not None:
        lines.insert(1, _changed(truth))
    if chosen["cluster"] is not None:
        lines.append(_cluster(chosen["cluster"], chosen.get("device")))
    for line in (*lines, *(f"note: {note}" for note in notes)):
        say(line)


def _cost(problem: Problem, chosen: dict[str, Any], n_groups: int) -> str:
    from lsi.planning.groups import with_groups
    from lsi.system.text import parse_size
    from lsi.tasks import task_of

    task, memory = task_of(chosen["probe"]), parse_size(chosen["memory"])
    found = task.cost(chosen["probe"], problem, chosen["posterior"], chosen["method"], memory)
    if found is None:
        return "that of the network, which is not predicted"
    if problem.n_classes:  # other targets' groups take next to nothing, or as often as there are labels
        shape = problem.shape(chosen["probe"].fit_intercept)
        found = with_groups(found, shape, chosen["posterior"], n_groups)
    return found.text


def _cluster(address: str, device: str | None) -> str:
    """Return a sentence on how many workers share the work."""
    import torch

    from lsi.execution.ray_cluster import room_for

    threads, workers = torch.get_num_threads(), room_for(address, device)
    line = f"cluster {address}: {workers} worker{'s' if workers > 1 else ''} of {threads} thread"
    line += "s" if threads > 1 else ""
    return f"{line}; --threads 1 makes more of them" if workers == 1 < threads else line


def _target(problem: Problem, probe: Any) -> str:
    """Return how many classes, labels or targets there are."""
    if not problem.outputs:
        return f"{problem.n_classes} classes"
    n, what = len(problem.outputs), "target" if probe.describe()["kind"] == "ridge" else "label"
    return f"{n} {what}{'s' if n > 1 else ''}"


def _method(problem: Problem, chosen: dict[str, Any]) -> str:
    """Return how samples are left out, and what a linear probe's values will be good for."""
    from lsi.methods import Newton
    from lsi.planning.plan import choose_solver, grade
    from lsi.system.text import parse_size

    probe, method, kind = chosen["probe"], chosen["method"], chosen["probe"].describe()["kind"]
    if kind == "ridge":
        return "leave-one-out in closed form"
    said = settings(method.describe())
    if kind != "linear" or not isinstance(method, Newton):
        return said
    shape, memory = problem.shape(probe.fit_intercept), parse_size(chosen["memory"])
    solver = choose_solver(shape, chosen["posterior"], method, memory)
    return f"{said}; {solver} solver, grade: {grade(solver, method)}"


def _changed(truth: Corruption) -> str:
    count, share = truth.n_corrupted, percent(truth.n_corrupted / len(truth.mask))
    if truth.kind == "given clean labels":
        return f"{counted(count, 'label')} differing from the clean ones ({share})"
    if truth.kind in ("symmetric", "pairwise", "transition"):
        return f"{counted(count, 'label')} changed on purpose ({share})"
    if truth.kind == "mismatched pairs":
        return f"{counted(count, 'pair')} mismatched on purpose ({share})"
    return f"{counted(count, 'sample')} changed on purpose ({truth.kind}, {share})"


def show_result(
    scores: Scores, *, as_json: bool = False, written: Mapping[str, Path] | None = None, rows: int = ROWS
) -> None:
    """Print scores on stdout."""
    summary = summarize(scores, gallery_size=rows)
    places = {key: str(path) for key, path in (written or {}).items()}
    if as_json:
        print(json.dumps(machine_readable(summary, scores, places)))
        if scores.audit and scores.audit.broken:
            say(scores.audit.alarm(), ALARM)
        return
    console = out_console(100)
    _show_tables(console, summary, scores)
    for line in _closing_lines(summary, scores, places):
        console.print(line)


def machine_readable(summary: dict[str, Any], scores: Scores, places: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    found, audit = summary["detection"], summary["audit"]
    return {
        "dataset": summary["title"],
        "data": summary["run"]["data"],
        "config": summary["run"]["config"],
        "fit": summary["run"]["fit"],
        "timings": summary["run"]["timings"],
        "overview": summary["overview"],
        "highest": summary["gallery"]["highest"],
        "lowest": summary["gallery"]["lowest"],
        "classes": summary["classes"],
        "detection": found and {key: value for key, value in found.items() if key != "curve"},
        "audit": audit and {key: value for key, value in audit.items() if key != "pairs"},
        "groups": summary["groups"],
        "feature_check": summary["feature_check"],
        "weight_decay": summary["weight_decay"],
        "corruption": scores.manifest.get("corruption"),
        "output": places.get("output"),
        "report": places.get("report"),
    }


def _show_tables(console: Console, summary: dict[str, Any], scores: Scores) -> None:
    planted = summary["detection"] is not None
    gallery, task = summary["gallery"], summary["task"]
    console.print(_sample_table("Most informative", gallery["highest"], planted, task))
    if gallery["lowest"]:
        console.print()
        console.print(_sample_table("Least informative", gallery["lowest"], planted, task))
    if summary["classes"]:
        console.print()
        console.print(_class_table(summary["classes"]))
    if task == "multilabel":
        console.print()
        console.print(_label_table(scores.class_summary()))
    if summary["groups"]:
        console.print()
        console.print(_group_table(summary["groups"]["rows"]))


def _sample_table(title: str, entries: list[dict[str, Any]], planted: bool, task: str) -> Table:
    table = plain_table(title)
    label, likely, chance = _HEADINGS.get(task, _HEADINGS["classification"])
    for column, justify in (("sample", "right"), (label, "left"), (likely, "left")):
        table.add_column(column, justify=justify, overflow="ellipsis", max_width=28)  # type: ignore[arg-type]
    table.add_column("LSI (nats)", justify="right")
    table.add_column(chance, justify="right")
    if planted:
        table.add_column("planted, was", max_width=28)
    for entry in entries:
        expected = Text(entry["likely"], style="bold" if entry["disagrees"] else "dim")
        cells = [Text(entry["sample_id"]), Text(entry["label"]), expected]
        cells += [Text(number(entry["lsi"])), Text(number(entry["loo_probability"]))]
        table.add_row(*cells, *([Text(entry["original"] or "")] if planted else []))
    return table


def _class_table(classes: list[dict[str, Any]]) -> Table:
    hidden = len(classes) - CLASS_ROWS
    table = plain_table("Classes" if hidden <= 0 else f"Classes (the {CLASS_ROWS} highest of {len(classes)})")
    table.add_column("class", overflow="ellipsis", max_width=28)
    for column in ("samples", "mean LSI", "median LSI", "model disagrees"):
        table.add_column(column, justify="right")
    for row in classes[:CLASS_ROWS]:
        figures = (f"{row['n']:,}", number(row["mean"]), number(row["median"]))
        table.add_row(Text(row["label"]), *figures, percent(row["n_disagree"] / row["n"]))
    return table


def _label_table(labels: pd.DataFrame) -> Table:
    hidden = len(labels) - CLASS_ROWS
    table = plain_table("Labels" if hidden <= 0 else f"Labels (the {CLASS_ROWS} highest of {len(labels)})")
    table.add_column("label", overflow="ellipsis", max_width=28)
    for column in ("samples", "mean LSI", "median LSI", "model disagrees"):
        table.add_column(column, justify="right")
    for row in labels.sort_values("mean_lsi", ascending=False).head(CLASS_ROWS).to_dict("records"):
        figures = (f"{row['n']:,}", number(row["mean_lsi"]), number(row["median_lsi"]))
        table.add_row(Text(plain_text(row["label"])), *figures, percent(1.0 - row["loo_accuracy"]))
    return table


def _group_table(groups: list[dict[str, Any]]) -> Table:
    some = len(groups) > CLASS_ROWS
    which = f", the {CLASS_ROWS} of {len(groups):,} that are worth the most for each sample" if some else ""
    table = plain_table(f"Groups{which}")
    table.add_column("group", overflow="ellipsis", max_width=28)
    for column in ("samples", "LSI (nats)", "a sample", "interaction"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in groups[:CLASS_ROWS]:
        figures = (number(row["lsi"]), number(row["lsi_per_row"]), number(row["interaction"]))
        said = GROUP_FINDINGS.get(row["finding"], "")
        table.add_row(Text(row["group"]), f"{row['n']:,}", *figures, Text(said))
    return table


def _closing_lines(summary: dict[str, Any], scores: Scores, places: Mapping[str, str]) -> list[Text]:
    lines = [Text()]
    found = summary["detection"]
    if summary["groups"]:
        lines.append(Text(groups_sentence(summary["groups"])))
    if found:
        figures = f"AUROC {found['auroc']:.3f}, average precision {found['average_precision']:.3f}"
        lines.append(Text(f"Planted errors: {figures}. {detection_sentence(found)}"))
    elif scores.manifest.get("corruption"):
        lines.append(Text("Planted errors: not measured: the scored samples hold none, or nothing else."))
    audit = scores.audit
    alarm = ALARM if audit and audit.broken else ""
    lines.append(Text(f"Audit: {audit.summary()}" if audit else "Audit: not run.", style=alarm))
    said, level = features_sentence(summary["feature_check"])
    if said:
        lines.append(Text(said, style=LEVELS[level]))
    if summary["weight_decay"]:
        lines.append(Text(decay_sentence(summary["weight_decay"])))
    names = {"output": "Scores", "report": "Report"}
    lines += [Text(plain_text(f"{names[key]}: {path}", 400)) for key, path in places.items()]
    return lines
