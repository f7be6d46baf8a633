r"""Expectation-maximisation for the true labels behind noisy ones, around a probe.

The true class z of a sample is hidden, the given label y is drawn from row z of the noise matrix T:

.. math:: P(y_i = y) = \sum_z p_i(z)\, T_{zy},\qquad
          q_i(z) = \frac{p_i(z)\, T_{z y_i}}{\sum_k p_i(k)\, T_{k y_i}}

The probe is refitted to q, T is re-estimated from q, and so on. Three things differ from the textbook:
:math:`p_i` is the probe's *leave-one-out* prediction, so that no sample confirms its own label; it is
sharpened, :math:`p_i \propto \hat p_i^{\,\beta}`; and q and T are alternated a few times for each p before
the next fit, which costs far more than they do.

Source:
    Dawid & Skene, *Maximum likelihood estimation of observer error-rates*, 1979 (the noise matrix by EM);
    Goldberger & Ben-Reuven, *Training deep neural networks using a noise adaptation layer*, 2017 (around
    a classifier).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsi.noisy_labels.soft_probe import SoftProbe
from lsi.system.device import add_rows

SETTLE = 4  # updates of T for each fit of the probe
FIT_STEPS = 6  # L-BFGS iterations of a warm-started fit
FIRST_STEPS = 30  # L-BFGS iterations of the first fit, which starts from zero
START_RATE = 0.1  # share of wrong labels that T starts with
TRUST = 3.0  # right labels credited to each class beforehand: few samples should not accuse a class


def start_matrix(n_classes: int) -> Tensor:
    """Return the noise matrix that EM starts with, `(C, C)`."""
    even = torch.full((n_classes, n_classes), START_RATE / max(n_classes - 1, 1), dtype=torch.float64)
    return even.fill_diagonal_(1.0 - START_RATE)


def true_label_posterior(p: Tensor, noise: Tensor, target: Tensor) -> Tensor:
    """Return `q_i(z)`, `(N, C)`: the probability of each true label, given the features and the given label.

    Shapes: p `(N, C)`, noise `(C, C)`, target `(N,)`.
    """
    joint = p * noise.T[target]  # p_i(z) T_{z y_i}
    return joint / joint.sum(1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)


def noise_matrix(q: Tensor, target: Tensor) -> Tensor:
    """Return T, `(C, C)` with rows that sum to one, from the posterior q of the true labels, `(N, C)`."""
    c = q.shape[1]
    counts = add_rows(torch.zeros((c, c), dtype=q.dtype, device=q.device), target, q).T
    counts = counts + TRUST * start_matrix(c).to(q)
    return counts / counts.sum(1, keepdim=True)


def settle(logits: Tensor, sharpness: float, noise: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Alternate q and T for fixed leave-one-out logits `(N, C)`; return both."""
    p = torch.softmax(sharpness * logits, 1)
    for _ in range(SETTLE):
        noise = noise_matrix(true_label_posterior(p, noise, target), target)
    return true_label_posterior(p, noise, target), noise


class NoisyProbe:
    """A probe, the noise matrix, and the true labels' posterior: the state of one EM.

    Args:
        probe: Fitted to the given labels first.
        target: Given labels, `(N,)`.
    """

    def __init__(self, probe: SoftProbe, target: Tensor) -> None:
        self.probe, self.target = probe, target
        given = torch.nn.functional.one_hot(target, probe.n_classes).to(probe.rows.dtype)
        self.logits = probe.left_out(probe.fit(given, FIRST_STEPS), given)
        self.noise = start_matrix(probe.n_classes).to(self.logits)

    def run(self, rounds: int, sharpness: float) -> Tensor:
        """Run `rounds` of EM at one sharpness β; return the posterior of the true labels, `(N, C)`."""
        for _ in range(rounds):
            q, self.noise = settle(self.logits, sharpness, self.noise, self.target)
            labels = q.to(self.probe.rows.dtype)
            self.logits = self.probe.left_out(self.probe.fit(labels, FIT_STEPS), labels)
        q, self.noise = settle(self.logits, sharpness, self.noise, self.target)
        return q
