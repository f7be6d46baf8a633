r"""The weight decay of the highest leave-one-out likelihood, found without a validation set.

One factorisation gives the probability of every label under the model that never saw it, to first order
(`lsi.loo.newton.dense`), and with it the mean log-likelihood

.. math:: L(\mathrm{wd}) = \frac{1}{\sum_i w_i} \sum_i w_i \log p_{-i}(y_i \mid x_i) .

It is computed on a grid of :math:`1, 3 \cdot 10^k`, from heavy to light, each fit starting at the last one's
weights. The search ends where L falls, so that light values, which separate the data and take longest, are
rarely tried. Every value is a round number and a function of data and settings alone, so that all shards of
a run find the same.

Large problems are searched on some of their rows, and on some of their classes where they have many. The
penalty in sum form, :math:`\lambda = n\,\mathrm{wd}`, is kept: it is the precision of the weights' prior,
which does not depend on how many rows there are. docs/explanation/tuning.md has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.features.design import Design, row_space
from lsi.loo.newton.dense import DenseSolver, Inverse
from lsi.loo.result import loo_prediction
from lsi.probes.ridge import ROWS, RidgeModel
from lsi.probes.softmax.fit import Curvature, fit
from lsi.probes.softmax.model import SoftmaxModel

# (n + K)·K² of the problem that is searched on, a quarter of what runs in double precision: eight values then
# take some ten seconds on two cores.
SEARCH_WORK = 5e10
MOST_ROWS = 20_000  # from here on L is flat to three digits over a factor of ten in the weight decay
CLASS_ROWS = 20  # rows of a class, below which fewer classes are searched on instead
TARGET = 1e-4  # nats, of all samples together, that a fit of the search may be short of its optimum
LIGHTEST = 1e-12  # share of the heaviest weight decay at which the search ends
SURE = 2.0  # standard errors by which L has to fall to end the search at once; else it has to fall twice

LogLikelihoods = Callable[[float], Tensor]
"""Returns the `(n,)` log-probabilities of the labels, each without its sample, at a penalty λ in sum form."""


@dataclass(frozen=True)
class DecayCurve:
    """Weight decays that were tried, and their leave-one-out likelihoods.

    Attributes:
        decays: Weight decays, ascending, `(T,)`.
        likelihoods: Mean leave-one-out log-likelihood of each, nats, `(T,)`.
        n_samples: Rows that were searched on.
        n_classes: Classes that were searched on; 0 where there are none.
    """

    decays: np.ndarray
    likelihoods: np.ndarray
    n_samples: np.ndarray
    n_classes: np.ndarray

    @property
    def chosen(self) -> float:
        """The weight decay of the highest likelihood."""
        return float(self.decays[self.likelihoods.argmax()])


def search(evaluate: LogLikelihoods, heaviest: float, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight decays that were tried, ascending, and their mean log-likelihoods.

    Powers of ten are tried from `heaviest` down, then the two threes beside the best of them. `n_samples`
    turns a weight decay into the penalty that `evaluate` takes.
    """
    found: dict[tuple[int, int], Tensor] = {}
    top = best = math.floor(math.log10(heaviest))
    falls = 0
    for exponent in range(top, top + math.floor(math.log10(LIGHTEST)) - 1, -1):
        try:
            found[1, exponent] = evaluate(10.0**exponent * n_samples)
        except (ConvergenceError, InputError):  # too light for the features' scale
            if exponent == top:
                raise
            break
        change = found[1, exponent] - found[1, best]
        if float(change.mean()) > 0:
            best, falls = exponent, 0
            continue
        falls += exponent < top
        error = float(change.std()) / len(change) ** 0.5
        if falls == 2 or (falls and float(change.mean()) < -SURE * error):
            break
    for exponent in (best, best - 1):
        try:
            found[3, exponent] = evaluate(3.0 * 10.0**exponent * n_samples)
        except (ConvergenceError, InputError):
            continue
    order = sorted(found, key=lambda key: (key[1], key[0]))
    means = np.array([float(found[key].mean()) for key in order])
    return np.array([float(f"{digit}e{exponent}") for digit, exponent in order]), means


