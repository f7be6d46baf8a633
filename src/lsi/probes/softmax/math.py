r"""Mathematics of the linear softmax probe: residuals, curvature and its change.

Logits of sample j are :math:`z_j = \theta x_j` with :math:`\theta` of shape `(C, D)`, and
:math:`p_j = \mathrm{softmax}(z_j)`. The gradient of its cross-entropy is
:math:`g_j \otimes x_j` with the residual :math:`g_j = p_j - e_{y_j}`, and its (Gauss-Newton)
curvature :math:`h_j = S_j \otimes x_j x_j^\top` with :math:`S_j = \mathrm{diag}(p_j) - p_j p_j^\top`.

Since :math:`S_j 1 = 0` and :math:`1^\top g_j = 0`, everything happens in the C − 1 directions that are
orthogonal to the vector of ones; `class_contrasts` returns a basis V of them. A prime marks a quantity in
that basis: :math:`g' = V^\top g`, :math:`S' = V^\top S V`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGE_SHIFT = 30.0  # larger changes of a logit would overflow float32 once exponentiated and multiplied
LOST_DIGITS = 1e-6  # a normaliser below this has too few digits left


def class_contrasts(n_classes: int) -> Tensor:
    """Return the Helmert basis V, float64 `(C, C − 1)`: orthonormal columns, each orthogonal to the ones.

    >>> v = class_contrasts(3)
    >>> torch.allclose(v.T @ v, torch.eye(2, dtype=v.dtype))
    True
    """
    basis = torch.zeros((n_classes, n_classes - 1), dtype=torch.float64)
    for k in range(1, n_classes):
        basis[:k, k - 1] = 1.0
        basis[k, k - 1] = -float(k)
        basis[:, k - 1] /= (k * (k + 1)) ** 0.5
    return basis


def residuals(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return `g = p − e_y` of shape `(B, C)`, exact also where the label's probability is near one.

    The entry of the label is `−Σ_{c≠y} p_c`, because `p_y − 1` has no digits left where p_y rounds to one.
    """
    residual = probabilities.clone()
    residual.scatter_(1, target[:, None], 0.0)
    return residual.scatter_(1, target[:, None], -residual.sum(1, keepdim=True))


def contrast_curvature(probabilities: Tensor, contrasts: Tensor) -> Tensor:
    r"""Return `S' = Vᵀ(diag(p) − p pᵀ)V` of shape `(B, C − 1, C − 1)`.

    It is computed relative to the likeliest class m, because the difference loses all digits where
    :math:`p_m` is near one:

    .. math:: S' = \sum_{c \ne m} p_c\, u_c u_c^\top - a a^\top, \qquad u_c = v_c - v_m,\quad
              a = \sum_{c \ne m} p_c\, u_c
    """
    others = Others.of(probabilities, contrasts)
    # Σ_{c≠m} p_c (v_c − v_m)(v_c − v_m)ᵀ, multiplied out: l = Σ_{c≠m} p_c v_c, s = Σ_{c≠m} p_c.
    p_vv = torch.einsum("cr,bc,cs->brs", contrasts, others.rest, contrasts)
    l_vm = others.lean[:, :, None] * others.likeliest[:, None, :]
    s_vm_vm = others.likeliest[:, :, None] * (others.share * others.likeliest)[:, None, :]
    a = others.apart
    return p_vv - l_vm - l_vm.mT + s_vm_vm - a[:, :, None] * a[:, None, :]


