"""Copies of any torch module, by ``torch.func``: stacked weights and `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from lsi.errors import InputError
from lsi.loo.networks.stack import Batch, LayerRoots, Stack
from lsi.loo.retrain.plain import Loss, cross_entropy

_BYTES = 128 << 20  # bytes of intermediate results that one pass over rows may keep


class ModuleStack(Stack):
    """Copies of a module that gives logits `(n, C)` for rows `(n, D)`.

    Args:
        make: Returns the module, in evaluation mode.
        loss: ``"cross_entropy"``, or a function that returns the losses `(n,)`.
        n_features: D.
        n_classes: C.
        rows: Rows of one pass over the data; None: as many as fit in memory.

    Raises:
        InputError: The module cannot be used; the message says why.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        loss: str | Loss,
        n_features: int,
        n_classes: int,
        rows: int | None = None,
    ) -> None:
        self.make, self.is_cross_entropy = make, not callable(loss)
        self.loss: Loss = loss if callable(loss) else cross_entropy
        with torch.random.fork_rng(devices=[]):
            self.module = make()
        _refuse_mixing(self.module)
        trained = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        if not trained:
            raise InputError("the module has no parameter that needs a gradient. Call requires_grad_(True).")
        self.names = [name for name, _ in trained]
        self._templates: dict[tuple[torch.dtype, torch.device], nn.Module] = {}
        self._seed = 0
        super().__init__([p.shape for _, p in trained], n_classes, rows)
        self._try(n_features, n_classes)
        self.linear = self._linear_layers(n_features)

    def fresh(self) -> nn.Module:
        """Return one module."""
        return self.make()

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the losses that were asked for."""
        return self.loss(output, target)

    def start(self, seed: int) -> Tensor:
        """Return the weights of the module made after ``torch.manual_seed(seed)``."""
        # Frozen weights may be random, too: the templates have to be those of this seed.
        self._seed = seed
        self._templates.clear()
        parameters = dict(self._seeded().named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.names])

    @property
    def last(self) -> tuple[int, ...]:
        """Parameters of the linear layer that runs last."""
        if not self.linear:
            raise InputError("no trained torch.nn.Linear runs in this module. Use posterior_layers='all'.")
        return self._parameters_of(self.linear[-1])

    @property
    def is_all_linear(self) -> bool:
        """Whether every trained parameter belongs to a linear layer that runs once."""
        own = [place for name in self.linear for place in self._parameters_of(name)]
        return sorted(own) == list(range(len(self.names)))

    def bytes_a_row(self, x: Tensor) -> int:
        """Return the bytes a row that a forward pass of one copy keeps for the backward pass."""
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self._template(x)(x[:8])
        return max(1, kept // min(8, len(x)))

    def outputs(self, flat: Tensor, n_copies: int, x: Tensor) -> Tensor:
        """Return the logits `(B, n, C)`."""
        module = self._template(x)
        call = vmap(lambda values: functional_call(module, values, (x,)), randomness="error")
        with torch.no_grad():
            return call(self._named(flat, n_copies))

    def gradient(self, flat: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of the summed loss."""
        module, total = self._template(batch.x), None
        for block in batch.blocks(self._rows(batch)):

            def objective(values: dict[str, Tensor], weight: Tensor, block: Batch = block) -> Tensor:
                return (self.loss(functional_call(module, values, (block.x,)), block.y) * weight).sum()

            part = vmap(grad(objective))(self._named(flat, batch.n_copies), block.weights())
            total = part if total is None else {name: total[name] + part[name] for name in self.names}
        assert total is not None
        return torch.cat([total[name].reshape(-1) for name in self.names])

    def clipped_gradient(self, flat: Tensor, batch: Batch, bound: float) -> Tensor:
        """Return the sum of clipped gradients, from every sample's own gradient in blocks of rows."""
        module, total = self._template(batch.x), torch.zeros_like(flat)

        def single(values: dict[str, Tensor], row: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            return self.loss(functional_call(module, values, (row[None],)), target[None])[0] * weight

        every = vmap(vmap(grad(single), in_dims=(None, 0, 0, 0)), in_dims=(0, None, None, 0))
        rows = max(1, _BYTES // (batch.n_copies * self.n_parameters * flat.element_size()))
        for block in batch.blocks(rows):
            each = every(self._named(flat, batch.n_copies), block.x, block.y, block.weights())
            parts = [each[name].flatten(2) for name in self.names]
            norm = torch.stack([part.norm(dim=2) for part in parts]).norm(dim=0)
            factor = (bound / (norm + 1e-6)).clamp_max(1.0)
            total += torch.cat([torch.einsum("bn,bnk->bk", factor, part).reshape(-1) for part in parts])
        return total

    def jacobian_roots(self, copy: Tensor, batch: Batch) -> Tensor:
        """Return `R_jᵀ J_j` of one copy, `(n, C, K)`."""
        module, values = self._template(batch.x), self._single(copy)

        def output(values: dict[str, Tensor], row: Tensor) -> Tensor:
            return functional_call(module, values, (row[None],))[0]

        jacobians = vmap(jacrev(output), in_dims=(None, 0))(values, batch.x)
        jacobian = torch.cat([jacobians[name].flatten(2) for name in self.names], 2)
        with torch.no_grad():
            logits = functional_call(module, values, (batch.x,))
        return self._root(logits, batch).mT @ jacobian

    def roots(self, copies: Tensor, batch: Batch, last_only: bool) -> list[LayerRoots]:
        """Return inputs and backpropagated columns of the linear layers, copy by copy."""
        names = self.linear[-1:] if last_only else self.linear
        singles = [self._roots_of(copy, batch.of_copy(b), names) for b, copy in enumerate(copies)]
        out = []
        for place, name in enumerate(names):
            inputs = torch.stack([single[place][0] for single in singles])
            columns = torch.stack([single[place][1] for single in singles])
            out.append(LayerRoots(inputs, columns, self._parameters_of(name)))
        return out

    def _roots_of(self, copy: Tensor, batch: Batch, names: list[str]) -> list[tuple[Tensor, Tensor]]:
        """Return inputs `(n, d)` and columns `(n, C, o)` of some linear layers of one copy."""
        module = self._template(batch.x)
        values = {name: value.detach().requires_grad_() for name, value in self._single(copy).items()}
        seen = _Watch(module, names)
        with seen, torch.enable_grad():
            logits = functional_call(module, values, (batch.x,))
        root = self._root(logits.detach(), batch)
        outputs = [seen.outputs[name] for name in names]
        columns = [
            torch.autograd.grad(logits, outputs, root[:, :, c], retain_graph=True)
            for c in range(self.n_outputs)
        ]
        found = []
        for place, name in enumerate(names):
            inputs = seen.inputs[name].detach()
            if len(self._parameters_of(name)) == 2:
                inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
            found.append((inputs, torch.stack([column[place] for column in columns], 1)))
        return found

    def _root(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return `R` with `R Rᵀ = w S`, the curvature of the loss by the logits, `(n, C, C)`."""
        if self.is_cross_entropy:
            p = torch.softmax(logits, 1)
            s = p.sqrt()
            root = torch.diag_embed(s) - p[:, :, None] * s[:, None, :]
        else:
            values, vectors = torch.linalg.eigh(self._loss_curvature(logits, batch.y))
            root = vectors * values.clamp_min(0).sqrt()[:, None, :]
        return root * batch.weights()[0].sqrt()[:, None, None]

    def _loss_curvature(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the Hessians of the losses by the logits, `(n, C, C)`."""
        with torch.enable_grad():
            z = logits.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(z, y).sum(), z, create_graph=True)
            if not slope.requires_grad:  # a loss without curvature
                return z.new_zeros(*z.shape, z.shape[1])
            rows = [torch.autograd.grad(part.sum(), z, retain_graph=True)[0] for part in slope.unbind(1)]
        return torch.stack(rows, 1)

    def _parameters_of(self, layer: str) -> tuple[int, ...]:
        prefix = f"{layer}." if layer else ""
        found = [f"{prefix}weight", f"{prefix}bias"]
        return tuple(self.names.index(name) for name in found if name in self.names)

    def _named(self, flat: Tensor, n_copies: int) -> dict[str, Tensor]:
        return dict(zip(self.names, self.views(flat, n_copies), strict=True))

    def _single(self, copy: Tensor) -> dict[str, Tensor]:
        return {name: view[0] for name, view in self._named(copy, 1).items()}

    def _seeded(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return self.make()

    def _template(self, x: Tensor) -> nn.Module:
        """Return the module in the type and on the device of `x`; its own weights are never used."""
        key = (x.dtype, x.device)
        if key not in self._templates:
            self._templates[key] = self._seeded().to(device=x.device, dtype=x.dtype)
        return self._templates[key]

    def _rows(self, batch: Batch) -> int:
        """Return how many rows to pass through the module at a time."""
        return self.rows or max(16, _BYTES // (2 * batch.n_copies * self.bytes_a_row(batch.x)))

    def _try(self, n_features: int, n_classes: int) -> None:
        """Run a tiny batch of two copies, so that an unusable module is refused before any work."""
        x = torch.zeros((3, n_features))
        try:
            with torch.no_grad():
                output = self._template(x)(x)
            if not isinstance(output, Tensor) or output.shape != (3, n_classes):
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise InputError(
                    f"the module must map features (n, {n_features}) to logits (n, {n_classes}), but for 3 "
                    f"rows it gave {shape}. Wrap it in a module that does."
                )
            where, index = torch.arange(3), torch.tensor([-1, 0])
            batch = Batch.of(x, torch.zeros(3, dtype=torch.long), None, where, index)
            self.gradient(self.spread(self.start(0), 2), batch)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            if isinstance(error, InputError):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"the module cannot be trained as many copies at once: {reason} It has to run on rows "
                f"(n, {n_features}) under torch.func.vmap, without random draws or branches on values."
            ) from error

    def _linear_layers(self, n_features: int) -> list[str]:
        """Return the trained linear layers in the order in which they run, each on one vector a row."""
        linear = [name for name, part in self.module.named_modules() if isinstance(part, nn.Linear)]
        x = torch.zeros((3, n_features))
        with _Watch(self._template(x), linear) as seen, torch.no_grad():
            self._template(x)(x)
        once = [name for name in seen.order if seen.order.count(name) == 1]
        plain = [name for name in once if seen.inputs[name].ndim == 2 and len(seen.inputs[name]) == 3]
        return [name for name in plain if f"{name}.weight".lstrip(".") in self.names]


class _Watch:
    """Keeps the inputs and outputs of some layers while it is open."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        self.parts = {name: part for name, part in module.named_modules() if name in names}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.order: list[str] = []

    def __enter__(self) -> _Watch:
        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
                self.inputs[name], self.outputs[name] = inputs[0], output
                self.order.append(name)

            return hook

        self.hooks = [part.register_forward_hook(keep(name)) for name, part in self.parts.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def _refuse_mixing(module: nn.Module) -> None:
    """Refuse layers that mix samples or draw at random."""
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise InputError(
                f"layer {name!r} is batch normalisation, which mixes samples, so that no sample has a loss "
                "of its own. Use torch.nn.GroupNorm or LayerNorm."
            )
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            raise InputError(f"layer {name!r} is dropout, which draws at random. Set its p to 0.")