def affordable(n: int, d: int, c: int, work: float = SEARCH_WORK) -> tuple[int, int]:
    """Return how many rows and classes are searched on.

    Examples:
        >>> affordable(1500, 385, 2), affordable(50_000, 513, 10), affordable(50_000, 513, 100)
        ((1500, 2), (395, 10), (298, 13))
    """
    classes = c
    while True:
        n_rows = min(n, MOST_ROWS, _rows(d, classes, work))
        if n_rows >= min(n * classes // c, CLASS_ROWS * classes) or classes <= 2:
            return max(2, n_rows), classes
        classes -= 1


def _rows(d: int, c: int, work: float) -> int:
    """Return the most rows n with `(n + K)·K² ≤ work`, `K = min(n, d)·(C − 1)`."""
    k = d * (c - 1)
    beyond = work / k**2 - k
    return int(beyond) if beyond >= d else min(d, int((work / (c * (c - 1) ** 2)) ** (1 / 3)))


def chosen_rows(target: np.ndarray, n_rows: int, n_classes: int, seed: int = 0) -> np.ndarray:
    """Return ascending positions of random rows, of so many random classes. Shapes: target `(N,)`."""
    random, where = np.random.default_rng(seed), np.arange(len(target))
    present = np.unique(target)
    if n_classes < len(present):
        where = where[np.isin(target, random.permutation(present)[:n_classes])]
    if n_rows >= len(where):
        return where
    shuffled = random.permutation(where)
    # Two of every class come first: without one of them, the other still shows what the class is.
    _, first = np.unique(target[shuffled], return_index=True)
    rest = np.delete(shuffled, first)
    _, second = np.unique(target[rest], return_index=True)
    ahead = np.concatenate([shuffled[first], rest[second]])
    return np.sort(np.concatenate([ahead, np.delete(rest, second)])[:n_rows])


class SoftmaxLikelihoods:
    """Leave-one-out log-likelihoods of a softmax or sigmoid head at any penalty.

    Args:
        untrained: The head before training, on the rows that are searched on.
    """

    def __init__(self, untrained: SoftmaxModel) -> None:
        self.model, design = untrained, untrained.design
        if design.n_samples < design.n_features:
            basis = row_space(design)
            self.model = replace(untrained, design=design.rotated(basis), theta=untrained.theta @ basis)
        self._trained: dict[float, Tensor] = {}

    def __call__(self, penalty: float) -> Tensor:
        """Return `w_i log p₋ᵢ(y_i)` divided by the mean weight, `(n,)`."""
        start = min(self._trained, key=lambda known: abs(math.log(known / penalty)), default=None)
        theta = self.model.theta if start is None else self._trained[start]
        model = replace(self.model, weight_decay=penalty / self.model.n_samples, theta=theta)
        model, curvature, _ = fit(model, target=TARGET)
        self._trained[penalty] = model.theta
        weight = model.weight / model.weight.mean()
        return weight * left_out_log_probabilities(model, curvature)


def left_out_log_probabilities(model: SoftmaxModel, curvature: Curvature) -> Tensor:
    """Return `log p₋ᵢ(y_i)` to first order, `(n,)` float64; the curvature is unusable afterwards."""
    solver, parts = DenseSolver(model, Inverse.of(model, curvature)), []
    for index in torch.arange(model.n_samples, device=model.theta.device).split(solver.block_size):
        p, _ = loo_prediction(model, index, solver.first_order(index).delta)
        parts.append(p.clamp_min(torch.finfo(torch.float64).tiny).log())
    return torch.cat(parts)


def ridge_log_likelihoods(model: RidgeModel, penalty: float) -> Tensor:
    r"""Return the Gaussian leave-one-out log-likelihood of each sample at its best noise precision, `(n,)`.

    .. math:: -\tfrac12 \sum_t \Bigl(\log 2\pi\hat\sigma_t^2 + r_{it}^2 / \hat\sigma_t^2\Bigr),
              \qquad \hat\sigma_t^2 = \tfrac1n \sum_i r_{it}^2

    with :math:`r_i = (y_i - x_i \theta)/(1 - h_i)` the residual without the sample (PRESS).
    """
    n, squares = model.n_samples, model.singular.square()
    shrunk = squares + penalty * (n - 1) / n  # the penalty without a sample
    theta, residuals = model.singular[:, None] * model.image / shrunk[:, None], []
    for rows, x in model.design.blocks(ROWS):
        u = x @ model.basis
        rest = 1.0 - u.square() @ (1.0 / shrunk)
        if float(rest.min()) <= 0:
            raise InputError("the weights without a sample are not determined in double precision.")
        residuals.append((model.target[rows] - u @ theta) / rest[:, None])
    left_out = torch.cat(residuals).square()
    variance = left_out.mean(0).clamp_min(torch.finfo(torch.float64).tiny)
    return -0.5 * ((2.0 * math.pi * variance).log() + left_out / variance).sum(1)


def heaviest_decay(design: Design, n_classes: int) -> float:
    """Return the mean curvature of a sample at zero weights, `mean ‖x‖² / C`.

    At this weight decay the penalty outweighs the data in every direction.
    """
    total = torch.zeros((), dtype=torch.float64, device=design.device)
    for _, x in design.blocks(ROWS):
        total += x.square().sum(dtype=torch.float64)
    return max(float(total) / design.n_samples / n_classes, torch.finfo(torch.float64).tiny)