@dataclass(frozen=True)
class Others:
    """The probabilities of all classes but the likeliest, m.

    Attributes:
        rest: p with the entry of m set to zero, `(n, C)`.
        share: Their sum, `1 − p_m` with all its digits, `(n, 1)`.
        likeliest: `v_m`, `(n, C − 1)`.
        lean: `Σ_{c≠m} p_c v_c`, `(n, C − 1)`.
    """

    rest: Tensor
    share: Tensor
    likeliest: Tensor
    lean: Tensor

    @classmethod
    def of(cls, probabilities: Tensor, contrasts: Tensor) -> Others:
        """Return them for probabilities `(n, C)`."""
        contrasts, largest = contrasts.to(probabilities.dtype), probabilities.argmax(1)
        rest = probabilities.scatter(1, largest[:, None], 0.0)
        return cls(rest, rest.sum(1, keepdim=True), contrasts[largest], rest @ contrasts)

    @property
    def apart(self) -> Tensor:
        """`a = Σ_{c≠m} p_c (v_c − v_m)`, `(n, C − 1)`."""
        return self.lean - self.share * self.likeliest


def curvature_times(probabilities: Tensor, z: Tensor) -> Tensor:
    """Return `S z = p (z − Σ_k p_k z_k)` over the classes, which are dimension 1 of both.

    With z = 0 for the likeliest class, its own row keeps its digits where its p rounds to one.
    """
    z = z - z.gather(1, probabilities.argmax(1, keepdim=True))
    return z.sub_((probabilities * z).sum(1, keepdim=True)).mul_(probabilities)


def variances(probabilities: Tensor) -> Tensor:
    """Return `p (1 − p)`, `(n, C)`, exact also where a probability rounds to one."""
    likeliest = probabilities.argmax(1, keepdim=True)
    others = probabilities.scatter(1, likeliest, 0.0).sum(1, keepdim=True)  # 1 − p_m
    return probabilities * (1.0 - probabilities).scatter(1, likeliest, others)


def probability_shift(probabilities: Tensor, logit_shift: Tensor) -> Tensor:
    r"""Return `Δp = softmax(z + s) − softmax(z)` in a form that keeps the digits of a small change.

    .. math:: \Delta p_c = p_c \frac{\mathrm{expm1}(s_c) - \epsilon}{1 + \epsilon},\quad
              \epsilon = \sum_k p_k\, \mathrm{expm1}(s_k)

    Shapes: logit_shift s `(n, C, B)`, probabilities p `(n, C)`, or `(n, C, B)` where they differ too.
    """
    common = probabilities.dim() == 2
    p = probabilities[:, :, None] if common else probabilities
    # A constant added to all s_c changes nothing. With s = 0 for the likeliest class, its change keeps its
    # digits where its p rounds to one, and so does 1 + ε where its p falls.
    likeliest = p.argmax(1, keepdim=True)
    if common:  # faster than gathering
        s = logit_shift - logit_shift[torch.arange(len(p), device=p.device), likeliest[:, 0, 0]][:, None, :]
    else:
        s = logit_shift - logit_shift.gather(1, likeliest)
    # On a GPU, asking whether a rare case occurs takes longer than to allow for it.
    asks = s.device.type == "cpu"
    if not asks:
        s -= (s.amax(1, keepdim=True) - LARGE_SHIFT).clamp_min(0.0)
    elif float(s.amax()) > LARGE_SHIFT:
        s -= s.amax(1, keepdim=True)
    expm1_s = s.expm1_()
    epsilon = torch.bmm(probabilities[:, None, :], expm1_s) if common else (p * expm1_s).sum(1, keepdim=True)
    normaliser = 1.0 + epsilon
    dp = expm1_s.sub_(epsilon).mul_(p).div_(normaliser)
    # Nearly all probability moved to classes that had almost none. The normaliser has lost its digits, but
    # the change is large, so that plain subtraction is exact enough.
    if not asks:
        return torch.where(normaliser < LOST_DIGITS, torch.softmax(p.log() + logit_shift, 1) - p, dp)
    if float(normaliser.amin()) < LOST_DIGITS:
        rows, models = (normaliser[:, 0, :] < LOST_DIGITS).nonzero(as_tuple=True)
        before = p.expand_as(dp)[rows, :, models]
        after = torch.softmax(before.log() + logit_shift[rows, :, models], -1)
        dp[rows, :, models] = after - before
    return dp
