r"""Which given labels are wrong: one estimate without settings, from features and labels alone.

A linear head gives every sample its leave-one-out probabilities, a noise layer turns them into the true
labels' posterior (`lsi.analysis.noise_model`), and the head is fitted again, now to that posterior, twice.
The first head still contains the wrong labels; the last hardly does. With few samples that may fail, so a
head that predicts the given labels worse than the first, through its layer, is dropped. Noise is evident only
where the first and the last layer show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lsi.analysis.noise_model import fit_model, joint_matrix
from lsi.noisy_labels.soft_probe import SoftProbe
from lsi.planning.label_noise import TRIAL_ROWS, random_count

RIDGE = 30.0  # in sum form, for features of unit mean norm, at D = N; in proportion to D/N otherwise
LEAST_RIDGE, MOST_RIDGE = 0.3, 1.0
UNIT_RANGE = 10.0  # largest factor between a column's spread and the median spread
REFITS = 2  # of the head, to the posterior of the true labels
FIT_STEPS = 30  # L-BFGS iterations of each fit
CLEARLY = 1.0  # by how many √n nats random features have to win: the spread of a sum over n samples
EVIDENCE = 2.0  # nats by which another view of as many columns has to win (Kass and Raftery 1995: positive)
BLOCK = 4096  # rows at a time


@dataclass(frozen=True)
class LabelNoise:
    """The estimate for the labels of N samples.

    Attributes:
        wrong_probability: `(N,)`, probability that the given label is wrong.
        at_least: `(N,)`, the same for noise that never follows ambiguity; zero where the data show no noise.
        at_most: `(N,)`, the same for features that determine the class.
        suggested: `(N,)`, class code of the likeliest true label, which may be the given one.
        flip_gain: `(N,)` nats: how much better the best other label is predicted, without the
            sample, than the given one; negative where the given label is the cheapest.
        noise_matrix: `(C, C)`, row true class, column given label, rows sum to one.
        least_share: `()`, the smallest count that the likelihood allows, as a share of the sum of `at_least`.
    """

    wrong_probability: np.ndarray
    at_least: np.ndarray
    at_most: np.ndarray
    suggested: np.ndarray
    flip_gain: np.ndarray
    noise_matrix: np.ndarray
    least_share: np.ndarray


def estimate_label_noise(
    features: np.ndarray, target: np.ndarray, n_classes: int, device: torch.device | str = "cpu"
) -> LabelNoise:
    """Estimate for every sample how likely its label is wrong, and which would be right.

    Shapes: features `(N, D)`, target `(N,)`.
    """
    y = torch.from_numpy(target).to(device)
    rows = scaled(features, device)
    rows = best_view(rows, y, n_classes)(rows)
    probe = SoftProbe(rows, n_classes, ridge(rows), overwrite=True)
    logits = _left_out(probe, torch.nn.functional.one_hot(y, n_classes))
    gain = flip_gain(logits, y).cpu().numpy()
    p = torch.softmax(logits, 1).cpu().numpy()
    first, p_first = fit_model(p, target), p
    model = first
    for _ in range(REFITS):
        q = torch.from_numpy(model.plain(p, target)).to(device)
        p = torch.softmax(_left_out(probe, q), 1).cpu().numpy()
        model = fit_model(p, target, near=model)
        if model.layer.likelihood < first.layer.likelihood:
            model, p = first, p_first
            break
    evident = first.evident and model.evident
    model = replace(model, evident=evident, least_share=min(first.least_share, model.least_share))
    found = model.rows(p, target)
    return LabelNoise(
        wrong_probability=found.wrong,
        at_least=found.at_least,
        at_most=found.at_most,
        suggested=found.q.argmax(1),
        flip_gain=gain,
        noise_matrix=joint_matrix(found.q, target),
        least_share=np.asarray(model.least_share),
    )


def best_view(x: Tensor, y: Tensor, n_classes: int) -> Callable[[Tensor], Tensor]:
    """Return what turns features into the rows on which a head predicts the given labels best.

    Random features have to be clearly better than features alone. A class of several clusters, or one around
    another, is beyond a linear head: whole regions would look wrong. Tried on some rows.
    """
    step = -(-len(x) // TRIAL_ROWS)
    some, labels = x[::step], y[::step]

    def likelihood(view: Callable[[Tensor], Tensor]) -> float:
        rows = view(some)
        probe = SoftProbe(rows, n_classes, ridge(rows))
        p = torch.softmax(_left_out(probe, torch.nn.functional.one_hot(labels, n_classes)), 1)
        return float(fit_model(p.cpu().numpy(), labels.cpu().numpy()).layer.likelihood)

    bent = (with_random_features, with_random_offsets)
    found = {view: likelihood(view) for view in (with_intercept, on_sphere, *bent)}
    plain = on_sphere if found[on_sphere] > found[with_intercept] + EVIDENCE else with_intercept
    best, clearly = max(bent, key=found.__getitem__), CLEARLY * max(1.0, len(some) ** 0.5)
    return best if found[best] > found[plain] + clearly else plain


def on_sphere(x: Tensor) -> Tensor:
    """Return the directions of `(x, 1)`, on which no row is far out.

    Where classes have heavy tails, a row far out is unlikely in any of them, and says little about which one
    it is of; a linear head would be the surer the farther out it is.
    """
    return _directions(with_intercept(x))


def with_random_features(x: Tensor) -> Tensor:
    r"""Return the features, `(N, M)` rectified random projections of their directions, and a column of ones.

    .. math:: \sqrt{2/M}\, \max(0, R\, x / \|x\|),\quad R_{jk} \sim N(0, 1)

    Their inner products approximate the arc-cosine kernel of first order (Cho & Saul, *Kernel methods
    for deep learning*, 2009). R is the same in every run; M is one for every ten samples, 1,500 at most.
    """
    return _rectified(x, offset=False)


def with_random_offsets(x: Tensor) -> Tensor:
    """Return the same of the directions of `(x, 1)`, which know how far from the centre a row lies."""
    return _rectified(x, offset=True)


def _rectified(x: Tensor, *, offset: bool) -> Tensor:
    """Return x, rectified random projections of the directions of x or of `(x, 1)`, and a column of ones."""
    count, d = random_count(len(x)), x.shape[1]
    projection = torch.randn(d + offset, count, generator=torch.Generator().manual_seed(0)).to(x)
    out = torch.ones((len(x), d + count + 1), dtype=x.dtype, device=x.device)
    for rows, part in zip(out.split(BLOCK), x.split(BLOCK), strict=True):
        rows[:, :d] = part
        unit = on_sphere(part) if offset else _directions(part)
        rows[:, d:-1] = (unit @ projection).relu_().mul_((2.0 / count) ** 0.5)
    return out


def _directions(x: Tensor) -> Tensor:
    """Return x with rows of length one; a row of zeros stays one."""
    return x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def ridge(x: Tensor) -> float:
    """Return the ridge of a head in sum form: `30 · D/N`, between 0.3 and 1."""
    return min(MOST_RIDGE, max(LEAST_RIDGE, RIDGE * x.shape[1] / x.shape[0]))


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


def with_intercept(x: Tensor) -> Tensor:
    """Return the features with a column of ones."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def flip_gain(logits: Tensor, target: Tensor) -> Tensor:
    """Return how much likelier, in nats, the best other label is than the given one, `(N,)`."""
    given = logits.gather(1, target[:, None])
    others = logits.scatter(1, target[:, None], -torch.inf)
    return others.amax(1) - given[:, 0]


def _left_out(probe: SoftProbe, labels: Tensor) -> Tensor:
    labels = labels.to(probe.rows.dtype)
    return probe.left_out(probe.fit(labels, FIT_STEPS), labels)
