"""`lsi.consensus`: the true labels behind the labels of several annotators, and who of them to trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import beta

from lsi.analysis.annotators import Fit, Votes, fit_crowd
from lsi.analysis.label_noise import as_probabilities, check_limits, noise_frame
from lsi.errors import InputError
from lsi.noisy_labels.answers import Answers, check_answers
from lsi.noisy_labels.estimate import FIT_STEPS, best_view, ridge, scaled
from lsi.noisy_labels.soft_probe import SoftProbe
from lsi.validation.features import as_matrix, check_finite, to_float

REFITS = 1  # of the head, to the posterior of the true labels; a second changed nothing
ASKED = 50  # annotators among whom the one to ask next is looked for
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Consensus:
    """The true labels of samples that several annotators have labelled.

    Attributes:
        label: `(N,)`, likeliest true labels.
        probability: `(N,)`, probability of each to be right.
        probabilities: `(N, C)`, probability of every class.
        classes: `(C,)`, classes of the columns of `probabilities`.
        majority: `(N,)`, the label that most annotators gave, the first class of several; None without any.
        annotators: One row an annotator: `n_labels`; `quality`, the share of right labels to be expected of
            her, with the 95 % interval `low` to `high`; `agreement`, the share of her labels that are the
            consensus (None without labels).
        noise_matrix: Probability of each given label (columns) for each true class (rows), of a typical
            annotator.
        shared_errors: The same for errors that all annotators make together, as far as the model's
            predictions show them; None where they do not.
    """

    label: np.ndarray
    probability: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    majority: np.ndarray
    annotators: pd.DataFrame
    noise_matrix: pd.DataFrame
    shared_errors: pd.DataFrame | None
    _votes: Votes
    _fit: Fit

    @property
    def n_right(self) -> float:
        """Expected number of right consensus labels."""
        return float(self.probability.sum())

    def matrix_of(self, annotator: Any) -> pd.DataFrame:
        """Return the noise matrix of one annotator.

        Args:
            annotator: Name of a row of `annotators`.

        Returns:
            Probability of each given label (columns) for each true class (rows).

        Raises:
            InputError: There is no such annotator.
        """
        if annotator not in self.annotators.index:
            raise InputError(f"there is no annotator {annotator!r}. They are the rows of `annotators`.")
        where = np.array([self.annotators.index.get_loc(annotator)])
        return noise_frame(self._fit.crowd.matrices(self._votes, where)[0], self.classes)

    def ask(self, top: int = 20) -> pd.DataFrame:
        r"""Return which samples to have labelled once more, and by whom, the most worthwhile first.

        One more label of annotator a is worth what it is expected to tell about the class w as which the
        annotators see the sample, the true one but for errors that all share:

        .. math:: I_{ia} = H\Bigl(\sum_w q_i(w)\, T^a_w\Bigr) - \sum_w q_i(w)\, H(T^a_w)

        Samples are chosen by a typical annotator, then the best of those who have not labelled it.

        Args:
            top: How many samples.

        Returns:
            One row a sample: `position`, `annotator` (None where everybody has labelled it: ask
            somebody new), `information` (nats), `label` and `probability` of the consensus so far.

        Raises:
            InputError: `top` is not a positive integer.
        """
        check_limits(None, top)
        typical = _information(self._fit.seen, self._fit.crowd.matrix)
        rows = np.argsort(-typical, kind="stable")[: int(top)]
        whom, worth = self._best_annotators(rows)
        names = np.array([*self.annotators.index, None], dtype=object)
        frame = pd.DataFrame(
            {
                "position": rows,
                "annotator": pd.Series(names[whom], dtype=object),
                "information": np.where(whom < 0, typical[rows], worth),
                "label": self.label[rows],
                "probability": self.probability[rows],
            }
        )
        return frame.sort_values("information", ascending=False, kind="stable", ignore_index=True)

    def _best_annotators(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return who tells most about each sample, −1 where nobody is left, and how much, `(n,)` each."""
        votes, crowd = self._votes, self._fit.crowd
        able = np.argsort(-crowd.accuracy, kind="stable")[:ASKED]
        whom, worth = np.full(len(rows), -1), np.full(len(rows), -np.inf)
        given = votes.pairs[rows]
        for a, matrix in zip(able.tolist(), crowd.matrices(votes, able), strict=True):
            found = _information(self._fit.seen[rows], matrix)
            found[given @ (votes.annotator == a).astype(np.float64) > 0] = -np.inf
            better = found > worth
            whom[better], worth[better] = a, found[better]
        return whom, worth

    def to_frame(self) -> pd.DataFrame:
        """Return one row a sample.

        Returns:
            Columns `label`, `probability`, `n_labels` (how many annotators labelled the sample), `agreement`
            (the share of them that gave this label; None without any) and `majority`.
        """
        counts, code = self._votes.counts, self.probabilities.argmax(1)
        same = self._votes.by_class[np.arange(len(code)), code]
        share = np.where(counts > 0, same / np.maximum(counts, 1), np.nan)
        return pd.DataFrame(
            {
                "label": self.label,
                "probability": self.probability,
                "n_labels": counts,
                "agreement": pd.array(share, dtype="Float64"),
                "majority": pd.Series(self.majority, dtype=object),
            }
        )

    def __str__(self) -> str:
        n, quality = len(self.label), self.annotators["quality"]
        changed = int(np.count_nonzero((self.label != self.majority) & (self._votes.counts > 0)))
        empty = int(np.count_nonzero(self._votes.counts == 0))
        text = (
            f"{len(quality):,} annotators, {n:,} samples: about {self.n_right / n:.1%} of the consensus "
            f"labels are estimated to be right; {changed:,} are not what most annotators said. Annotators "
            f"are right in {quality.min():.0%} to {quality.max():.0%} of their labels."
        )
        return f"{text} {empty:,} samples have no label." if empty else text


