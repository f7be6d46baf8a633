"""Settings of training algorithms: how `Retrain` turns gradients into weights.

The algorithm is part of what is measured: another optimizer ends at other weights, with all samples and
without one. Settings have the names that ``torch.optim`` and Opacus give them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from scipy.optimize import brentq
from scipy.special import log_ndtr

from lsi.errors import InputError, nearest
from lsi.validation.settings import check_choice, check_positive


@dataclass(frozen=True)
class SGD:
    """Gradient descent with the momentum of `Retrain`, as in ``torch.optim.SGD``."""

    kind: ClassVar[str] = "sgd"


@dataclass(frozen=True)
class Adam:
    r"""Adam, as in ``torch.optim.Adam``; the momentum of `Retrain` is not used.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,
              \quad \theta \leftarrow \theta
              - \mathrm{lr}\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \mathrm{eps}}

    where g is the gradient of step t, weight decay included.

    Args:
        betas: :math:`\beta_1, \beta_2`, decay of the running means of the gradient and of its square.
        eps: Added to the root of the second mean.
        decoupled: Whether the weight decay acts on the weights directly, as in ``torch.optim.AdamW``.

    Raises:
        InputError: Settings outside their range.

    Source:
        Kingma, Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decoupled: bool = False
    kind: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be two numbers in [0, 1), got {self.betas!r}.")
        check_positive("eps", self.eps)


@dataclass(frozen=True)
class SAM:
    r"""Sharpness-aware minimisation: SGD with the gradient at perturbed weights.

    .. math:: g = \nabla L\left(\theta + \rho \frac{\nabla L(\theta)}{\|\nabla L(\theta)\|}\right)

    takes the place of :math:`\nabla L(\theta)` in SGD with momentum and weight decay. The perturbation does
    not include the weight decay. Each step computes two gradients.

    Args:
        rho: Length ρ > 0 of the perturbation.

    Raises:
        InputError: A length that is not positive.

    Source:
        Foret, Kleiner, Mobahi, Neyshabur, *Sharpness-Aware Minimization*, ICLR 2021.
    """

    rho: float = 0.05
    kind: ClassVar[str] = "sam"

    def __post_init__(self) -> None:
        check_positive("rho", self.rho)


@dataclass(frozen=True)
class DPSGD:
    r"""Differentially private SGD: clipped per-sample gradients and Gaussian noise.

    .. math:: g = \frac1n \Bigl( \sum_i g_i \min\bigl(1, \tfrac{c}{\|g_i\|}\bigr)
              + \sigma c\, z \Bigr), \qquad z \sim N(0, I)

    with c = `max_grad_norm` and σ = `noise_multiplier`, both as in Opacus. Every copy sees the same
    noise z, drawn from the seed of the run, so that scores measure the sample and not the noise. If the probe
    has class weights, the weighted gradient is clipped.

    Args:
        noise_multiplier: σ ≥ 0; 0: clipping only.
        max_grad_norm: c > 0.

    Raises:
        InputError: Settings outside their range.

    Source:
        Abadi et al., *Deep Learning with Differential Privacy*, CCS 2016.
    """

    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0
    kind: ClassVar[str] = "dp-sgd"

    def __post_init__(self) -> None:
        check_positive("noise_multiplier", self.noise_multiplier, allow_zero=True)
        check_positive("max_grad_norm", self.max_grad_norm)

    def epsilon(self, epochs: int, delta: float) -> float:
        r"""Return ε of the (ε, δ)-guarantee of one trained model, infinite without noise.

        A sample takes part in one step an epoch, whatever the batch size, so that T epochs compose T
        Gaussian mechanisms: :math:`\mu`-Gaussian privacy with :math:`\mu = \sqrt{T}/\sigma`, and

        .. math:: \delta = \Phi(-\varepsilon/\mu + \mu/2) - e^{\varepsilon}\, \Phi(-\varepsilon/\mu - \mu/2).

        Args:
            epochs: T.
            delta: δ in (0, 1).

        Returns:
            ε ≥ 0.

        Raises:
            InputError: δ outside (0, 1).

        Source:
            Dong, Roth, Su, *Gaussian Differential Privacy*, JRSS B 2022.

        Examples:
            >>> round(DPSGD(noise_multiplier=20.0).epsilon(epochs=100, delta=1e-5), 2)
            1.99
        """
        if not 0 < delta < 1:
            raise InputError(f"delta must lie between 0 and 1, got {delta!r}; 1/N or less is usual.")
        if self.noise_multiplier == 0:
            return math.inf
        mu = math.sqrt(epochs) / self.noise_multiplier

        def excess(epsilon: float) -> float:
            first = log_ndtr(-epsilon / mu + mu / 2)
            second = epsilon + log_ndtr(-epsilon / mu - mu / 2)
            return float(math.exp(first) - math.exp(min(second, first)) - delta)

        if excess(0.0) <= 0:
            return 0.0
        high = 1.0
        while excess(high) > 0:
            high *= 2.0
        return float(brentq(excess, 0.0, high, xtol=1e-10))


