"""How well a score finds label errors that are known."""

from __future__ import annotations

import numpy as np

from lsi.errors import InputError


def detection_quality(score: np.ndarray, truth: np.ndarray) -> dict[str, float | int]:
    """Measure how well high scores point to the samples marked in `truth`.

    Args:
        score: ``(n,)`` numbers; higher means more suspicious.
        truth: ``(n,)`` bool, True for the samples to be found.

    Returns:
        ``auroc`` (probability that a marked sample scores higher than an unmarked one, ties count
        half), ``average_precision`` (mean precision over the marked samples, from the top) and
        ``n_positive`` (number of marked samples).

    Raises:
        InputError: If lengths differ, a score is not finite, or all samples are marked or none is.

    Examples:
        >>> detection_quality([0.1, 0.4, 0.35, 0.8], [False, False, True, True])["auroc"]
        0.75
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    score = np.asarray(score, dtype=np.float64)
    marked = np.asarray(truth).astype(bool)
    if score.shape != marked.shape or score.ndim != 1:
        raise InputError(
            "score and truth must be one-dimensional and of equal length, "
            f"got shapes {score.shape} and {marked.shape}."
        )
    if not np.isfinite(score).all():
        unusable = int((~np.isfinite(score)).sum())
        raise InputError(f"{unusable} scores are not finite. Leave those samples out.")
    count = int(marked.sum())
    if count in (0, len(marked)):
        which = "no sample is" if count == 0 else "all samples are"
        raise InputError(f"detection cannot be measured: {which} marked. Score samples of both kinds.")
    return {
        "auroc": float(roc_auc_score(marked, score)),
        "average_precision": float(average_precision_score(marked, score)),
        "n_positive": count,
    }
