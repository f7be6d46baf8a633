r"""Which given labels are wrong: one estimate without settings, from features and labels alone.

The features are seen in two views: as they are, and together with random rectified features of their
direction (a small step towards a kernel). In each view, EM looks for the true labels and the noise matrix
(`lsi.noisy_labels.em`). How sharply the features determine the true class is the one thing that noisy labels
cannot show: noise that hits ambiguous samples more often looks exactly like classes that overlap more. So it
is not estimated but averaged over: β = 1 believes the probe, β = 1.3 believes that people err where the
probe hesitates. The result is the mean posterior of the true label, with equal weights for the two views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lsi.execution.work import Arrays, Tick, Work
from lsi.noisy_labels.em import NoisyProbe
from lsi.noisy_labels.soft_probe import SoftProbe
from lsi.system.device import add_rows
from lsi.validation.problem import Shape

# Ridges in sum form, for features of unit mean norm. The kernel's is small on purpose: its head is then a
# little too sure of itself, like the sharpened linear one.
LINEAR_RIDGE, KERNEL_RIDGE = 30.0, 7.5  # at D = N; in proportion to D/N otherwise
LEAST_RIDGE, MOST_RIDGE = 0.3, 1.0
RANDOM_FEATURES, ROWS_A_FEATURE = 1500, 33  # one random feature per 33 samples, 1,500 at most
UNIT_RANGE = 10.0  # largest factor between a column's spread and the median spread
SHARP = 1.3  # β of the sharpened linear view
BLOCK = 4096  # rows at a time
ROUNDS = 7  # of EM in each view; later ones change little


@dataclass(frozen=True)
class LabelNoise:
    """The estimate for the labels of N samples.

    Attributes:
        wrong_probability: `(N,)`, probability that the given label is wrong.
        suggested: `(N,)`, class code of the likeliest true label, which may be the given one.
        flip_gain: `(N,)` nats: how much better the best other label is predicted, without the
            sample, than the given one; negative where the given label is the cheapest.
        noise_matrix: `(C, C)`, row true class, column given label, rows sum to one.
    """

    wrong_probability: np.ndarray
    suggested: np.ndarray
    flip_gain: np.ndarray
    noise_matrix: np.ndarray


def estimate_label_noise(
    features: np.ndarray,
    target: np.ndarray,
    n_classes: int,
    device: torch.device | str = "cpu",
    work: Work | None = None,
) -> LabelNoise:
    """Estimate for every sample how likely its label is wrong, and which would be right.

    Shapes: features `(N, D)`, target `(N,)`.
    """
    views, done = _Views(features, target, n_classes, torch.device(device)), {}
    # The longer view first, so that two workers finish at nearly the same time.
    for _, arrays in (work or Work()).aside().map("views", views, "look", ["kernel", "linear"]):
        done.update(arrays)
    q = 0.5 * (done["linear"] + done["kernel"])
    return _summarise(torch.from_numpy(q), torch.from_numpy(target), done["gain"])


class _Views:
    """The two views of the features, each a unit of work.

    Args:
        features: `(N, D)`, finite.
        target: `(N,)` class codes.
        n_classes: C.
        device: Where to compute.

    Attributes:
        tries_elsewhere: After this many lost workers a view is computed here, as it takes minutes (see
            `RayExecutor`).
    """

    tries_elsewhere = 2

    def __init__(
        self, features: np.ndarray, target: np.ndarray, n_classes: int, device: torch.device
    ) -> None:
        self.features, self.target = features, target
        self.n_classes, self.device = n_classes, device

    @cached_property
    def _plain(self) -> Tensor:
        """The features that both start from."""
        return scaled(self.features, self.device)

    def look(self, view: str, tick: Tick) -> Arrays:
        """Return a view's posterior of the true labels, `(N, C)`; the linear view adds the gain of flips."""
        y = torch.from_numpy(self.target).to(self.device)
        if view == "kernel":
            rows = with_random_features(self._plain)
            kernel = NoisyProbe(self._probe(rows, KERNEL_RIDGE), y)
            return {view: kernel.run(ROUNDS, 1.0).cpu().numpy()}
        linear = NoisyProbe(self._probe(with_intercept(self._plain), LINEAR_RIDGE), y)
        gain = flip_gain(linear.logits, y)
        q = 0.5 * (linear.run(ROUNDS, SHARP) + linear.run(ROUNDS, 1.0))
        return {view: q.cpu().numpy(), "gain": gain.cpu().numpy()}

    def _probe(self, rows: Tensor, factor: float) -> SoftProbe:
        """Return a head on `rows`, whose memory it takes over."""
        return SoftProbe(rows, self.n_classes, ridge(rows, factor), overwrite=True)