def consensus(labels: Any, pred_probs: Any = None, *, features: Any = None, classes: Any = None) -> Consensus:
    r"""Estimate the true labels of samples that several annotators labelled, and how good each of them is.

    .. math:: q_i(z) \;\propto\; p_i(z) \sum_w S_{zw} \prod_{a \in A_i} T^a_{w y_{ia}}

    with a noise matrix T for each annotator, p from a model if there is one, and S for errors that all
    annotators share (`lsi.analysis.annotators`). There are no settings. With features, the model is a linear
    head, which is fitted to the labels, then to q, and predicts each sample without it.

    Args:
        labels: `(N, A)`, one column an annotator; gaps are NaN, None or NA. Numbers or words. The columns of
            a DataFrame name the annotators. A scipy sparse matrix holds class numbers, and only stored
            entries are labels (store zeros explicitly).
        pred_probs: `(N, C)` out-of-sample probabilities of a model, as in `lsi.label_noise`.
        features: `(N, D)` features, in place of `pred_probs`.
        classes: `(C,)` labels of the columns of `pred_probs`. None: the labels that occur, sorted; where some
            of the C classes do not occur, labels must be the column numbers 0 … C−1.

    Returns:
        Consensus labels with their probabilities, the annotators, and whom to ask next.

    Raises:
        InputError: Shapes or labels do not fit, there is one annotator only, or both `pred_probs` and
            `features` were given.

    Examples:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> z = random.integers(0, 3, 500)
        >>> right = random.random((500, 4)) < [0.9, 0.8, 0.7, 0.4]
        >>> labels = np.where(right, z[:, None], (z[:, None] + random.integers(1, 3, (500, 4))) % 3)
        >>> found = consensus(labels)
        >>> bool((found.label == z).mean() > (found.majority == z).mean())
        True
        >>> found.annotators["quality"].round(1).tolist()
        [0.9, 0.8, 0.7, 0.4]
    """
    if pred_probs is not None and features is not None:
        raise InputError("pred_probs and features both say what a sample is. Pass one of them.")
    p = None if pred_probs is None else as_probabilities(pred_probs)
    answers = check_answers(labels, p, classes)
    votes = Votes(answers.row, answers.annotator, answers.code, answers.shape)
    if features is not None:
        fit = _from_features(votes, features)
    else:
        fit = fit_crowd(votes, None if p is None else np.asarray(p, dtype=np.float64))
    return _summary(votes, fit, answers)


def _from_features(votes: Votes, features: Any) -> Fit:
    """Return the fit to leave-one-out predictions of a head, which is fitted again to the true classes."""
    matrix = to_float(as_matrix(features))
    if len(matrix) != votes.n:
        raise InputError(
            f"features have {len(matrix):,} rows and labels {votes.n:,}. Pass one for each sample."
        )
    check_finite(matrix)
    x, told = scaled(matrix), np.flatnonzero(votes.counts)
    majority = torch.from_numpy(votes.by_class[told].argmax(1))
    rows = best_view(x[told], majority, votes.n_classes)(x)
    probe = SoftProbe(rows[told], votes.n_classes, ridge(rows[told]))
    rest = np.flatnonzero(votes.counts == 0)
    q, p = votes.by_class / np.maximum(votes.counts, 1)[:, None], np.empty(votes.by_class.shape)
    for _ in range(REFITS + 1):
        soft = torch.from_numpy(q[told]).to(rows.dtype)
        p[told] = torch.softmax(probe.left_out(probe.fit(soft, FIT_STEPS), soft), 1).numpy()
        p[rest] = torch.softmax(probe.predict(rows[rest]).to(torch.float64), 1).numpy()
        fit = fit_crowd(votes, p)
        q = fit.true
    return fit


def _summary(votes: Votes, fit: Fit, answers: Answers) -> Consensus:
    q, crowd, shared = fit.true, fit.crowd, fit.prior.shared
    code, classes, counts = q.argmax(1), answers.classes, votes.n_labels
    majority = classes[votes.by_class.argmax(1)].astype(object)
    majority[votes.counts == 0] = None
    pair = np.arange(len(votes.code))
    same = (votes.pairs.T @ np.eye(votes.n_classes)[code])[pair, votes.code]
    right, mean = crowd.accuracy * (counts + crowd.strength), counts + crowd.strength
    low, high = (beta.ppf(end, right, mean - right) for end in INTERVAL)
    agree = np.bincount(votes.annotator, same, votes.n_annotators) / np.maximum(counts, 1)
    annotators = pd.DataFrame(
        {
            "n_labels": counts,
            "quality": crowd.accuracy,
            "low": low,
            "high": high,
            "agreement": pd.array(np.where(counts > 0, agree, np.nan), dtype="Float64"),
        },
        index=answers.annotators,
    )
    return Consensus(
        label=classes[code],
        probability=q.max(1),
        probabilities=q,
        classes=classes,
        majority=majority,
        annotators=annotators,
        noise_matrix=noise_frame(crowd.matrix, classes),
        shared_errors=None if shared is None else noise_frame(shared, classes),
        _votes=votes,
        _fit=fit,
    )


def _information(q: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the mutual information of true class and one more label, nats, `(n,)`. Shapes: q `(n, C)`."""
    return np.asarray(_entropy(q @ matrix) - q @ _entropy(matrix))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -np.asarray((p * np.log(np.maximum(p, 1e-300))).sum(-1))
