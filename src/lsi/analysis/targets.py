r"""Wrong targets of a regression: a bump beside the residuals of the right ones, which may have heavy tails.

The residual z without a sample, in units of its own standard deviation, is drawn from

.. math:: f(z) = (1 - \pi)\, t_\nu(z; 0, \sigma) + \tfrac{\pi}{2}\, \bigl[t_\nu(z; \mu, \sigma_1)
          + t_\nu(z; -\mu, \sigma_1)\bigr], \qquad \mu^2 + \sigma_1^2 \ge (2\sigma)^2,\; \sigma_1 \ge \sigma

by greatest likelihood. A density of |z| that falls all the way may always be a heavy tail, or a spread that
differs from sample to sample. So f is weighed, by Akaike's criterion, against the falling density next to it
(its isotonic projection): only a bump accuses.

The lower end is the least mass without which f falls, :math:`\int f(z) - \min_{u \le z} f(u)\, dz`, less its
sampling error; the upper end is the count where right residuals are normal, and all of a heavy tail is wrong.

Source: Tukey, *A survey of sampling from contaminated distributions*, 1960; Lange, Little & Taylor, *Robust
statistical modeling using the t distribution*, 1989; falling densities: Grenander, *On the theory of
mortality measurement*, 1956.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.optimize
from scipy.special import expit, gammaln, logit

from lsi.analysis.label_noise import LabelNoise, doubtful_order
from lsi.analysis.noise_model import LEAST_WEIGHT, Z

RATIO = 2.0  # least root mean square of wrong residuals in units of σ: smaller errors look like none
MOST_SHARE = 0.5  # if more were wrong than right, those would be the right ones
STARTS = ((0.1, 3.0, 0.5), (0.1, 1.1, 4.0), (0.02, 2.0, 8.0), (0.01, 3.0, 15.0))  # π, σ₁/σ, μ/σ
NORMAL, SOME_TAIL = 1e3, 30.0  # ν of what is as good as normal, and to start from
BOUNDS = ((-8.0, 8.0), (0.0, np.log(NORMAL)), (-18.0, 18.0), (-8.0, 9.0), (-16.0, 18.0))
FEWEST = 20  # residuals; five numbers explain fewer
CELLS, TAIL = 2000, 500  # larger data: this many groups of equal size, and the largest one by one
GRID, NEAR = 1500, 10.0  # points of the density up to ten σ, and as many beyond
MEDIAN = 0.6745  # of |z| for a standard normal z
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class TargetNoise:
    """What residuals say about targets.

    Attributes:
        wrong: `(n,)`, probability that each target is wrong.
        at_least: `(n,)`, lower end; zero where the residuals show no bump.
        at_most: `(n,)`, upper end.
        low: Lower end for the number of wrong targets.
        high: Upper end.
    """

    wrong: np.ndarray
    at_least: np.ndarray
    at_most: np.ndarray
    low: float
    high: float


def target_noise(z: np.ndarray) -> TargetNoise:
    """Return how many and which targets are wrong, by the size of their residuals, `(n,)`.

    Examples:
        >>> z = np.r_[np.linspace(-2, 2, 185), np.linspace(6.5, 8.5, 15)]
        >>> found = target_noise(z)
        >>> bool(found.wrong[:185].max() < 0.5 < found.wrong[185:].min())
        True
    """
    size = np.abs(np.asarray(z, dtype=np.float64))
    n, unit = len(size), float(np.median(size)) / MEDIAN if len(size) else 0.0
    if n < FEWEST or not unit > 0:
        none = np.zeros(n)
        return TargetNoise(none, none, np.ones(n), 0.0, float(n))
    size = size / unit
    mixture = _Mixture(size)
    best = min((mixture.fit(start, None) for start in STARTS), key=mixture.loss)
    gain, bump, surplus = mixture.bump(best, size)
    cost = 5.0 * n / (n - 6.0) - 2.0 * n / (n - 3.0)
    weight = float(expit(np.clip(gain - cost, -500.0, 500.0)))
    surely = mixture.posterior(best, size)
    wrong = weight * surely
    low = max(0.0, n * bump - Z * np.sqrt(n * bump)) if weight > LEAST_WEIGHT else 0.0
    low = float(min(low, wrong.sum()))
    tails = min((mixture.fit(start, NORMAL) for start in STARTS[:2]), key=mixture.loss)
    at_most = np.maximum(wrong, mixture.posterior(tails, size))
    most = float(at_most.sum())
    at_least = np.minimum(wrong, surplus) if low > 0 else np.zeros(n)
    return TargetNoise(wrong, at_least, at_most, low, min(float(n), most + Z * np.sqrt(max(most, 1.0))))


class _Mixture:
    """The likelihood of `(n,)` sizes of residuals, in units in which their core is standard normal."""

    def __init__(self, size: np.ndarray) -> None:
        self.size, self.weight = np.sort(size), np.ones(len(size))
        if len(size) > CELLS + TAIL:
            groups = np.array_split(self.size[:-TAIL], CELLS)
            self.size = np.concatenate([[group.mean() for group in groups], self.size[-TAIL:]])
            self.weight = np.concatenate([[len(group) for group in groups], np.ones(TAIL)])

    def fit(self, start: tuple[float, float, float], nu: float | None) -> np.ndarray:
        """Return the parameters of greatest likelihood, `(5,)`; ν may be given."""
        share, width, place = start
        beyond = place**2 - max(0.0, RATIO**2 - width**2)
        free = [
            0.0,
            np.log(nu or SOME_TAIL),
            logit(share / MOST_SHARE),
            np.log(width - 1.0),
            np.log(max(beyond, 1e-3)),
        ]
        bounds = list(BOUNDS)
        if nu is not None:
            bounds[1] = (free[1], free[1])
        return np.asarray(scipy.optimize.minimize(self.loss, free, method="L-BFGS-B", bounds=bounds).x)

    def loss(self, free: np.ndarray) -> float:
        """Return the negative log likelihood."""
        return -float(self.weight @ np.logaddexp(*_log_parts(self.size, free)))

    def posterior(self, free: np.ndarray, size: np.ndarray) -> np.ndarray:
        """Return the probability of the wrong part, `(n,)`."""
        right, wrong = _log_parts(size, free)
        return _rising(expit(wrong - right), size)

    def bump(self, free: np.ndarray, size: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Return by how many nats the density beats the falling one next to it, and its bump.

        The bump is told by its mass, and by the share of it in the density at each of `(n,)` sizes.
        """
        from sklearn.isotonic import isotonic_regression

        edges = np.linspace(0.0, NEAR, GRID + 1)
        if self.size[-1] >= NEAR:
            edges = np.append(edges, np.geomspace(NEAR, self.size[-1] * 1.001, GRID)[1:])
        middle, step = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        density = np.maximum(2.0 * np.exp(np.logaddexp(*_log_parts(middle, free))), TINY)
        falling = isotonic_regression(density, sample_weight=step, increasing=False)
        cell = np.searchsorted(edges, self.size, side="right") - 1
        gain = self.weight @ np.log(density[cell] / falling[cell])
        surplus = density - np.minimum.accumulate(density)
        share = (surplus / density)[np.searchsorted(edges, size, side="right") - 1]
        return float(gain), float((surplus * step).sum()), _rising(share, size)


