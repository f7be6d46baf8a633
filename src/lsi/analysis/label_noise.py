r"""Which given labels are wrong: one estimate without settings, from features and labels alone.

The features are seen in two ways: as they are, and beside random rectified features of their direction
(a small step towards a kernel). Around each, EM looks for the true labels and the noise matrix
(`lsi.analysis.noise_em`). How sharply the features determine the true class is the one thing that noisy
labels cannot tell: noise that hits ambiguous samples more looks exactly like classes that overlap
more. So it is not estimated but averaged over: β = 1 believes the probe, β = 1.3 believes that people
err where the probe hesitates. The result is the mean posterior of the true label, with equal weights for
the two ways of seeing the features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lsi.analysis.noise_em import NoisyProbe
from lsi.analysis.soft_probe import SoftProbe

# Ridges in sum form, for features of unit mean norm. The kernel's is small on purpose: its head is a little
# too sure of itself, as the sharp one is.
LINEAR_RIDGE, KERNEL_RIDGE = 30.0, 7.5  # for one feature a sample
LEAST_RIDGE, MOST_RIDGE = 0.3, 1.0
RANDOM_FEATURES, ROWS_A_FEATURE = 1500, 33  # at most so many random features, each for so many samples
UNIT_RANGE = 10.0  # how far a column's spread may be from the middle one
SHARP = 1.3
ROUNDS = 7  # of EM in each view; later ones change little


@dataclass(frozen=True)
class LabelNoise:
    """What was found out about the labels of N samples.

    Attributes:
        wrong_probability: `(N,)`, probability that the given label is wrong.
        suggested: `(N,)`, class code of the likeliest true label; the given one where that is it.
        flip_gain: `(N,)` nats: how much better the best other label is predicted, without the
            sample, than the given one; negative where the given label is the cheapest.
        noise_matrix: `(C, C)`, row true class, column given label, rows sum to one.
    """

    wrong_probability: np.ndarray
    suggested: np.ndarray
    flip_gain: np.ndarray
    noise_matrix: np.ndarray


def estimate_label_noise(
    features: np.ndarray, target: np.ndarray, n_classes: int, device: torch.device | str = "cpu"
) -> LabelNoise:
    """Estimate for every sample how likely its label is wrong, and which would be right.

    Args:
        features: `(N, D)`, finite.
        target: `(N,)` class codes.
        n_classes: C ≥ 2.
        device: Where to compute.

    Returns:
        The estimate. It does not depend on the probe's weight decay or on what is scored.
    """
    y = torch.from_numpy(target).to(device)
    plain = scaled(torch.from_numpy(np.array(features)).to(device))
    linear = NoisyProbe(SoftProbe(with_intercept(plain), n_classes, ridge(plain, LINEAR_RIDGE)), y)
    gain = flip_gain(linear.logits, y)
    seen = 0.5 * (linear.run(ROUNDS, SHARP) + linear.run(ROUNDS, 1.0))
    del linear  # its rows are as large as the features
    rows = with_intercept(plain, random_features(plain))
    kernel = NoisyProbe(SoftProbe(rows, n_classes, ridge(rows, KERNEL_RIDGE)), y)
    return _summarise(0.5 * (seen + kernel.run(ROUNDS, 1.0)), y, gain)


def ridge(x: Tensor, factor: float) -> float:
    """Return the ridge of a head in sum form: `factor · D/N`, between 0.3 and 1."""
    return min(MOST_RIDGE, max(LEAST_RIDGE, factor * x.shape[1] / x.shape[0]))


def scaled(x: Tensor) -> Tensor:
    """Return the features centred and with a mean norm of one, float32.

    A column whose spread is more than ten times that of the middle one, or less than a tenth, is brought to
    that bound, so that no unit of measurement decides alone; within it, large components stay large.
    """
    x = x.to(torch.float64)
    x = x - x.mean(0)
    spread = x.std(0, correction=0)
    varies = spread > 1e-9 * spread.max()
    if varies.any():
        middle = spread[varies].median()
        bounded = spread.clamp(middle / UNIT_RANGE, middle * UNIT_RANGE)
        x = x * torch.where(varies, bounded / spread.clamp_min(torch.finfo(x.dtype).tiny), 0.0)
    norm = x.norm(dim=1).mean()
    return (x / norm.clamp_min(torch.finfo(x.dtype).tiny)).to(torch.float32)


def random_count(n_samples: int) -> int:
    """Return how many random features are taken for N samples."""
    return max(1, min(RANDOM_FEATURES, n_samples // ROWS_A_FEATURE))


def random_features(x: Tensor) -> Tensor:
    r"""Return `(N, M)` rectified random projections of the rows' directions.

    .. math:: \sqrt{2/M}\, \max(0, R\, x / \|x\|),\quad R_{jk} \sim N(0, 1)

    Their inner products approximate the arc-cosine kernel of first order (Cho & Saul, *Kernel methods
    for deep learning*, 2009). R is the same in every run; M is one for every 33 samples, 1,500 at most.
    """
    count = random_count(len(x))
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(x.shape[1], count, generator=generator).to(x)
    unit = x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return (unit @ projection).relu_().mul_((2.0 / count) ** 0.5)


def with_intercept(*parts: Tensor) -> Tensor:
    """Return the parts side by side with a column of ones."""
    return torch.cat([*parts, torch.ones_like(parts[0][:, :1])], 1)


def flip_gain(logits: Tensor, target: Tensor) -> Tensor:
    """Return how much likelier, in nats, the best other label is than the given one, `(N,)`."""
    given = logits.gather(1, target[:, None])
    others = logits.scatter(1, target[:, None], -torch.inf)
    return others.amax(1) - given[:, 0]


def _summarise(q: Tensor, y: Tensor, gain: Tensor) -> LabelNoise:
    c = q.shape[1]
    joint = torch.zeros((c, c), dtype=q.dtype, device=q.device).index_add_(0, y, q).T
    matrix = joint / joint.sum(1, keepdim=True).clamp_min(torch.finfo(q.dtype).tiny)
    # From the other classes' mass: one minus a probability near one would lose its digits.
    wrong = q.scatter(1, y[:, None], 0.0).sum(1).clamp(0.0, 1.0)
    return LabelNoise(
        wrong.cpu().numpy(), q.argmax(1).cpu().numpy(), gain.cpu().numpy(), matrix.cpu().numpy()
    )
