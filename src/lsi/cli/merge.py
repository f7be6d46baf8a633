"""``lsi merge``: the parts of a run, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lsi.cli.compute import check_places, write
from lsi.cli.inputs.options import OutputOptions


def merge(
    parts: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    report: Path | None = None,
    dataset: Annotated[str | None, Parameter(name=["--dataset", "-d"])] = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
) -> None:
    """Put the parts of a run together that `lsi compute --shard` scored, and show the result.

    Args:
        parts: Folders of all parts, in any order.
        output: Folder for the scores of the whole run.
        report: HTML page to write; it can be read without a network.
        dataset: The data that were scored, for pictures. Default: where the scores say they came from.
        overwrite: Replace scores that are already there, and a page that lsi did not write.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.

    Raises:
        InputError: If parts are missing, or do not belong together.
    """
    from lsi.cli.display import show_result
    from lsi.cli.inputs.places import path_of, source_of
    from lsi.cli.saved import find_samples
    from lsi.merging import merge as put_together
    from lsi.system.places import check_apart

    places = OutputOptions(output=output, report=report, overwrite=overwrite, json=json, quiet=quiet)
    named = {f"one of the parts ({k})": part for k, part in enumerate(parts, 1)}
    check_apart({"--output": output, "--report": report}, {**named, "--dataset": path_of(dataset)})
    check_places(places)
    scores = put_together(parts)
    check_apart({"--output": output, "--report": report}, {"the dataset": source_of(scores)})
    samples = None if report is None else find_samples(scores, dataset)
    written = write(scores, samples, places)
    if json or not quiet:
        show_result(scores, as_json=json, written=written)
