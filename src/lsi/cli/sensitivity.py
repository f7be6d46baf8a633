"""``lsi sensitivity``: how much the ranks of samples depend on settings that were chosen by hand."""

from __future__ import annotations

import dataclasses
import json as to_json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.errors import InputError, OutputError
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import numpy as np

    from lsi.cli.job import Job
    from lsi.studies.sensitivity import Sensitivity

_PROBE, _METHOD, _MACHINE = ProbeOptions(), MethodOptions(), MachineOptions()
_ENCODER, _CORRUPTION = EncoderOptions(), CorruptionOptions()
Numbers = Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
Names = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]


def sensitivity(
    *,
    data: DataOptions,
    encoder: EncoderOptions = _ENCODER,
    corruption: CorruptionOptions = _CORRUPTION,
    probe: ProbeOptions = _PROBE,
    method: MethodOptions = _METHOD,
    machine: MachineOptions = _MACHINE,
    prior_precisions: Numbers = (),
    weight_decays: Numbers = (),
    encoders: Names = (),
    features: Names = (),
    threshold: float = 0.2,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    rows: Annotated[int, Parameter(name=["--rows", "-n"])] = 10,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
) -> None:
    """Show which samples' ranks change with the prior, the weight decay or the features.

    Without further options, prior precision and weight decay are each tried at a tenth of their value and at
    ten times their value.

    Args:
        data: What is scored.
        encoder: How images, texts and recordings become features.
        corruption: What is changed on purpose.
        probe: What is trained.
        method: How a model without a sample is found.
        machine: What the computation runs on.
        prior_precisions: Other prior precisions to try.
        weight_decays: Other weight decays to try.
        encoders: Other encoders of the same raw items to try.
        features: Other datasets that hold the same samples with other features: same ids, in any order.
        threshold: A sample counts as unstable if it moves by more than this share of the ranking.
        output: CSV file to write, with one row for each sample.
        overwrite: Replace that file if it is there.
        rows: Number of samples shown.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.

    Raises:
        InputError: If data or settings cannot be used.
        OutputError: If the file is already there.
    """
    from lsi.cli.inputs.places import inputs_of, path_of
    from lsi.cli.job import prepare
    from lsi.cli.progress import progress_bar
    from lsi.decisions.guarded import guarded_csv
    from lsi.results.marks import SENSITIVITY, Mark
    from lsi.run.manifest import fingerprint
    from lsi.studies.sensitivity import sensitivity as measure
    from lsi.system.files import replace_file
    from lsi.system.places import check_apart

    named = {"features": features, "encoders": encoders}
    others_read = {f"--{what} {name}": path_of(name) for what, names in named.items() for name in names}
    check_apart({"--output": output}, {**inputs_of(data, encoder, corruption), **others_read})
    if output is not None and output.exists() and not overwrite:
        raise OutputError(f"{output} is already there. Name another file, or replace it with --overwrite.")
    again = partial(prepare, corruption=corruption, probe=probe, method=method, machine=machine, quiet=quiet)
    job = again(data, encoder)
    others = {
        name: _aligned(job, again(data, dataclasses.replace(encoder, encoder=name)), name)
        for name in encoders
    }
    for name in features:
        others[name] = _aligned(job, again(dataclasses.replace(data, dataset=name), encoder), name)
    chosen = bool(prior_precisions or weight_decays or others)
    with progress_bar(quiet) as progress:
        found = measure(
            job.samples.features,
            job.target,
            sample_id=job.samples.ids,
            prior_precisions=prior_precisions if chosen else None,
            weight_decays=weight_decays if chosen else None,
            features=others,
            threshold=threshold,
            progress=progress,
            **job.settings,
        )
    if output is not None:
        mark = Mark(SENSITIVITY, fingerprint=fingerprint(job.problem), dataset_fingerprint=job.read)
        replace_file(output, guarded_csv(found.samples, mark), "the table")
    if json:
        print(to_json.dumps(found.to_dict(rows)))
    elif not quiet:
        _show(found, rows, output)


def _aligned(job: Job, other: Job, name: str) -> np.ndarray:
    """Return the features of another job in the order of the first."""
    import numpy as np

    place = {str(sample_id): row for row, sample_id in enumerate(other.samples.ids)}
    missing = [str(sample_id) for sample_id in job.samples.ids if str(sample_id) not in place]
    if missing:
        raise InputError(
            f"{name} lacks {len(missing):,} of the samples (first: {missing[0]!r}). Give the same ids, with "
            "--id-column where there are any."
        )
    order = np.array([place[str(sample_id)] for sample_id in job.samples.ids])
    return np.asarray(other.samples.features)[order]


def _show(found: Sensitivity, rows: int, output: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from lsi.cli.console import out_console
    from lsi.report.format import number

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for place, column in enumerate(columns):
            made.add_column(
                column, justify="left" if place < 2 else "right", overflow="ellipsis", max_width=40
            )
        return made

    console = out_console(100)
    runs = table("Other settings", "setting", "value", "rank correlation", "highest tenth stays", "LSI ratio")
    for row in found.runs.to_dict("records"):
        figures: list[Any] = [
            number(row["spearman"]),
            f"{row['top_overlap']:.0%}",
            number(row["median_ratio"]),
        ]
        runs.add_row(Text(row["setting"]), Text(plain_text(row["value"])), *figures)
    samples = table("Least stable samples", "sample", "label", "LSI (nats)", "from", "to", "cause")
    for row in found.samples.head(rows).to_dict("records"):
        samples.add_row(
            Text(plain_text(row["sample_id"])),
            Text(plain_text(row["label"])),
            number(row["lsi"]),
            f"{row['lowest']:.0%}",
            f"{row['highest']:.0%}",
            Text(plain_text(row["cause"])),
        )
    console.print(runs)
    console.print()
    console.print(samples)
    console.print(Text(f"\n{found.summary()}"))
    if output is not None:
        console.print(Text(plain_text(f"Samples: {output}", 400)))
