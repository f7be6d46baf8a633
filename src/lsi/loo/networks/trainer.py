"""Training of many copies at once, by any of the algorithms in `lsi.methods.algorithms`.

Each step equals that of its namesake in ``torch.optim``, or in Opacus, to rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lsi.errors import ConvergenceError, InputError
from lsi.loo.networks.stack import Batch, Stack
from lsi.methods.algorithms import DPSGD, SAM, Adam
from lsi.methods.retrain import Retrain

Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Data:
    """Training data: `x` `(N, D)`, class codes `y` `(N,)`, sample weights `(N,)` or None if all are one."""

    x: Tensor
    y: Tensor
    weight: Tensor | None


class StackTrainer:
    """Trains B copies of a network at a time, each on all samples but one (or on all).

    Args:
        stack: The network.
        data: The samples, in the type to train in.
        settings: The protocol.
        weight_decay: On the scale of the mean loss.

    Raises:
        InputError: A batch size that leaves a batch of a single sample.
    """

    def __init__(self, stack: Stack, data: Data, settings: Retrain, weight_decay: float) -> None:
        self.stack, self.data, self.settings, self.weight_decay = stack, data, settings, weight_decay
        check_batches(len(data.x), settings.batch_size)

    def train(
        self,
        start: Tensor,
        index: Tensor,
        seed: int,
        tick: Callable[[], None] | None = None,
        record: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Return the trained copies `(B, K)`; an index of −1 leaves no sample out.

        Shapes: start `(K,)`, index `(B,)`.
        """
        s, stack, b = self.settings, self.stack, len(index)
        flat = stack.spread(start.to(self.data.x), b)
        stepper = Stepper(stack, s, self.weight_decay, b, seed)
        fixed = list(self.batches(index)) if len(self.data.x) * b <= 1 << 24 else None
        for epoch in range(s.epochs):
            lr = s.lr * s.learning_rate.factor(epoch, s.epochs)
            for batch in fixed or self.batches(index):
                stepper.step(flat, batch, lr)
            if tick is not None:
                tick()
            if record is not None and s.records(epoch + 1):
                record(epoch + 1, stack.gather(flat, b))
        if not bool(flat.isfinite().all()):
            raise ConvergenceError(
                f"Training diverged within {s.epochs} epochs at lr={s.lr}: lower it, or standardise X."
            )
        return stack.gather(flat, b)

    def batches(self, index: Tensor) -> Iterator[Batch]:
        """Yield the batches of an epoch in the order of the data; the last one may be smaller."""
        data, n = self.data, len(self.data.x)
        size = self.settings.batch_size or n
        for low in range(0, n, size):
            rows = slice(low, min(n, low + size))
            where = torch.arange(rows.start, rows.stop, device=index.device)
            weight = None if data.weight is None else data.weight[rows]
            yield Batch.of(data.x[rows], data.y[rows], weight, where, index)


class Stepper:
    """Takes steps on a flat buffer and keeps the state of the algorithm.

    Args:
        stack: The network.
        settings: The protocol.
        weight_decay: On the scale of the mean loss.
        n_copies: B.
        seed: Seed of the noise.
    """

    def __init__(
        self, stack: Stack, settings: Retrain, weight_decay: float, n_copies: int, seed: int
    ) -> None:
        self.stack, self.settings, self.n_copies = stack, settings, n_copies
        self.weight_decay, self.algorithm = weight_decay, settings.algorithm
        self.steps, self.state = 0, list[Tensor]()
        self.noise = torch.Generator().manual_seed(seed)

    def step(self, flat: Tensor, batch: Batch, lr: float) -> None:
        """Change `flat` by one step on a batch."""
        gradient = self._gradient(flat, batch)
        self.steps += 1
        if isinstance(self.algorithm, Adam):
            self._adam(flat, gradient, lr, self.algorithm)
        else:
            self._momentum(flat, gradient, lr)

    def _gradient(self, flat: Tensor, batch: Batch) -> Tensor:
        """Return the algorithm's gradient of the mean loss, without weight decay, flat."""
        stack, share = self.stack, 1.0 / batch.count
        algorithm = self.algorithm
        if isinstance(algorithm, DPSGD):
            gradient = stack.clipped_gradient(flat, batch, algorithm.max_grad_norm)
            scale = algorithm.noise_multiplier * algorithm.max_grad_norm
            if scale > 0:
                gradient += self._noise(scale, flat)
            return stack.scale(gradient, share)
        gradient = stack.scale(stack.gradient(flat, batch), share)
        if isinstance(algorithm, SAM):
            # The gradient at θ + ρ g / ‖g‖.
            length = algorithm.rho / (stack.norm(gradient, self.n_copies) + 1e-12)
            perturbed = stack.scale(gradient, length).add_(flat)
            return stack.scale(stack.gradient(perturbed, batch), share)
        return gradient

    def _noise(self, scale: float, like: Tensor) -> Tensor:
        """Return the same draw for every copy, parameter by parameter as Opacus draws it, flat."""
        shapes = self.stack.shapes
        draws = [torch.normal(0.0, scale, shape, generator=self.noise, dtype=like.dtype) for shape in shapes]
        flat = torch.cat([draw.expand(self.n_copies, *draw.shape).reshape(-1) for draw in draws])
        return flat.to(like.device)

    def _momentum(self, flat: Tensor, gradient: Tensor, lr: float) -> None:
        """Step as ``torch.optim.SGD`` does: `v ← μ v + g`, then `θ ← θ − η (g + μ v)` or `θ − η v`."""
        s = self.settings
        gradient.add_(flat, alpha=self.weight_decay)
        if s.momentum > 0:
            if self.steps == 1:
                self.state = [gradient.clone()]
            else:
                self.state[0].mul_(s.momentum).add_(gradient)
            gradient = gradient.add_(self.state[0], alpha=s.momentum) if s.nesterov else self.state[0]
        flat.sub_(gradient, alpha=lr)

    def _adam(self, flat: Tensor, gradient: Tensor, lr: float, settings: Adam) -> None:
        """Step as ``torch.optim.Adam`` does: `θ ← θ − η m̂ / (√v̂ + ε)` with the means m of g and v of g².

        `m̂ = m / (1 − β₁ᵗ)`, `v̂ = v / (1 − β₂ᵗ)`.
        """
        beta1, beta2 = settings.betas
        if settings.decoupled:
            flat.mul_(1.0 - lr * self.weight_decay)
        else:
            gradient.add_(flat, alpha=self.weight_decay)
        if not self.state:
            self.state = [torch.zeros_like(flat), torch.zeros_like(flat)]
        m, v = self.state
        m.lerp_(gradient, 1.0 - beta1)
        v.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        root = v.sqrt().div_((1.0 - beta2**self.steps) ** 0.5).add_(settings.eps)
        flat.addcdiv_(m, root, value=-lr / (1.0 - beta1**self.steps))


def check_batches(n_samples: int, batch_size: int | None) -> None:
    """Refuse a batch of a single sample: it would be empty without that sample."""
    if batch_size is not None and batch_size < n_samples and n_samples % batch_size == 1:
        fitting = next(size for size in range(batch_size + 1, n_samples + 1) if n_samples % size != 1)
        raise InputError(
            f"batch_size={batch_size} leaves a last batch of one of the {n_samples} samples, which is empty "
            f"without that sample. Use {fitting}."
        )
