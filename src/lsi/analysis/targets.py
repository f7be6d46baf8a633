r"""Wrong targets of a regression: residuals without the sample as a mixture of two normal distributions.

Most targets scatter around their prediction with one spread, wrong ones with a larger one:

.. math:: z_i \sim (1 - \pi)\, N(0, \sigma_0^2) + \pi\, N(0, \sigma_1^2), \qquad \sigma_1 \ge 2\,\sigma_0 ,

with :math:`z_i` the residual without sample i in units of its own standard deviation. Expectation
maximisation (Dempster, Laird and Rubin, 1977) estimates :math:`\pi, \sigma_0, \sigma_1`; the probability of
the second part, given the residual, is the probability that the target is wrong.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import chi2

START_SHARE = 0.1
RATIO = 2.0  # least ratio of the spreads: two similar spreads would split the good targets
STEPS = 500


def wrong_target_probability(z: np.ndarray, n_targets: int = 1) -> np.ndarray:
    """Return the probability that each target is wrong, `(n,)`, by the size of its residual.

    Examples:
        >>> z = np.r_[np.linspace(-2, 2, 95), [7.0, -8.0, 9.0, 8.0, -7.0]]
        >>> probability = wrong_target_probability(z)
        >>> bool(probability[:95].max() < 0.5 < probability[95:].min())
        True

    Shapes: z `(n,)`.
    """
    squares = np.square(np.asarray(z, dtype=np.float64))
    # σ₀² from the median of the squares, which wrong targets hardly move; σ₁ = 3 σ₀ to start with.
    median = chi2.median(n_targets) / n_targets
    narrow = max(float(np.median(squares)) / median, np.finfo(np.float64).tiny)
    wide, share = 9.0 * narrow, START_SHARE
    for _ in range(STEPS):
        wrong = _posterior(squares, n_targets, narrow, wide, share)  # E step
        before = share  # M step: π, σ₀², σ₁²
        share = float(np.clip(wrong.mean(), 1e-6, 0.5))
        narrow = max(float(np.average(squares, weights=1.0 - wrong + 1e-300)), np.finfo(np.float64).tiny)
        wide = max(float(np.average(squares, weights=wrong + 1e-300)), RATIO**2 * narrow)
        if abs(share - before) < 1e-10:
            break
    return _posterior(squares, n_targets, narrow, wide, share)


def wrong_targets(table: pd.DataFrame, n_targets: int = 1) -> pd.DataFrame:
    """Return one row per sample of a regression; equal probabilities are ordered by the size of `loo_z`."""
    wrong = wrong_target_probability(table["loo_z"].to_numpy(), n_targets)
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "suggested_label": table["loo_prediction"],
            "wrong_probability": wrong,
            "lsi": table["lsi"],
            "loo_z": table["loo_z"],
        }
    )
    order = np.lexsort((-table["loo_z"].abs().to_numpy(), -wrong))
    return frame.iloc[order].reset_index(drop=True)


def _posterior(squares: np.ndarray, n: int, narrow: float, wide: float, share: float) -> np.ndarray:
    """Return the probability of the wide part, `(n,)`, with σ₀² = `narrow`, σ₁² = `wide` and π = `share`."""
    odds = 0.5 * n * (squares * (1.0 / narrow - 1.0 / wide) + np.log(narrow / wide))
    return np.asarray(expit(odds + logit(share)))
