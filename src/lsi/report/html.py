"""Summary and rows → one HTML page: no network, everything inside the file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsi.data import Samples
from lsi.errors import InputError, OutputError
from lsi.report import assets, charts, format, wording
from lsi.report.encode import script_json
from lsi.report.errors import Validation
from lsi.report.payload import describes, page_data
from lsi.report.summary import summarize
from lsi.results.table import ScoreTable
from lsi.system.door import open_regular
from lsi.system.files import check_parent, replace_file
from lsi.system.machine import expand
from lsi.system.text import plain_text
from lsi.system.versions import install_hint

if TYPE_CHECKING:
    import jinja2

GENERATOR = '<meta name="generator" content="laplace-sample-information">'
"""Marks the pages of this library: only these are replaced without --overwrite."""
MAX_CLASSES = 200
"""Most rows of the class table."""
MAX_GROUPS = 200
"""Most rows of the table of groups: as many of either end."""
_NEEDED = {"jinja2": "jinja2", "PIL": "pillow"}


def require_packages() -> None:
    """Check that the packages for the report are installed."""
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise InputError(
            f"the HTML report needs {' and '.join(missing)}. Install them: {install_hint('report')}."
        )


def check_report(path: str | Path, *, overwrite: bool = False) -> Path:
    """Check before any work that a report can be written.

    Args:
        path: The page to be.
        overwrite: Whether a file that is not a report of this library may be replaced.

    Returns:
        The path.

    Raises:
        InputError: If packages for the report are missing.
        OutputError: If the place is taken or cannot be written to.
    """
    require_packages()
    path = expand(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Give a file, for example {path / 'report.html'}.")
    if path.exists() and not _is_report(path):
        if not overwrite:
            raise OutputError(
                f"{path} exists and is not a report of lsi. Choose another name or add --overwrite."
            )
        if path.suffix.lower() not in (".html", ".htm"):
            raise OutputError(
                f"{path} exists and is no HTML page, so no page replaces it. Choose another name."
            )
    check_parent(path)
    return path


def build_page(
    scores: ScoreTable, samples: Samples | None = None, validation: Validation | None = None
) -> str:
    """Turn scores into a page.

    Args:
        scores: The result of a run.
        samples: The data that were scored, for pictures, features and class names. Optional.
        validation: Errors on validation rows, and the samples that caused them. Optional.

    Returns:
        A complete HTML document.

    Raises:
        InputError: If packages are missing or `samples` are not the ones that were scored.
    """
    require_packages()
    return render(summarize(scores, samples, validation=validation), page_data(scores, samples))


def render(summary: dict[str, Any], data: dict[str, Any]) -> str:
    """Turn a summary and the rows behind it into a page.

    Args:
        summary: What `lsi.report.summarize` returns.
        data: What `lsi.report.payload.page_data` returns.

    Returns:
        A complete HTML document. Everything that came with the data is escaped.

    Raises:
        InputError: If jinja2 is not installed.
    """
    require_packages()
    from markupsafe import Markup

    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            **summary,
            generator=Markup(GENERATOR),
            style=Markup(assets.style()),
            script=Markup(assets.script()),
            script_hash=Markup(assets.script_hash()),
            data=Markup(script_json(data)),
            words=wording.sentences(summary) | {"left_out": describes(data)},
            likely="likely" if summary["task"] == "classification" else "predicted",
            level=wording.verdict(summary["audit"])[1],
            feature_level=wording.features(summary["feature_check"])[1],
            **_drawings(summary),
        )
    )


def _drawings(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the geometry of all drawings; None for what a run did not have."""
    found, audit, suspects = summary["detection"], summary["audit"], summary["suspects"]
    shown = summary["classes"][:MAX_CLASSES]
    return {
        "histogram": charts.histogram(summary["distribution"]),
        "curve": charts.detection_curve(found["curve"]) if found else None,
        "scatter": charts.audit_scatter(audit["pairs"]) if audit else None,
        "shown_classes": shown,
        "shown_groups": _both_ends(summary["groups"]["rows"]) if summary["groups"] else [],
        "boxes": charts.boxes(shown),
        "noise_shades": charts.shade(_without_diagonal(suspects["noise"]["shares"]))
        if suspects and suspects["noise"]
        else None,
        "matrix_shades": charts.shade(suspects["matrix"]["counts"])
        if suspects and suspects["matrix"]
        else None,
        "curves": charts.curves(summary["curation"]) if summary["curation"] else None,
    }


def _both_ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that fit into the page's table of groups."""
    half = MAX_GROUPS // 2
    return rows if len(rows) <= MAX_GROUPS else rows[:half] + rows[-half:]


def _without_diagonal(shares: list[list[float]]) -> list[list[float]]:
    """Return a matrix with zeros on its diagonal, whose large shares would pale all others."""
    return [[0.0 if i == j else share for j, share in enumerate(row)] for i, row in enumerate(shares)]


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lsi.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format.number,
        "percent": format.percent,
        "duration": format.duration,
        "settings": format.settings,
        "clean": plain_text,
    }
    return environment


def write_report(
    path: str | Path,
    scores: ScoreTable,
    samples: Samples | None = None,
    *,
    validation: Validation | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page for `scores`.

    The file appears in one step: an interrupted run never leaves half a page.

    Args:
        path: The file to write; missing folders are made.
        scores: The result of a run.
        samples: The data that were scored, for pictures, features and class names. Optional.
        validation: Errors on validation rows, and the samples that caused them. Optional.
        overwrite: Whether a file that is not a report of this library may be replaced.

    Returns:
        The path.

    Raises:
        InputError: If packages are missing or `samples` are not the ones that were scored.
        OutputError: If the file cannot be written.
    """
    path = check_report(path, overwrite=overwrite)
    replace_file(path, build_page(scores, samples, validation).encode(), "the report")
    return path


def _is_report(path: Path) -> bool:
    """Return whether a file is empty or a page that this library wrote, before pages had a mark or since."""
    try:
        with open_regular(path) as file:
            head = file.read(2000)
    except InputError:  # a pipe, or not for this user
        return False
    return not head or (head.startswith(b"<!doctype html>") and GENERATOR.encode() in head)
