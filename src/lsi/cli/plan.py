"""``lsi plan``: how a run would work and what it would cost."""

from __future__ import annotations

import json as to_json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from lsi.cli.inputs.options import MachineOptions, MethodOptions
from lsi.cli.inputs.settings import build_method, use_machine, workers_of
from lsi.errors import InputError
from lsi.system.text import duration_text, parse_size, size_text

if TYPE_CHECKING:
    from lsi.methods import Newton, Retrain
    from lsi.planning.plan import Plan, Way

_METHOD, _MACHINE = MethodOptions(), MachineOptions()


def plan(
    dataset: str | None = None,
    /,
    *,
    n_samples: int | None = None,
    n_features: int | None = None,
    n_classes: int | None = None,
    n_scored: int | None = None,
    n_groups: int = 0,
    posterior: str = "diag",
    method: MethodOptions = _METHOD,
    machine: MachineOptions = _MACHINE,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show which solver a run would use, its time and memory, and the alternatives.

    Give a dataset that has features, or its size, such as
    `--n-samples 50000 --n-features 512 --n-classes 10`.

    Args:
        dataset: A name such as `digits`, or a file of features: .npz, .parquet, .csv, ….
        n_samples: Number of samples.
        n_features: Number of features.
        n_classes: Number of classes.
        n_scored: Number of samples to score. Default: all.
        n_groups: Number of groups (`lsi compute --group-column`) that are left out as well.
        posterior: `diag`, `kron` or `full`.
        method: How a model without a sample would be found.
        machine: What it would run on.
        json: Print one JSON object on stdout and nothing else there.

    Raises:
        InputError: If neither a dataset with features nor its size is given, or settings are out of range.
    """
    from lsi.planning.plan import make_plan

    settings = build_method(method)
    use_machine(machine)
    workers = workers_of(machine)
    given = (n_samples, n_features, n_classes)
    shape, separable = _measured(dataset, settings) if dataset is not None else (given, None)
    if None in shape or (dataset is not None and given != (None, None, None)):
        raise InputError(
            "Give either a dataset with features, or all of --n-samples, --n-features and --n-classes."
        )
    found = make_plan(
        *(int(size or 0) for size in shape),
        posterior=posterior,
        method=settings,
        n_scored=n_scored,
        n_groups=n_groups,
        memory=parse_size(machine.memory),
        workers=workers,
        separable=separable,
    )
    if json:
        print(to_json.dumps({**found.to_dict(), "workers": workers}))
    else:
        _show(found)
        if machine.ray is not None:
            print(f"{workers} worker{'s' if workers > 1 else ''} on the cluster.")


def _measured(dataset: str, method: Newton | Retrain) -> tuple[tuple[int, ...], bool | None]:
    """Return N, D and C of a dataset that has features already, and whether a probe separates its classes."""
    from lsi.data import load_samples
    from lsi.methods import Newton
    from lsi.probes.linear import LinearProbe
    from lsi.tasks.separable import separates
    from lsi.validation.problem import check_problem

    samples = load_samples(dataset)
    if samples.features is None or samples.labels is None:
        raise InputError(
            f"{dataset} has no features yet, and the cost depends on how many its encoder makes. "
            "Give --n-samples, --n-features and --n-classes."
        )
    problem = check_problem(samples.features, samples.labels, sample_id=samples.ids)
    known = separates(problem, LinearProbe()) if isinstance(method, Newton) else False
    return (problem.n_samples, problem.n_features, problem.n_classes), known


def _show(found: Plan) -> None:
    from lsi.planning.cost import NOTABLY

    table = Table(box=None, pad_edge=False)
    for heading in ("", "way", "time", "memory", ""):
        table.add_column(heading, justify="right" if heading in ("time", "memory") else "left")
    table.add_row("chosen", *_cells(found.chosen))
    for k, way in enumerate(found.alternatives):
        table.add_row("" if k else "instead", *_cells(way))
    console = Console(highlight=False)
    console.width = max(console.width, 100)
    console.print(table)
    if found.chosen.separable is not None and found.chosen.separable >= NOTABLY * found.chosen.seconds:
        console.print(f"{duration_text(found.chosen.separable)} if the probe separates the classes.")
    if found.memory is not None:
        console.print(f"{size_text(found.memory)} of memory may be used.")


def _cells(way: Way) -> tuple[Any, ...]:
    return way.name, duration_text(way.seconds), size_text(way.bytes), "" if way.fits else "does not fit"