def _rising(chance: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return probabilities that no larger residual lowers, `(n,)`."""
    out, order = chance.copy(), np.argsort(size, kind="stable")
    out[order] = np.maximum.accumulate(chance[order])
    return np.asarray(out)


def _log_parts(size: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log densities of right and wrong residuals, times their shares, `(n,)` each."""
    sigma, nu, share = np.exp(free[0]), np.exp(free[1]), MOST_SHARE * expit(free[2])
    width = 1.0 + np.exp(free[3])
    place = sigma * np.sqrt(max(0.0, RATIO**2 - width**2) + np.exp(free[4]))
    right = _log_t(size, sigma, nu) + np.log1p(-share)
    bumps = (_log_t(size - place, sigma * width, nu), _log_t(size + place, sigma * width, nu))
    return right, np.logaddexp(*bumps) + np.log(share / 2.0)


def _log_t(x: np.ndarray, sigma: float, nu: float) -> np.ndarray:
    """Return the log density of Student's t."""
    constant = gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * np.log(nu * np.pi) - np.log(sigma)
    return np.asarray(constant - (nu + 1.0) / 2.0 * np.log1p((x / sigma) ** 2 / nu))


def noise_of_targets(table: pd.DataFrame, outputs: list[str]) -> LabelNoise:
    """Return the estimate for the targets of a regression: a sample is wrong if one of its targets is."""
    if "loo_residual" in table:
        found = [target_noise(table["loo_z"].to_numpy())]
    else:
        rest = np.sqrt(1.0 - table["leverage"].to_numpy())
        off = [(table[f"label_{name}"] - table[f"loo_prediction_{name}"]).to_numpy() for name in outputs]
        found = [target_noise(residual * rest) for residual in off]
    wrong, at_least, at_most = (any_of([getattr(part, name) for part in found]) for name in ENDS)
    low, high = max(part.low for part in found), min(len(table), sum(part.high for part in found))
    expected = float(wrong.sum())
    interval = (min(low, expected), max(float(high), expected))
    predicted = table["loo_prediction"].to_numpy()
    return LabelNoise(
        expected, interval, pd.DataFrame(), wrong, predicted, at_least, at_most, task="regression"
    )


ENDS = ("wrong", "at_least", "at_most")


def any_of(chances: list[np.ndarray]) -> np.ndarray:
    """Return the probability that one of several independent things is so, `(n,)`."""
    if len(chances) == 1:
        return chances[0]
    return np.asarray(-np.expm1(np.log1p(-np.clip(chances, 0.0, 1.0 - 1e-16)).sum(0)))


def wrong_targets(table: pd.DataFrame, outputs: list[str], fdr: float | None = None) -> pd.DataFrame:
    """Return one row per sample of a regression; equal probabilities are ordered by the size of `loo_z`."""
    found = noise_of_targets(table, outputs)
    frame = pd.DataFrame(
        {
            "sample_id": table["sample_id"],
            "label": table["label"],
            "suggested_label": table["loo_prediction"],
            "wrong_probability": found.wrong_probability,
            "lsi": table["lsi"],
            "loo_z": table["loo_z"],
        }
    )
    by_size = np.argsort(-table["loo_z"].abs().to_numpy(), kind="stable")
    chosen = by_size[doubtful_order(found.wrong_probability[by_size], found.at_least[by_size], fdr)]
    return frame.iloc[chosen].reset_index(drop=True)
