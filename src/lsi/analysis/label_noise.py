"""`lsi.label_noise`: how many and which labels are wrong, from out-of-sample probabilities alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lsi.analysis.noise_layer import joint_counts
from lsi.analysis.noise_model import BLOCK_CELLS, count_high, count_low, fit_model
from lsi.errors import InputError
from lsi.validation.labels import as_vector, check_labels, to_array

NOT_ONE = 0.01  # how far a row's sum may be from one: float16 rounds that much with hundreds of classes
WIDE = 3.0  # an interval whose ends differ by more than this factor is called wide


@dataclass(frozen=True, eq=False)
class LabelNoise:
    """How many labels are wrong, which, and in which way.

    Attributes:
        n_wrong: Expected number of wrong labels.
        interval: Lower and upper end for that number. The lower end is for noise that never follows
            ambiguity, and zero where the data do not show noise; the upper end is for features that
            determine the class.
        noise_matrix: Probability of each given label (columns) for each true class (rows); empty
            where there are no classes.
        wrong_probability: `(N,)`, probability that each label is wrong.
        suggested: `(N,)`, likeliest true labels, which may be the given ones.
        at_least: `(N,)`, the lower end of `wrong_probability`.
        at_most: `(N,)`, the upper end.
        each: Where a sample has several labels, the same for each of them, present (1) or absent (0), by
            its name; `wrong_probability` is then that any of them is wrong.
        task: What a sample has: a class, a target (``"regression"``) or several labels (``"multilabel"``).
    """

    n_wrong: float
    interval: tuple[float, float]
    noise_matrix: pd.DataFrame
    wrong_probability: np.ndarray
    suggested: np.ndarray
    at_least: np.ndarray
    at_most: np.ndarray
    each: dict[str, LabelNoise] = field(default_factory=dict)
    task: str = "classification"

    def suspects(self, *, fdr: float | None = None, top: int | None = None) -> np.ndarray:
        """Return positions of labels, the most doubtful first.

        Args:
            fdr: The longest list of which at most this expected share is right after all, by the lower end
                of the probabilities; empty where the data do not show noise. None: all.
            top: Return this many at most.

        Returns:
            `(n,)` positions.

        Raises:
            InputError: `fdr` outside [0, 1], or a `top` that is not a positive integer.
        """
        check_limits(fdr, top)
        order = doubtful_order(self.wrong_probability, self.at_least, fdr)
        return order if top is None else order[: int(top)]

    def wrong_in_top(self, n: int) -> float:
        """Return how many of the most doubtful labels are expected to be wrong.

        Args:
            n: How many labels, the most doubtful first.

        Returns:
            The sum of their probabilities.

        Raises:
            InputError: `n` is not a positive integer.
        """
        return float(self.wrong_probability[self.suspects(top=n)].sum())

    def interval_in_top(self, n: int) -> tuple[float, float]:
        """Return lower and upper end for the number of wrong labels among the most doubtful ones.

        Args:
            n: How many labels, the most doubtful first.

        Returns:
            Lower and upper end, as in `interval`.

        Raises:
            InputError: `n` is not a positive integer.
        """
        rows = self.suspects(top=n)
        return count_interval(self.wrong_probability[rows], self.at_least[rows], self.at_most[rows])

    def __str__(self) -> str:
        n = min(len(self.wrong_probability), max(10, round(self.n_wrong)))
        count = count_in_words(self.n_wrong, len(self.wrong_probability), self.interval, self.task)
        text = f"{count}; about {self.wrong_in_top(n):,.0f} of the top {n:,}."
        return f"{text} {identified(*self.interval, self.task)}".rstrip()


# What is counted, what that is short for, and what looks the same.
WORDS = {
    "classification": ("labels are estimated to be wrong", "wrong labels", "classes that overlap"),
    "regression": ("targets are estimated to be wrong", "wrong targets", "right ones far from the rest"),
    "multilabel": (
        "samples are estimated to have a wrong label", "wrong labels", "labels that the features leave open"
    ),
}  # fmt: skip


def count_in_words(n_wrong: float, n: int, interval: Sequence[float], task: str = "classification") -> str:
    """Say how many of n are estimated to be wrong, with the ends; no full stop."""
    low, high = interval
    return f"About {n_wrong:,.0f} of {n:,} {WORDS[task][0]} (between {low:,.0f} and {high:,.0f})"


def identified(low: float, high: float, task: str = "classification") -> str:
    """Say how well the data tell what is wrong from what looks the same; nothing where they do."""
    _, wrong, alike = WORDS[task]
    if low <= 0 and high >= 1:
        return f"There may be none: {alike} would look the same here."
    if high > WIDE * low:
        return f"The range is wide because {wrong} and {alike} look alike here."
    return ""


def label_noise(pred_probs: Any, y: Any, *, classes: Any = None) -> LabelNoise:
    r"""Estimate which labels are wrong from out-of-sample probabilities, of any model.

    .. math:: P(y \mid x) = \sum_z p(z \mid x)\, T_{zy},\qquad p = \mathrm{softmax}(B \log\hat p + b)

    with the noise matrix T, B and b of greatest likelihood. There are no settings. The probabilities must
    come from models that did not see the sample: from cross-validation, or an earlier model. In-sample
    probabilities hide wrong labels.

    Args:
        pred_probs: `(N, C)` predicted probabilities, one column for each class; rows sum to one. A
            memory-mapped array is read in blocks.
        y: `(N,)` given labels: numbers or words.
        classes: `(C,)` labels of the columns. None: the labels in y, sorted; where y lacks some of the C
            classes, its labels must be the column numbers 0 … C−1.

    Returns:
        The number of wrong labels with its interval, the noise matrix, and for each label the probability
        that it is wrong and the likeliest true one.

    Raises:
        InputError: Shapes or labels do not fit, or rows are no probabilities.

    Examples:
        >>> import numpy as np
        >>> z = np.arange(3000) % 3
        >>> y = np.where(np.arange(3000) % 10 == 0, (z + 1) % 3, z)  # one label in ten is wrong
        >>> logits = 5 * np.eye(3)[z] + 2 * np.random.default_rng(0).standard_normal((3000, 3))
        >>> found = label_noise(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), y)
        >>> 270 < found.n_wrong < 330, bool(found.suggested[0] == z[0])
        (True, True)
    """
    p = as_probabilities(pred_probs)
    codes, names = codes_and_names(y, p.shape, classes)
    check_probabilities(p)
    model = fit_model(p, codes) if p.shape[1] > 1 else None
    if model is None:
        n = len(codes)
        zero, one = np.zeros(n), pd.DataFrame([[1.0]], index=names, columns=names)
        return LabelNoise(0.0, (0.0, 0.0), one, zero, names[codes], zero, zero)
    n, c = p.shape
    wrong, at_least, at_most = np.empty(n), np.empty(n), np.empty(n)
    suggested, counts = np.empty(n, dtype=np.int64), np.zeros((c, c))
    for rows, part in _blocks(p):
        found = model.rows(part, codes[rows])
        wrong[rows], at_least[rows], at_most[rows] = found.wrong, found.at_least, found.at_most
        suggested[rows] = found.q.argmax(1)
        counts += joint_counts(found.q, codes[rows])
    total = counts.sum(1, keepdims=True)
    matrix = np.where(total > 0, counts / np.maximum(total, 1e-300), np.eye(c))
    interval = count_interval(wrong, at_least, at_most, model.least_share)
    frame = noise_frame(matrix, names)
    return LabelNoise(float(wrong.sum()), interval, frame, wrong, names[suggested], at_least, at_most)


def count_interval(
    wrong: np.ndarray, at_least: np.ndarray, at_most: np.ndarray, least_share: float = 1.0
) -> tuple[float, float]:
    """Return lower and upper end for the number of wrong labels among rows, each `(n,)`."""
    low = count_low(at_least, at_most, least_share) if at_least.any() else 0.0
    expected = float(wrong.sum())
    return float(min(low, expected)), float(max(count_high(at_most), expected))


def noise_frame(matrix: Any, classes: Any) -> pd.DataFrame:
    """Return a noise matrix `(C, C)` with the classes as its names."""
    # As objects: a name from a file system need not be text that can be written.
    names = pd.Index(classes, dtype=object)
    return pd.DataFrame(matrix, index=names, columns=names).rename_axis(index="true", columns="given")


def doubtful_order(wrong: np.ndarray, at_least: np.ndarray, fdr: float | None) -> np.ndarray:
    """Return positions, the most doubtful first; with `fdr` only the longest list that keeps it.

    Shapes: wrong and at_least `(n,)`.
    """
    order = np.argsort(-wrong, kind="stable")
    if fdr is None:
        return order
    order = order[np.argsort(-at_least[order], kind="stable")]
    return order[: longest_list(at_least[order], fdr)]


def longest_list(wrong: np.ndarray, fdr: float) -> int:
    """Return the length of the longest list whose mean of `1 − wrong` is at most `fdr`; `wrong` descends."""
    right = np.cumsum(1.0 - wrong) / np.arange(1, len(wrong) + 1)
    return int(np.searchsorted(right, fdr + 1e-12, side="right"))


def check_limits(fdr: Any, top: Any) -> None:
    """Refuse an `fdr` outside [0, 1] and a `top` that is not a positive integer."""
    number = isinstance(fdr, int | float | np.number) and not isinstance(fdr, bool)
    if fdr is not None and not (number and 0 <= fdr <= 1):
        raise InputError(
            f"fdr must be between 0 and 1, got {fdr!r}. 0.1: one in ten of the list may be right."
        )
    if top is not None and (isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1):
        raise InputError(f"top must be a positive integer, got {top!r}. Pass how many samples to return.")


def as_probabilities(pred_probs: Any) -> np.ndarray:
    """Return probabilities as an array of numbers `(N, C)`; their values are not looked at."""
    p = to_array(pred_probs, "pred_probs", "Pass one row of probabilities for each sample.")
    if p.ndim != 2 or p.dtype.kind not in "fiub" or not p.size:
        raise InputError(
            f"pred_probs must be numbers of shape (samples, classes), got {p.dtype} of shape {p.shape}."
        )
    return p


def codes_and_names(y: Any, shape: tuple[int, ...], classes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return class codes `(N,)` and the names of the columns `(C,)`."""
    n, c = shape
    codes, found = check_labels(y)
    if len(codes) != n:
        raise InputError(f"pred_probs has {n:,} rows and y {len(codes):,} labels. Pass one row a label.")
    if classes is not None:
        names = as_vector(classes, "classes")
        place = {name: k for k, name in enumerate(names.tolist())}
        unknown = [name for name in found.tolist() if name not in place]
        if len(place) != c or unknown:
            why = f"{unknown[0]!r} in y is none of them" if unknown else f"{len(place)} differ"
            raise InputError(f"classes must name the {c} columns of pred_probs once each, but {why}.")
        return np.array([place[name] for name in found.tolist()])[codes], names
    if len(found) == c:
        return codes, pd.Series(found).infer_objects().to_numpy()
    numbers = pd.to_numeric(pd.Series(found), errors="coerce").to_numpy(dtype=np.float64)
    if len(found) < c and np.isin(numbers, np.arange(c)).all():
        return numbers.astype(np.int64)[codes], np.arange(c)
    raise InputError(
        f"pred_probs has {c} columns, but y has {len(found)} different labels. Pass classes=, the label of "
        "each column in order."
    )


def _blocks(p: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    size = max(1, BLOCK_CELLS // p.shape[1])
    for start in range(0, len(p), size):
        rows = slice(start, start + size)
        yield rows, np.asarray(p[rows], dtype=np.float64)


def check_probabilities(p: np.ndarray) -> None:
    """Refuse rows that are no probabilities. Shapes: p `(N, C)`."""
    for _, part in _blocks(p):
        _check_rows(part)


def _check_rows(p: np.ndarray) -> None:
    if not np.isfinite(p).all():
        raise InputError("pred_probs has entries that are not finite. Drop these rows, of y as well.")
    if p.min() < -NOT_ONE or np.abs(p.sum(1) - 1.0).max() > NOT_ONE:
        raise InputError(
            "each row of pred_probs must be probabilities that sum to one. Logits become probabilities by "
            "scipy.special.softmax(logits, axis=1)."
        )
