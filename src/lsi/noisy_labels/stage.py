"""Label noise as a stage of a run: when it is estimated, and what it adds to the table and the manifest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.label_noise import LabelNoise as Estimate
from lsi.analysis.label_noise import count_interval, noise_frame
from lsi.analysis.mislabeled import noise_entry
from lsi.errors import InputError
from lsi.execution.work import Arrays
from lsi.loo.result import LooResult
from lsi.noisy_labels.estimate import LabelNoise, estimate_label_noise
from lsi.planning.label_noise import needed_bytes, worthwhile
from lsi.run.context import Run
from lsi.system.text import size_text
from lsi.validation.problem import Shape


def check_label_noise(wanted: Any) -> None:
    """Refuse a `label_noise` other than True, False and None."""
    if wanted is not None and not isinstance(wanted, bool | np.bool_):
        raise InputError(f"label_noise must be True, False, or None (where it is quick), got {wanted!r}.")


def check_label_noise_room(shape: Shape, memory: int | None) -> None:
    """Refuse, before any work, an estimate that was asked for but exceeds the memory budget."""
    need = needed_bytes(shape)
    if memory is not None and need > memory:
        raise InputError(
            f"The estimate of label noise needs about {size_text(need)} for these data, but memory allows "
            f"{size_text(memory)}. Leave label_noise out, or raise memory."
        )


def add_label_noise(run: Run, result: LooResult, wanted: bool | None) -> None:
    """Estimate which labels are wrong, and add it to the result's columns and the manifest's notes."""
    problem = run.problem
    if wanted is False or (wanted is None and not worthwhile(problem.shape(), run.machine.memory)):
        return
    with run.clock("label noise"):
        found = _found_once(run)
    where = problem.subset
    labels = pd.Series(problem.classes).infer_objects().to_numpy()
    result.extra["wrong_probability"] = found.wrong_probability[where]
    result.extra["wrong_at_least"] = found.at_least[where]
    result.extra["wrong_at_most"] = found.at_most[where]
    result.extra["suggested_label"] = labels[found.suggested[where]]
    result.extra["flip_gain"] = found.flip_gain[where]
    run.notes["label_noise"] = describe(found, problem.classes, where)


def _found_once(run: Run) -> LabelNoise:
    """Return the estimate, made once however often the run is interrupted."""
    problem = run.problem

    def estimate() -> Arrays:
        return vars(estimate_label_noise(problem.features, problem.target, problem.n_classes, run.device))

    return LabelNoise(**run.work.once("label-noise", estimate))


def describe(found: LabelNoise, classes: np.ndarray, where: np.ndarray) -> dict[str, Any]:
    """Return the manifest's entry about the labels at the scored positions `where`, as JSON values."""
    wrong, at_least, at_most = found.wrong_probability[where], found.at_least[where], found.at_most[where]
    interval = count_interval(wrong, at_least, at_most, float(found.least_share))
    matrix = noise_frame(found.noise_matrix, classes)
    suggested = found.suggested[where]
    return noise_entry(Estimate(float(wrong.sum()), interval, matrix, wrong, suggested, at_least, at_most))
