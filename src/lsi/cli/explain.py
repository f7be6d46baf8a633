"""``lsi explain``: which training samples made the answers to other rows."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.cli.inputs.options import DataOptions, EncoderOptions, MachineOptions, MethodOptions, ProbeOptions
from lsi.cli.mislabeled import SHOWN, check_list_file, records, write_table
from lsi.errors import InputError
from lsi.results.marks import EXPLANATION, Mark
from lsi.system.places import check_apart
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import pandas as pd

    from lsi.cli.job import Job
    from lsi.data import Samples
    from lsi.data.preparation.plan import TablePreparation

_PROBE, _METHOD, _MACHINE, _ENCODER = ProbeOptions(), MethodOptions(), MachineOptions(), EncoderOptions()


def explain(
    *,
    data: DataOptions,
    queries: Path,
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 10,
    predicted: Annotated[bool, Parameter(negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    encoder: EncoderOptions = _ENCODER,
    probe: ProbeOptions = _PROBE,
    method: MethodOptions = _METHOD,
    machine: MachineOptions = _MACHINE,
) -> None:
    """Find the training samples that made a probe's answers to other rows.

    Args:
        data: What the probe is trained on.
        queries: The rows to explain: a file or folder like the dataset, with labels.
        k: How many samples to name for each row that spoke for its label, and how many against it.
        predicted: Explain the probe's own predictions, not the labels that are given.
        output: File to write: .csv, .json or .parquet. Never overwritten.
        json: Print one JSON object on stdout and nothing else there.
        encoder: How images, texts and recordings become features.
        probe: What is trained.
        method: How a model without a sample is found.
        machine: What the computation runs on.

    Raises:
        InputError: If options do not fit each other or the data.
    """
    if data.standardise or data.pca is not None:
        raise InputError(
            "--standardise and --pca would change the queries by themselves. Change the dataset and the "
            "queries alike before, for example with sklearn.preprocessing.StandardScaler."
        )
    if output is not None:
        check_list_file(output)
        check_apart({"--output": output}, {"--queries": queries})
    from lsi.cli.inputs.options import CorruptionOptions
    from lsi.cli.job import prepare

    quiet = json
    job = prepare(data, encoder, CorruptionOptions(), probe, method, machine, quiet=quiet)
    asked = _encoded(data, queries, encoder, machine, quiet, job.samples.preparation)
    frame = _explained(job, asked, k, predicted, quiet)
    if output is not None:
        write_table(frame, output, Mark(EXPLANATION, dataset_fingerprint=job.read))
    if json:
        print(json_module.dumps({"n_queries": len(asked), "rows": records(frame)}))
        return
    _show(frame)
    if output is not None:
        print(plain_text(f"Written: {output} ({len(frame):,} rows)", 400))


def _encoded(
    data: DataOptions,
    queries: Path,
    encoder: EncoderOptions,
    machine: MachineOptions,
    quiet: bool,
    preparation: TablePreparation | None,
) -> Samples:
    """Return the queries with the features of the dataset's encoder, or prepared as its table was."""
    from lsi.cli.console import speaker
    from lsi.cli.inputs.settings import encoder_settings, source_options
    from lsi.cli.progress import progress_bar
    from lsi.data import load_samples
    from lsi.features import encode

    named = replace(data, dataset=str(queries))
    with progress_bar(quiet) as progress:
        options = source_options(named, encoder, progress)
        samples = load_samples(named.dataset, options, preparation=preparation)
        settings = encoder_settings(encoder, named, machine)
        return encode(samples, **settings, progress=progress, say=speaker(quiet)).samples


def _explained(job: Job, asked: Samples, k: int, predicted: bool, quiet: bool) -> pd.DataFrame:
    """Train the probe, and return the table of `lsi.Fitted.explain` with the queries' ids."""
    import pandas as pd

    from lsi import fit
    from lsi.cli.progress import progress_bar
    from lsi.data.targets import target_of

    names = ("probe", "posterior", "method", "prior_precision", "seed", "device", "memory")
    settings = {name: job.settings[name] for name in names}
    fitted = fit(job.samples.features, job.target, sample_id=job.samples.ids, **settings)
    rows = pd.DataFrame(asked.features, index=asked.ids)
    with progress_bar(quiet) as progress:
        return fitted.explain(rows, None if predicted else target_of(asked), k=k, progress=progress)


def _show(frame: pd.DataFrame) -> None:
    from rich.text import Text

    from lsi.cli.console import out_console, plain_table

    table = plain_table("Which training samples made the answers")
    for name in ("query", "rank", "sample"):
        table.add_column(name)
    for name in ("loss without it (nats)", "logit without it", "relative error"):
        table.add_column(name, justify="right")
    for row in frame.head(SHOWN).itertuples():
        cells = [plain_text(str(value), 40) for value in (row.query, f"{row.rank:+d}", row.sample_id)]
        figures = f"{row.loss_change:+.3g}", f"{row.logit_change:+.3g}", f"{row.relative_error:.1g}"
        table.add_row(*map(Text, cells), *figures)
    out_console().print(table)
    print("Rank 1, 2, … spoke for the label: without them the loss rises. Rank −1, −2, … spoke against it.")
