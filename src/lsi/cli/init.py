"""``lsi init``: a file of options, commented, or that of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from lsi.errors import InputError
from lsi.system.text import plain_text


def init(
    dataset: str | None = None,
    *,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("lsi.toml"),
) -> None:
    """Write a file of all options of `lsi compute`, explained, which `lsi compute` then reads.

    Args:
        dataset: What is scored, as `lsi compute --dataset` takes it. Default: left open.
        from_: Folder of scores: set every option as it was in that run.
        output: File to write. Never overwritten.

    Raises:
        InputError: If the scores do not say how they were made.
    """
    from lsi.cli.compute import compute
    from lsi.cli.inputs.options_file import NAME, arguments_of, checked, text_of
    from lsi.cli.next_step import tell_next
    from lsi.system.files import check_new, new_file
    from lsi.system.places import check_apart

    check_apart({"--output": output}, {"the scores": from_})
    check_new(output)
    app = App(default_command=compute)
    options = {} if from_ is None else checked(from_, options_of_run(from_), arguments_of(app))
    if dataset is not None:
        options["dataset"] = dataset
    text = text_of(app, options)
    with new_file(output) as staging:
        staging.write_text(text, encoding="utf-8")
    print(plain_text(f"Options: {output}", 400))
    words = [] if output == Path(NAME) else ["--config", output]
    tell_next("compute", *words, *(() if "dataset" in options else ("--dataset", "DATASET")), "-o", "scores")


def options_of_run(folder: Path) -> dict[str, object]:
    """Return the options that a run was started with."""
    from lsi.scores import load

    command = load(folder).manifest.get("command")
    if not isinstance(command, dict):
        raise InputError(
            f"the scores in {str(folder)!r} were made in Python, or by an older lsi: they do not hold the "
            "options of a command. Write a file without --from, and set what you need."
        )
    return dict(command)