@dataclass(frozen=True)
class Schedule:
    r"""Learning rate by epoch t of T, as a factor of `lr`; changes after whole epochs.

    ==============  ============================================  ===================================
    kind            factor                                        as in ``torch.optim.lr_scheduler``
    ==============  ============================================  ===================================
    "constant"      1
    "cosine"        (1 + cos(πt/T)) / 2                           ``CosineAnnealingLR(T_max=T)``
    "step"          gamma to the power ⌊t / step_size⌋            ``StepLR``
    "exponential"   gamma to the power t                          ``ExponentialLR``
    ==============  ============================================  ===================================

    Args:
        kind: One of these.
        step_size: Epochs between two steps; None: a third of all epochs.
        gamma: Factor of a step; None: 0.1 for "step", 0.99 for "exponential".

    Raises:
        InputError: An unknown kind, or settings outside their range.
    """

    kind: str = "constant"
    step_size: int | None = None
    gamma: float | None = None

    def __post_init__(self) -> None:
        check_choice("schedule", self.kind, SCHEDULES)
        if self.step_size is not None and self.step_size < 1:
            raise InputError(f"step_size must be at least 1, got {self.step_size!r}.")
        if self.gamma is not None:
            check_positive("gamma", self.gamma)

    def factor(self, epoch: int, epochs: int) -> float:
        """Return the factor of the learning rate in epoch `epoch` (from 0) of `epochs`.

        >>> [Schedule("step", step_size=2, gamma=0.5).factor(t, 6) for t in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
        """
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
        if self.kind == "step":
            size = self.step_size or max(1, epochs // 3)
            return float((0.1 if self.gamma is None else self.gamma) ** (epoch // size))
        if self.kind == "exponential":
            return float((0.99 if self.gamma is None else self.gamma) ** epoch)
        return 1.0


Algorithm = SGD | Adam | SAM | DPSGD
ALGORITHMS: dict[str, type[Algorithm]] = {kind.kind: kind for kind in (SGD, Adam, SAM, DPSGD)}
SCHEDULES = ("constant", "cosine", "step", "exponential")


def as_algorithm(optimizer: Any) -> Algorithm:
    """Return the settings that `optimizer` means."""
    if isinstance(optimizer, Algorithm):
        return optimizer
    if isinstance(optimizer, str) and optimizer in ALGORITHMS:
        return ALGORITHMS[optimizer]()
    raise InputError(
        f"optimizer={optimizer!r} is not known. {nearest(optimizer, ALGORITHMS)} Settings go with "
        "lsi.Adam(...), lsi.SAM(...) or lsi.DPSGD(...)."
    )


def as_schedule(schedule: Any) -> Schedule:
    """Return the settings that `schedule` means."""
    return (
        schedule
        if isinstance(schedule, Schedule)
        else Schedule(check_choice("schedule", schedule, SCHEDULES))
    )


def describe_settings(settings: Algorithm | Schedule) -> str | dict[str, Any]:
    """Return settings as JSON values: the name alone if all settings are the defaults."""
    if settings == (Schedule(settings.kind) if isinstance(settings, Schedule) else type(settings)()):
        return settings.kind
    given = {key: value for key, value in asdict(settings).items() if value is not None}
    return {"kind": settings.kind, **given}
