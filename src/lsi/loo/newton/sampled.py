r"""Corrections of first-order removals from a sample of rows, with a certificate that counts what was not seen.

The gradient that a first-order step leaves is exactly a sum over the other rows, at all orders,

.. math:: r_i = \sum_{j \ne i} w_j\, \rho_j \otimes x_j, \qquad \rho_j = p_j(\theta + \delta_i) - p_j(\theta) - S_j z_j,
          \qquad z_j = x_j \delta_i .

Rows that are drawn estimate it, and with it three things: what the step :math:`\eta = -H_{-i}^{-1} r_i` to the optimum
adds to the divergence, :math:`-\sum_j w_j\, y_j \cdot \rho_j` with :math:`y_j = x_j H_{-i}^{-1} P_2 \delta_i`; the
posterior's own response to the rows' changed curvature; and how long that step is, :math:`\|\eta\|_{H_{-i}}`, which
bounds what a second one would add. docs/method.md derives the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.divergence import Terms
from lsi.loo.newton.dense import DenseSolver, FirstOrder
from lsi.loo.newton.rows import Drawn, Reach, centred, draw, probe_logits
from lsi.posterior.base import Posterior, Removal
from lsi.probes.softmax.math import probability_shift
from lsi.probes.softmax.model import SoftmaxModel

LEVELS = (256, 2048, 8192)  # rows that are read, until the certificate is within the tolerance
MORE_SHARE = 0.5  # share of all rows from which a sweep over them costs hardly more
TILE = 192  # rows priced at a time: their logits for a block of removals stay in cache
# −ln of the chance that sampling misses its certificate.
SURPRISE = 7.0
TINY = torch.finfo(torch.float64).tiny


@dataclass
class Corrected:
    """Removals corrected from sampled rows.

    Attributes:
        terms: The divergence's two terms, `(B,)` each.
        certificate: Upper estimate of the relative error, `(B,)`.
        logit_shift: What the correction of δ adds to the sample's own logits, `(B, C')`.
    """

    terms: Terms
    certificate: Tensor
    logit_shift: Tensor


@dataclass
class Sums:
    """Sums over the drawn rows, `(B,)` float64 unless another shape is given.

    Attributes:
        moved: `Σ y·ρ`.
        spread: Variance of the sum of all that the rows add to the divergence.
        unexplained: `Σ |ρ|²` in the metric of S⁻, which bounds `‖η‖²`.
        bent: `Σ |ΔS y|²` in that metric.
        bent_step: `Σ |ΔS z|²` in that metric.
        response: `Σ |price|²` in the metric of S.
        priced: `Σ Δp·price`.
        probes: `Σ ρ·Φ`, the gradient in the directions of the probes, `(R, B)`.
        gradient: `Σ ρ ⊗ x`, `(C·B, D)`.
    """

    moved: Tensor
    spread: Tensor
    unexplained: Tensor
    bent: Tensor
    bent_step: Tensor
    response: Tensor
    priced: Tensor
    probes: Tensor
    gradient: Tensor


class RowCorrector:
    """Corrects first-order removals from nested samples of rows.

    Args:
        model: The full-data model.
        solver: First-order solver.
        posterior: The posterior that the divergence is taken of.
        tol: Relative error at which a removal needs no more rows.
        floor: Relative error that is always there.
        seed: Seed of the draw.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        solver: DenseSolver,
        posterior: Posterior,
        tol: float,
        floor: float,
        seed: int = 0,
    ) -> None:
        self.model, self.solver, self.posterior = model, solver, posterior
        self.tol, self.floor = tol, floor
        reach = Reach.of(model, posterior, solver.probes)
        counts = [count for count in LEVELS if count <= MORE_SHARE * model.n_samples] or [model.n_samples]
        self.levels = [
            _Level(model, reach, drawn) for drawn in draw(reach.leverage * reach.length, reach.length, counts, seed)
        ]

    def correct(self, first: FirstOrder) -> Corrected:
        """Return the corrected removals, each from as few rows as certify it."""
        b, zero = len(first.index), torch.zeros(len(first.index), dtype=torch.float64, device=first.x.device)
        removal = Removal(first.index, first.x, first.curvature, first.delta, residual=first.residual)
        sensitivity = self.posterior.sensitivity(removal)
        frozen = self.posterior.divergence(removal)
        pull = self.solver.solve(first, sensitivity.pull)
        state = _State.of(self.model, first, frozen, sensitivity.pull, pull)
        found = Corrected(
            Terms(zero.clone(), zero.clone()), torch.full_like(zero, float("inf")), torch.zeros_like(first.residual)
        )
        active = torch.arange(b, device=zero.device)
        for level in self.levels:
            part = first.select(active)
            price = self.posterior.price(_picked(sensitivity, active))
            sums, shift = self._sums(level, part, pull[active], price)
            self._put(found, active, level, part, state.select(active), sums, shift)
            active = active[~(found.certificate[active] <= self.tol)]
            if not len(active):
                break
        return found

    def _put(
        self,
        found: Corrected,
        active: Tensor,
        level: _Level,
        part: FirstOrder,
        state: _State,
        sums: Sums,
        shift: object,
    ) -> None:
        """Put values and certificates of one level into `found`."""
        if self.posterior.shift_is_current:
            mean, covariance = state.mean + sums.priced, state.covariance
        else:
            shifted = self.posterior.divergence(Removal(part.index, part.x, part.curvature, part.delta, shift))
            mean, covariance = shifted.mean, shifted.covariance
        bending = mean - state.mean  # what the changed curvature alone does to the mean term
        mean = (mean - sums.moved).clamp_min(0)
        total = (mean + covariance).clamp_min(TINY)
        found.terms.mean[active], found.terms.covariance[active] = mean, covariance
        found.logit_shift[active] = self._own_logits(part, sums.gradient)
        error = self._sampling(level, state, sums) + self._second_order(state, sums, bending)
        certificate = self.floor + error / total
        found.certificate[active] = certificate.nan_to_num(nan=float("inf"), posinf=float("inf"))

    def _sampling(self, level: _Level, state: _State, sums: Sums) -> Tensor:
        """Return what the sums may be off, in nats: Bernstein's bound with the measured variance."""
        zeta = level.length * state.energy.sqrt()
        growth = zeta.expm1()
        # A row's ρ grows as e^ζ − 1 − ζ, in units of its leverage times ζ; its Δp as e^ζ − 1.
        most = (growth - zeta) / zeta.clamp_min(TINY) * (state.energy * state.force).sqrt()
        most = (most + 0.5 * growth * state.stiff) / (level.length if level.length else 1.0)
        return (2.0 * SURPRISE * sums.spread).sqrt() + 7.0 / 3.0 * SURPRISE * level.spacing * most

    def _second_order(self, state: _State, sums: Sums, bending: Tensor) -> Tensor:
        """Return what a second step would add at most, in nats."""
        step = torch.minimum(sums.unexplained, 1.5 * sums.probes.square().mean(0)).sqrt()
        bend = (sums.bent_step / state.energy.clamp_min(TINY)).sqrt()  # relative change of H along δ
        step = step / (1.0 - bend).clamp_min(TINY)
        stiffness = state.force / state.stiff.clamp_min(TINY)  # of P₂ in units of H along δ
        along = sums.bent.sqrt() + sums.response.sqrt() + 2.0 * bending.abs() * (stiffness / state.stiff).sqrt()
        return 0.5 * stiffness * step.square() + step * along

    def _own_logits(self, part: FirstOrder, gradient: Tensor) -> Tensor:
        """Return `−E_iᵀ H₋ᵢ⁻¹ r_i`, `(B, C')`. Shapes: gradient `(C·B, D)`."""
        b, k, d = part.delta.shape
        whole = (self.model.contrasts.T.to(gradient.dtype) @ gradient.view(-1, b * d)).view(k, b, d)
        step = self.solver.solve(part, whole.transpose(0, 1).contiguous())
        return -(step @ part.x[:, :, None])[:, :, 0]

    def _sums(self, level: _Level, part: FirstOrder, pull: Tensor, price: Tensor) -> tuple[Sums, object]:
        """Return the sums over the rows of a level, and the posterior's shift."""
        b, d = len(part.index), part.x.shape[1]
        step, force = self._class_first(part.delta), self._class_first(pull)
        zero = torch.zeros(b, dtype=torch.float64, device=part.x.device)
        probes = torch.zeros((level.probes.shape[2], b), dtype=part.x.dtype, device=part.x.device)
        gradient = torch.zeros((self.model.n_classes * b, d), dtype=part.x.dtype, device=part.x.device)
        sums = Sums(*(zero.clone() for _ in range(7)), probes, gradient)
        shift = None if self.posterior.shift_is_current else self.posterior.new_shift(b)
        square, mean = zero.clone(), zero.clone()
        for start in range(0, len(level.rows), TILE):
            rows = slice(start, start + TILE)
            x, p, scale = level.x[rows], level.p[rows], level.scale[rows]
            own = level.rows[rows, None] == part.index[None, :]
            z = (x @ step.T).view(len(x), -1, b)
            change = probability_shift(p, z)
            change.masked_fill_(own[:, None, :], 0.0)
            z, y = centred(z, p), centred((x @ force.T).view(len(x), -1, b), p)
            z.masked_fill_(own[:, None, :], 0.0)
            rest = change - p[:, :, None] * z  # ρ
            priced = self.posterior.row_price(price, x, p, z)
            priced = priced - torch.bmm(p[:, None, :], priced)
            if shift is not None:
                self.posterior.add_shift(shift, x, scale, p, change)
            moved, response = (y * rest).sum(1), (change * priced).sum(1)
            effect = (response - moved) * scale[:, None]
            inverse = 1.0 / p.clamp_min(1e-30)
            sums.moved += (moved * scale[:, None]).sum(0)
            sums.priced += (response * scale[:, None]).sum(0)
            sums.unexplained += (scale @ (rest.square() * inverse[:, :, None]).sum(1)).to(torch.float64)
            sums.bent += scale @ _bent(change, y, p, inverse)
            sums.bent_step += scale @ _bent(change, z, p, inverse)
            sums.response += scale @ (priced.square() * p[:, :, None]).sum(1)
            rest *= scale[:, None, None]
            sums.probes += level.probes[rows].reshape(-1, len(sums.probes)).T @ rest.flatten(0, 1)
            sums.gradient.addmm_(rest.flatten(1).T, x)
            chance = level.missed[rows, None]  # 1 − π: rows that are always taken add no variance
            mean += (effect * chance).sum(0)
            square += (effect.square() * chance).sum(0)
        n = max(len(level.rows) - level.n_certain, 2)
        sums.spread = (square - mean.square() / n).clamp_min(0) * (n / (n - 1.0))
        return sums, shift

    def _class_first(self, weights: Tensor) -> Tensor:
        """Return weights `(B, C', D)` in all classes, `(C·B, D)`."""
        b, k, d = weights.shape
        flat = weights.transpose(0, 1).reshape(k, b * d)
        return (self.model.contrasts.to(flat.dtype) @ flat).view(-1, d)


class _Level:
    """One level of the draw with what its rows are read for."""

    def __init__(self, model: SoftmaxModel, reach: Reach, drawn: Drawn) -> None:
        self.rows, self.n_certain = drawn.rows, drawn.n_certain
        self.spacing, self.length = drawn.spacing, drawn.length
        self.x = model.design.take(drawn.rows)
        self.p = model.probabilities(self.x)
        self.scale = (model.weight[drawn.rows] * drawn.weight).to(self.x.dtype)
        self.missed = (1.0 - 1.0 / drawn.weight).to(self.x.dtype)
        self.probes = probe_logits(model, self.x, reach.probes)


@dataclass
class _State:
    """What is known of first-order removals before any other row is read, `(B,)` float64 each.

    Attributes:
        mean: Mean term at the others' frozen curvature.
        covariance: Covariance term there.
        energy: `δᵀ H̄ δ`.
        force: `aᵀ H̄ a` with `a = H₋⁻¹ P₂ δ`.
        stiff: `δᵀ P₂ δ`.
    """

    mean: Tensor
    covariance: Tensor
    energy: Tensor
    force: Tensor
    stiff: Tensor

    @classmethod
    def of(cls, model: SoftmaxModel, first: FirstOrder, frozen: Terms, raw: Tensor, pull: Tensor) -> _State:
        """Return it. Shapes: raw `P₂ δ` and pull `a`, `(B, C', D)`."""
        z, y = ((step @ first.x[:, :, None])[:, :, 0].to(torch.float64) for step in (first.delta, pull))
        own = first.curvature.to(torch.float64)
        decay = model.weight_decay * (first.delta.flatten(1).to(torch.float64) @ model.theta.reshape(-1))
        # δᵀH₋δ = δ·(g ⊗ x + wd θ) and aᵀH₋a = a·P₂δ; H̄ has the sample's own curvature on top.
        energy = (z * first.residual).sum(1) + decay + torch.einsum("bk,bkl,bl->b", z, own, z)
        force = (pull * raw).sum((1, 2), dtype=torch.float64) + torch.einsum("bk,bkl,bl->b", y, own, y)
        return cls(frozen.mean, frozen.covariance, energy.clamp_min(0), force.clamp_min(0), 2.0 * frozen.mean)

    def select(self, keep: Tensor) -> _State:
        """Return the removals at an index."""
        return _State(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def _picked(sensitivity: object, active: Tensor) -> object:
    """Return the sensitivities of the removals at `active`."""
    kind = type(sensitivity)
    parts = (sensitivity.pull, sensitivity.curvature)
    return kind(*(part[active] if part.numel() else part for part in parts))


def _bent(change: Tensor, y: Tensor, p: Tensor, inverse: Tensor) -> Tensor:
    """Return `|ΔS y|²` in the metric of S⁻, `(n, B)`, y centred."""
    mean = (change * y).sum(1, keepdim=True)
    bent = change * (y - mean) - p[:, :, None] * mean
    return (bent.square() * inverse[:, :, None]).sum(1)
