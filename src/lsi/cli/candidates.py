"""``lsi candidates``: what rows that are not in the data would be worth, and which of them to take."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.cli.inputs.options import EncoderOptions
from lsi.errors import InputError
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import pandas as pd

    from lsi.data import Samples
    from lsi.fitted.fitted import Fitted

_ENCODER = EncoderOptions()
SHOWN = 20


def candidates(
    model: Path,
    rows: str,
    *,
    budget: Annotated[int | None, Parameter(name=["--budget", "-b"])] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    encoder: EncoderOptions = _ENCODER,
    memory: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
) -> None:
    """Say what rows would be worth if they joined the data, or choose which to label.

    Args:
        model: Folder that `lsi fit` wrote.
        rows: The new rows, as a dataset. Without labels, what a row is worth is an expectation over them.
        budget: Choose this many of them, each pick knowing those before it; labels are not looked at.
        output: File to write: .csv, .json or .parquet. Never overwritten.
        encoder: How images, texts and recordings become features: as for `lsi fit`.
        memory: Memory that the run may use, as `4GiB`. Default: what the machine has available.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.

    Raises:
        InputError: If there is no trained probe, or the rows do not fit it.
    """
    from lsi.cli.inputs.places import path_of
    from lsi.cli.mislabeled import check_list_file, records, write_table
    from lsi.results.marks import CANDIDATES, Mark, read_mark
    from lsi.system.places import check_apart

    if output is not None:
        check_list_file(output)
        check_apart({"--output": output}, {"the trained probe": model, "the new rows": path_of(rows)})
    from lsi.cli.inputs.queries import read_rows
    from lsi.fitted.training import load_fitted

    fitted, trained = load_fitted(model, memory=memory), read_mark(model)
    assert trained is not None
    silent = quiet or json
    frame = _table(fitted, read_rows(fitted, rows, encoder, silent), budget, silent)
    if output is not None:
        write_table(frame, output, Mark(CANDIDATES, fingerprint=trained.fingerprint))
    if json:
        shown = frame if budget is not None or output is None else frame.head(SHOWN)
        print(to_json.dumps({"n_rows": len(frame), "rows": records(shown)}))
    elif not quiet:
        _show(frame)
        if output is not None:
            print(plain_text(f"Written: {output} ({len(frame):,} rows)", 400))


def _table(fitted: Fitted, samples: Samples, budget: int | None, quiet: bool) -> pd.DataFrame:
    """Return the picks in their order, or every row with what it is worth, the most first."""
    import pandas as pd

    from lsi.cli.progress import progress_bar

    missing = pd.isna(samples.labels)
    if budget is None and missing.any() and not missing.all():
        raise InputError(
            f"{int(missing.sum())} of {len(samples)} rows have no label. Give labels for all of them, or for "
            "none."
        )
    with progress_bar(quiet) as progress:
        if budget is not None:
            return fitted.choose(samples.features, budget, samples.ids, progress=progress)
        labels = samples.labels if samples.targets is None else samples.targets
        y = None if missing.all() else labels
        found = fitted.candidates(samples.features, y, samples.ids, progress=progress)
    return found.top(len(found))


def _show(frame: pd.DataFrame) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table

    table = plain_table(f"Candidates, the first {min(SHOWN, len(frame))} of {len(frame):,}")
    for name in frame.columns:
        table.add_column(name.replace("_", " "))
    for row in frame.head(SHOWN).itertuples(index=False):
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row]
        table.add_row(*(Text(plain_text(cell, 40)) for cell in cells))
    out_console().print(table)
