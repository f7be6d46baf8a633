"""``lsi fit``: a probe trained and factorised once, in a folder that other commands ask questions of."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.cli.inputs.options import (
    CorruptionOptions,
    DataOptions,
    EncoderOptions,
    MachineOptions,
    MethodOptions,
    ProbeOptions,
)
from lsi.cli.inputs.places import inputs_of
from lsi.cli.trained import refuse_own_scale
from lsi.errors import InputError
from lsi.system.places import check_apart
from lsi.system.text import plain_text

if TYPE_CHECKING:
    from lsi.fitted.fitted import Fitted

_PROBE, _METHOD, _MACHINE = ProbeOptions(), MethodOptions(), MachineOptions()
_ENCODER, _CORRUPTION = EncoderOptions(), CorruptionOptions()


def fit(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    data: DataOptions,
    encoder: EncoderOptions = _ENCODER,
    corruption: CorruptionOptions = _CORRUPTION,
    probe: ProbeOptions = _PROBE,
    method: MethodOptions = _METHOD,
    machine: MachineOptions = _MACHINE,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
) -> None:
    """Train a probe once and keep it, for questions about groups, predictions and new data.

    Args:
        output: Folder for the trained probe: features, labels, weights, the inverse of its curvature.
        data: What it is trained on.
        encoder: How images, texts and recordings become features.
        corruption: What is changed on purpose.
        probe: What is trained.
        method: Tolerance of every answer.
        machine: What the computation runs on.
        overwrite: Replace a trained probe that is already there.
        json: Print one JSON object on stdout and nothing else there.
        quiet: Print errors only.

    Raises:
        InputError: If options do not fit each other or the data.
    """
    _refuse_idle(data, method, machine)
    check_apart({"--output": output}, inputs_of(data, encoder, corruption))
    from lsi.cli.inputs.recall import asked
    from lsi.cli.job import prepare
    from lsi.cli.next_step import tell_next
    from lsi.cli.trained import train
    from lsi.fitted.storage import check_output

    check_output(output, overwrite)
    job = prepare(data, encoder, corruption, probe, method, machine, quiet=quiet or json)
    job.extra["command"] = asked(data, encoder, corruption, probe, method, machine)
    fitted = train(job)
    place = fitted.save(output, overwrite=overwrite)
    if json:
        print(to_json.dumps(_summary(fitted, place)))
    elif not quiet:
        print(plain_text(_text(_summary(fitted, place)), 2000))
        tell_next("explain", output, "NEW-ROWS-WITH-LABELS")
        tell_next("candidates", output, "NEW-ROWS", then="Or")


def _refuse_idle(data: DataOptions, method: MethodOptions, machine: MachineOptions) -> None:
    """Refuse options that would do nothing here."""
    given = {
        "--subset, --range1, --range2": (data.subset, data.range1, data.range2),
        "--audit, --label-noise": (method.audit, method.label_noise),
        "--ray": (machine.ray,),
    }
    for flags, values in given.items():
        if any(value is not None for value in values):
            raise InputError(f"{flags}: for scoring, and `lsi fit` scores nothing. Leave it out.")
    refuse_own_scale(data)


def _summary(fitted: Fitted, place: Path) -> dict[str, object]:
    problem = fitted.run.problem
    return {
        "output": str(place),
        "n_samples": problem.n_samples,
        "n_features": problem.n_features,
        "n_classes": problem.n_classes,
        "seconds": sum(fitted.run.clock.seconds.values()),
    }


def _text(told: dict[str, object]) -> str:
    sizes = f"{told['n_samples']:,} samples, {told['n_features']:,} features"
    return f"Trained on {sizes} in {told['seconds']:.1f} s: {told['output']}"
