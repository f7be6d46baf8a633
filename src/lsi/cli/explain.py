"""``lsi explain``: which training samples made the answers to other rows."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.cli.inputs.options import EncoderOptions
from lsi.cli.mislabeled import SHOWN, check_list_file, records, write_table
from lsi.cli.next_step import dataset_of, shown, tell_next
from lsi.results.marks import EXPLANATION
from lsi.system.places import check_apart
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import pandas as pd

    from lsi.cli.trained import Trained
    from lsi.data import Samples

_ENCODER = EncoderOptions()


def explain(
    model: Path,
    queries: str,
    *,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 10,
    predicted: Annotated[bool, Parameter(negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    encoder: EncoderOptions = _ENCODER,
    memory: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Find the training samples that made a probe's answers to other rows.

    Args:
        model: Folder that `lsi fit` wrote, or scores, whose probe is then trained again on the same data.
        queries: The rows to explain: a file or folder like the dataset of the probe, with labels.
        k: How many samples to name for each row that spoke for its label, and how many against it.
        predicted: Explain the probe's own predictions, not the labels that are given.
        output: File to write: .csv, .json or .parquet. Never overwritten.
        encoder: How images, texts and recordings become features: as for the probe.
        memory: Memory that the run may use, as `4GiB`. Default: what the machine has available.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        InputError: If there is no trained probe, or the rows do not fit it.
    """
    from lsi.cli.inputs.places import path_of

    if output is not None:
        check_list_file(output)
        check_apart({"--output": output}, {"the trained probe": model, "the queries": path_of(queries)})
    from lsi.cli.inputs.queries import read_rows
    from lsi.cli.trained import trained

    probe = trained(model, encoder, memory, quiet=json)
    asked = read_rows(probe, queries, encoder, json)
    frame = _explained(probe, asked, k, predicted, json)
    if output is not None:
        write_table(frame, output, probe.marked(EXPLANATION))
    if json:
        print(json_module.dumps({"n_queries": len(asked), "rows": records(frame)}))
        return
    _show(frame)
    if output is not None:
        print(plain_text(f"Written: {output} ({len(frame):,} rows)", 400))
    _tell_after(probe, queries)


def _explained(probe: Trained, asked: Samples, k: int, predicted: bool, quiet: bool) -> pd.DataFrame:
    """Return the table of `lsi.Fitted.explain` with the queries' ids."""
    import pandas as pd

    from lsi.cli.inputs.queries import labels_of
    from lsi.cli.progress import progress_bar

    labels = None if predicted else labels_of(asked, "add --predicted to explain the probe's own predictions")
    rows = pd.DataFrame(asked.features, index=asked.ids)
    with progress_bar(quiet) as progress:
        return probe.fitted.explain(rows, labels, k=k, progress=progress)


def _tell_after(probe: Trained, queries: str) -> None:
    """Say which command usually comes next: to see these samples, or to doubt their labels."""
    dataset = dataset_of(probe.notes)
    if probe.from_scores:
        tell_next("report", probe.folder, "--validation", queries, "-o", "report.html")
    elif dataset is not None and probe.fitted.classes.size:
        from lsi.cli.next_step import column_words

        columns = (probe.notes.get("source") or {}).get("options") or {}
        tell_next("mislabeled", shown(dataset), *column_words(columns), "-o", "suspects.csv")


def _show(frame: pd.DataFrame) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table

    table = plain_table("Which training samples made the answers")
    for name in ("query", "rank", "sample"):
        table.add_column(name)
    # Of several targets each has its own change; the loss is that of all.
    figures = {"loss_change": "loss without it (nats)", "logit_change": "logit without it"}
    figures |= {"prediction_change": "prediction without it", "relative_error": "relative error"}
    figures = {column: name for column, name in figures.items() if column in frame}
    for name in figures.values():
        table.add_column(name, justify="right")
    for row in frame.head(SHOWN).to_dict("records"):
        cells = [
            plain_text(str(value), 40) for value in (row["query"], f"{row['rank']:+d}", row["sample_id"])
        ]
        told = [f"{row[name]:.1g}" if name == "relative_error" else f"{row[name]:+.3g}" for name in figures]
        table.add_row(*map(Text, cells), *told)
    out_console().print(table)
    print("Rank 1, 2, … spoke for the label: without them the loss rises. Rank −1, −2, … spoke against it.")
