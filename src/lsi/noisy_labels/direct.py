"""`lsi.find_label_errors`: which labels are wrong, from features and labels, without scoring anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from lsi.analysis.label_noise import LabelNoise as Estimate
from lsi.analysis.label_noise import count_interval, noise_frame
from lsi.errors import InputError
from lsi.noisy_labels.estimate import LabelNoise, estimate_label_noise
from lsi.noisy_labels.stage import check_label_noise_room
from lsi.system.device import exact_products
from lsi.system.machine import memory_explained
from lsi.system.text import parse_size
from lsi.validation.problem import Problem, check_problem


def find_label_errors(
    X: Any, y: Any, *, device: str | torch.device | None = None, memory: int | str | None = None
) -> Estimate:
    """Estimate which labels are wrong, and how many, from features and labels alone.

    This is the estimate that `lsi.score` makes beside the scores (`label_noise=True`): a linear head, its
    leave-one-out probabilities, and a noise layer, without settings. It takes seconds where scores take
    minutes. For out-of-sample probabilities of a model of your own there is `lsi.label_noise`.

    Args:
        X: `(N, D)` features: numpy, torch or pandas.
        y: `(N,)` labels of any hashable type.
        device: Torch device; None: the processor.
        memory: What the estimate may use, such as ``"4GiB"``; one that needs more is refused.

    Returns:
        The number of wrong labels with its interval, the noise matrix, and for each label the probability
        that it is wrong and the likeliest true one. `suspects(top=20)` gives positions, the most doubtful
        first.

    Raises:
        InputError: Data cannot be used, or the estimate does not fit into the memory.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> y[::20] = (y[::20] + 1) % 10  # 90 of 1,797 labels
        >>> found = find_label_errors(X, y)
        >>> 80 < found.n_wrong < 130, bool((found.suspects(top=50) % 20 == 0).all())
        (True, True)
    """
    problem = check_problem(X, y)
    return label_errors(problem, device or "cpu", parse_size(memory))[0]


@memory_explained()
def label_errors(
    problem: Problem, device: str | torch.device, memory: int | None = None
) -> tuple[Estimate, LabelNoise]:
    """Return the estimate with the problem's own labels, and as it was made."""
    if problem.n_classes < 2:
        raise InputError("label errors are found among classes, and these samples have none.")
    check_label_noise_room(problem.shape(), memory)
    with exact_products():
        found = estimate_label_noise(problem.features, problem.target, problem.n_classes, device)
    return named(found, problem.classes, np.arange(problem.n_samples)), found


def named(found: LabelNoise, classes: np.ndarray, where: np.ndarray) -> Estimate:
    """Return the estimate for the rows at `where`, with the labels themselves in place of their codes."""
    wrong, at_least, at_most = found.wrong_probability[where], found.at_least[where], found.at_most[where]
    interval = count_interval(wrong, at_least, at_most, float(found.least_share))
    labels = pd.Series(classes).infer_objects().to_numpy()
    suggested, matrix = labels[found.suggested[where]], noise_frame(found.noise_matrix, classes)
    return Estimate(float(wrong.sum()), interval, matrix, wrong, suggested, at_least, at_most)
