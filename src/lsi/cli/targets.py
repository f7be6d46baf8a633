"""What the target of a run is (classes, numbers, several labels a sample) and the probe that goes with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lsi.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from lsi.cli.options import CorruptionOptions, ProbeOptions
    from lsi.data import Corruption, Samples

CLASSES = ("classification", "binary")
"""Tasks whose target is a class."""


def choose_task(asked: str | None, samples: Samples) -> str:
    """Return the task: the one asked for, else what the data say.

    Data say so where the source knows (the target of diabetes is a number), where several columns of labels
    were named (zeros and ones: several labels; other numbers: a regression), and where labels are lists. Else
    labels are classes; numbers with fractions are then refused with a hint to ``--task regression``.

    Args:
        asked: ``--task``.
        samples: The data.

    Returns:
        ``classification``, ``binary``, ``multilabel`` or ``regression``.

    Raises:
        InputError: Several columns of labels for a task of classes.
    """
    import numpy as np

    from lsi.problem_targets import has_label_lists

    task = asked or samples.task
    if samples.targets is not None:
        if task is None:
            two = bool(np.isin(samples.targets, (0, 1)).all())
            return "multilabel" if two else "regression"
        if task in CLASSES:
            raise InputError(
                f"several columns of labels are not a {task}. Use --task multilabel or --task regression, or "
                "name one --label-column."
            )
    return task or ("multilabel" if has_label_lists(samples.labels) else "classification")


def build_probe(options: ProbeOptions, task: str) -> Any:
    """Return the probe for a task.

    Args:
        options: What was given.
        task: As `choose_task` returns.

    Returns:
        `lsi.LinearProbe`, `lsi.MLPProbe`, `lsi.RidgeProbe` or `lsi.SigmoidProbe` with these settings.

    Raises:
        InputError: If a setting belongs to another task.
    """
    from lsi import LinearProbe, RidgeProbe, SigmoidProbe

    decay, intercept = options.weight_decay, options.intercept
    network = build_network(options, task)
    if network is not None:
        return network
    if task == "regression":
        noise = 1.0 if options.noise_precision is None else options.noise_precision
        return RidgeProbe(decay, intercept, noise)
    if options.noise_precision is not None:
        raise InputError("--noise-precision is for --task regression. Drop it.")
    return LinearProbe(decay, intercept) if task == "classification" else SigmoidProbe(decay, intercept)


def build_network(options: ProbeOptions, task: str) -> Any:
    """Return the network that the options mean; None: a probe without hidden layers.

    Args:
        options: What was given; a setting of networks alone chooses one.
        task: As `choose_task` returns.

    Returns:
        `lsi.MLPProbe`, or None.

    Raises:
        InputError: If a network cannot do the task, or settings of one are given for another probe.
    """
    settings = {"activation": options.activation, "posterior_layers": options.posterior_layers}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if options.hidden:
        given["hidden"] = options.hidden
    if options.probe == "linear" and given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{flags}: for --probe mlp, not linear. Drop it.")
    if options.probe != "mlp" and not given:
        return None
    if task != "classification":
        raise InputError(f"--probe mlp is for --task classification, not {task}. Use --probe linear.")
    from lsi import MLPProbe

    return MLPProbe(weight_decay=options.weight_decay, fit_intercept=options.intercept, **given)


def with_targets(samples: Samples, task: str) -> Samples:
    """Return samples whose lists of labels stand in `targets` as zeros and ones.

    Args:
        samples: The data.
        task: As `choose_task` returns.

    Returns:
        The same samples; those of other tasks are left alone.

    Raises:
        InputError: If labels are neither lists nor columns, and several are asked for.
    """
    import numpy as np

    from lsi.problem_targets import check_indicators, has_label_lists

    if task != "multilabel" or samples.targets is not None:
        return samples
    lists = list(samples.labels)
    if not has_label_lists(lists):
        raise InputError(
            "--task multilabel needs several labels a sample: name columns of zeros and ones with "
            "--label-columns, or a column of lists with --label-column."
        )
    targets, names = check_indicators(lists)
    texts = np.array([", ".join(map(str, labels)) for labels in lists], dtype=object)
    return replace(samples, labels=texts, targets=targets, target_names=names)


def target_of(samples: Samples) -> np.ndarray:
    """Return what is to be learnt: `(N,)` labels or numbers, or `(N, T)` of several.

    Args:
        samples: The data.

    Returns:
        The targets where there are several, else the labels.
    """
    return samples.labels if samples.targets is None else samples.targets


def named(target: np.ndarray, names: tuple[str, ...]) -> Any:
    """Return several targets with their names, one as it is."""
    if not names:
        return target
    import pandas as pd

    return pd.DataFrame(target, columns=list(names))


def as_column(target: np.ndarray, task: str, names: tuple[str, ...]) -> np.ndarray:
    """Return targets as one column of a table.

    Args:
        target: ``(N,)`` or ``(N, T)`` targets.
        task: As a manifest says.
        names: Of several labels.

    Returns:
        ``(N,)``: one target as it is, several as text.
    """
    from lsi.data.samples import row_texts
    from lsi.tasks.labels import label_texts

    if target.ndim == 1:
        return target
    return label_texts(target, names) if task == "multilabel" else row_texts(target)


def corrupt(samples: Samples, options: CorruptionOptions, task: str, seed: int) -> Corruption | None:
    """Change targets that are no classes, as asked.

    Args:
        samples: The data.
        options: What is changed.
        task: ``regression`` or ``multilabel``.
        seed: Seed of the draw.

    Returns:
        The truth about the targets, or None where nothing was changed.

    Raises:
        InputError: If a way to change classes was asked for.
    """
    from lsi.data.target_noise import corrupt_targets

    refused = {
        "--transition": options.transition is not None,
        "--human-label-noise": options.human_label_noise is not None,
        "--corrupt-kind": options.corrupt_kind != "symmetric",
        "--corrupt-data": bool(options.corrupt_data),
    }
    flags = ", ".join(flag for flag, given in refused.items() if given)
    if flags:
        raise InputError(f"{flags}: for classes, and this is a {task}. Use --corrupt-label alone.")
    if options.corrupt_label is None:
        return None
    return corrupt_targets(target_of(samples), options.corrupt_label, seed, task)