def needed_bytes(shape: Shape) -> int:
    """Return the peak memory of the estimate."""
    n, d, width = shape.n_samples, shape.n_features, shape.n_features + random_count(shape.n_samples)
    return 4 * n * (width + d - 1) + 48 * n * shape.n_classes + 24 * width**2 + (64 << 20)


def ridge(x: Tensor, factor: float) -> float:
    """Return the ridge of a head in sum form: `factor · D/N`, between 0.3 and 1."""
    return min(MOST_RIDGE, max(LEAST_RIDGE, factor * x.shape[1] / x.shape[0]))


def scaled(features: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Return the features centred and with a mean norm of one, float32.

    A column whose spread is more than ten times the median spread, or less than a tenth of it, is scaled to
    that bound, so that no unit of measurement decides alone; within the bounds, large components stay large.

    Shapes: features `(N, D)`.
    """
    design, tiny = _Rows(features, device), torch.finfo(torch.float64).tiny
    mean = sum((x.sum(0) for _, x in design), torch.zeros((), dtype=torch.float64, device=device))
    mean = mean / len(features)
    square = sum(((x - mean).square().sum(0) for _, x in design), torch.zeros_like(mean))
    spread = (square / len(features)).sqrt()
    varies = spread > 1e-9 * spread.max()
    unit = torch.ones_like(spread)
    if varies.any():
        middle = spread[varies].median()
        bounded = spread.clamp(middle / UNIT_RANGE, middle * UNIT_RANGE)
        unit = torch.where(varies, bounded / spread.clamp_min(tiny), 0.0)
    norm = sum((((x - mean) * unit).norm(dim=1).sum() for _, x in design), torch.zeros_like(mean[0]))
    unit = unit / (norm / len(features)).clamp_min(tiny)
    out = torch.empty(features.shape, dtype=torch.float32, device=device)
    for rows, x in design:
        out[rows] = ((x - mean) * unit).to(torch.float32)
    return out


class _Rows:
    """Features in blocks of rows, float64."""

    def __init__(self, features: np.ndarray, device: torch.device | str) -> None:
        self.features, self.device = features, device

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.features), BLOCK):
            rows = slice(start, start + BLOCK)
            yield rows, torch.from_numpy(np.array(self.features[rows], dtype=np.float64)).to(self.device)


def random_count(n_samples: int) -> int:
    """Return how many random features N samples get."""
    return max(1, min(RANDOM_FEATURES, n_samples // ROWS_A_FEATURE))


def with_random_features(x: Tensor) -> Tensor:
    r"""Return the features, `(N, M)` rectified random projections of their directions, and a column of ones.

    .. math:: \sqrt{2/M}\, \max(0, R\, x / \|x\|),\quad R_{jk} \sim N(0, 1)

    Their inner products approximate the arc-cosine kernel of first order (Cho & Saul, *Kernel methods
    for deep learning*, 2009). R is the same in every run; M is one for every 33 samples, 1,500 at most.
    """
    count = random_count(len(x))
    generator = torch.Generator().manual_seed(0)
    d = x.shape[1]
    projection = torch.randn(d, count, generator=generator).to(x)
    out = torch.ones((len(x), d + count + 1), dtype=x.dtype, device=x.device)
    for rows, part in zip(out.split(BLOCK), x.split(BLOCK), strict=True):
        rows[:, :d] = part
        unit = part / part.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        rows[:, d:-1] = (unit @ projection).relu_().mul_((2.0 / count) ** 0.5)
    return out


def with_intercept(x: Tensor) -> Tensor:
    """Return the features with a column of ones."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def flip_gain(logits: Tensor, target: Tensor) -> Tensor:
    """Return how much likelier, in nats, the best other label is than the given one, `(N,)`."""
    given = logits.gather(1, target[:, None])
    others = logits.scatter(1, target[:, None], -torch.inf)
    return others.amax(1) - given[:, 0]


def _summarise(q: Tensor, y: Tensor, gain: np.ndarray) -> LabelNoise:
    c = q.shape[1]
    joint = add_rows(torch.zeros((c, c), dtype=q.dtype, device=q.device), y, q).T
    matrix = joint / joint.sum(1, keepdim=True).clamp_min(torch.finfo(q.dtype).tiny)
    # The sum over the other classes: one minus a probability near one would lose its digits.
    wrong = q.scatter(1, y[:, None], 0.0).sum(1).clamp(0.0, 1.0)
    return LabelNoise(wrong.numpy(), q.argmax(1).numpy(), gain, matrix.numpy())
