"""What a run learns to predict: classes, numbers, or several labels a sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lsi.data.samples import Samples
from lsi.errors import InputError
from lsi.validation.targets import check_indicators, has_label_lists

CLASSES = ("classification", "binary")
"""Tasks whose target is a class."""


def choose_task(asked: str | None, samples: Samples) -> str:
    """Return the task that was asked for, else the one that the data suggest.

    The data suggest one where the source knows it (the target of `diabetes` is a number), where several
    columns of labels were named (zeros and ones: several labels; other numbers: a regression), and where
    labels are lists. Otherwise labels are classes; `lsi.score` refuses numbers with fractions as such. Labels
    of a table that are all different are ids rather than classes, and refused.
    """
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
    task = task or ("multilabel" if has_label_lists(samples.labels) else "classification")
    if task in CLASSES and samples.label_doubt is not None:
        raise InputError(samples.label_doubt)
    return task


def with_targets(samples: Samples, task: str) -> Samples:
    """Return the samples with lists of labels turned into `targets` of zeros and ones."""
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
    """Return what is to be learnt: `(N,)` labels or numbers, or `(N, T)` of several."""
    return samples.labels if samples.targets is None else samples.targets


def first_answers(answers: pd.DataFrame) -> np.ndarray:
    """Return the first label that any annotator gave, `(N,)`; None where nobody did."""
    given = answers.notna().to_numpy()
    values, first = answers.to_numpy(dtype=object), given.argmax(1)
    out = np.full(len(values), None, dtype=object)
    out[given.any(1)] = values[np.arange(len(values)), first][given.any(1)]
    return out


def named(values: np.ndarray | None, names: tuple[str, ...] | None) -> Any:
    """Return `(N, k)` targets or features as a table with their names; what has none, as it is."""
    return pd.DataFrame(values, columns=list(names), copy=False) if names else values
