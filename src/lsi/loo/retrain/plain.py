"""Training as anyone would write it: one model, ``torch.optim``, a loop over batches.

The audit compares the batched trainers with this module, which shares no code with them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lsi.methods.algorithms import DPSGD, SAM, Adam
from lsi.methods.retrain import Retrain

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return the loss of every sample, `(n,)`. Shapes: output `(n, C)`, target `(n,)`."""
    return nn.functional.cross_entropy(output, target, reduction="none")


def train_plainly(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    settings: Retrain,
    weight_decay: float,
    seed: int,
    left_out: int | None,
    loss: Loss = cross_entropy,
) -> None:
    """Train a module in place on all samples but `left_out`, or on all of them.

    Shapes: x `(N, D)`, y `(N,)`, weight `(N,)`.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = _optimizer(parameters, settings, weight_decay)
    scheduler = _scheduler(optimizer, settings)
    noise = torch.Generator().manual_seed(seed)
    without = -1 if left_out is None else left_out
    parts = torch.arange(len(x), device=x.device).split(settings.batch_size or len(x))
    batches = [part[part != without] for part in parts]
    for _ in range(settings.epochs):
        for rows in batches:

            def objective(rows: Tensor = rows) -> Tensor:
                return (loss(module(x[rows]), y[rows]) * weight[rows]).mean()

            if isinstance(settings.algorithm, DPSGD):
                _private(module, parameters, x[rows], y[rows], weight[rows], loss, settings.algorithm, noise)
            elif isinstance(settings.algorithm, SAM):
                _sharpness_aware(parameters, objective, settings.algorithm.rho)
            else:
                optimizer.zero_grad()
                objective().backward()
            optimizer.step()
        scheduler.step()


def _optimizer(parameters: list[nn.Parameter], s: Retrain, weight_decay: float) -> torch.optim.Optimizer:
    if isinstance(s.algorithm, Adam):
        kind = torch.optim.AdamW if s.algorithm.decoupled else torch.optim.Adam
        settings = s.algorithm
        return kind(parameters, s.lr, betas=settings.betas, eps=settings.eps, weight_decay=weight_decay)
    return torch.optim.SGD(parameters, s.lr, s.momentum, weight_decay=weight_decay, nesterov=s.nesterov)


def _scheduler(optimizer: torch.optim.Optimizer, s: Retrain) -> torch.optim.lr_scheduler.LRScheduler:
    schedule, kinds = s.learning_rate, torch.optim.lr_scheduler
    if schedule.kind == "cosine":
        return kinds.CosineAnnealingLR(optimizer, T_max=s.epochs)
    if schedule.kind == "step":
        gamma = 0.1 if schedule.gamma is None else schedule.gamma
        return kinds.StepLR(optimizer, schedule.step_size or max(1, s.epochs // 3), gamma)
    if schedule.kind == "exponential":
        return kinds.ExponentialLR(optimizer, 0.99 if schedule.gamma is None else schedule.gamma)
    return kinds.ConstantLR(optimizer, factor=1.0)


def _sharpness_aware(parameters: list[nn.Parameter], objective: Callable[[], Tensor], rho: float) -> None:
    """Leave in `.grad` the gradient at the perturbed weights `θ + ρ g / ‖g‖`."""
    g = torch.autograd.grad(objective(), parameters)
    norm = torch.stack([part.norm() for part in g]).norm() + 1e-12
    theta = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, part in zip(parameters, g, strict=True):
            parameter.add_(part * (rho / norm))
    perturbed = torch.autograd.grad(objective(), parameters)
    with torch.no_grad():
        for parameter, before, part in zip(parameters, theta, perturbed, strict=True):
            parameter.copy_(before)
            parameter.grad = part


def _private(
    module: nn.Module,
    parameters: list[nn.Parameter],
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    loss: Loss,
    settings: DPSGD,
    noise: torch.Generator,
) -> None:
    """Leave in `.grad` the sum of clipped per-sample gradients and noise, divided by n."""
    values = {name: part for name, part in module.named_parameters() if part.requires_grad}

    def single(values: dict[str, Tensor], row: Tensor, target: Tensor, w: Tensor) -> Tensor:
        output = torch.func.functional_call(module, values, (row[None],))
        return loss(output, target[None])[0] * w

    detached = {name: part.detach() for name, part in values.items()}
    each = torch.func.vmap(torch.func.grad(single), in_dims=(None, 0, 0, 0))(detached, x, y, weight)
    norms = torch.stack([part.flatten(1).norm(dim=1) for part in each.values()]).norm(dim=0)
    factor = (settings.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
    scale = settings.max_grad_norm * settings.noise_multiplier
    for parameter, part in zip(parameters, each.values(), strict=True):
        total = torch.einsum("n,n...->...", factor, part)
        if scale > 0:
            total += torch.normal(0.0, scale, part.shape[1:], generator=noise, dtype=part.dtype).to(total)
        parameter.grad = total / len(x)
