"""Settings of the contrastive probe: two linear heads that map the partners of a pair close together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lsi.errors import InputError
from lsi.validation.settings import check_positive


@dataclass(frozen=True)
class ContrastiveProbe:
    r"""Two linear projection heads on two frozen encoders, trained by the symmetric InfoNCE loss.

    With embeddings :math:`u_i = z_i / \sqrt{\|z_i\|^2 + \epsilon^2}`, :math:`z_i = W \hat x_i`, and likewise
    :math:`v_i` of :math:`V \hat y_i`, logits :math:`s_{ij} = u_i^\top v_j / T`:

    .. math:: \min_{W, V} \frac1n \sum_i \tfrac12 \Bigl[-\log\frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
              - \log\frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}}\Bigr]
              + \tfrac12\, \mathrm{weight\_decay} \,\bigl(\|W - W_0\|^2 + \|V - V_0\|^2\bigr)

    where:

    * :math:`\hat x = \sqrt{D}\, x / \|x\|`: the length of a row of features does not matter;
    * :math:`\epsilon^2 = \mathrm{norm\_floor}^2\, d / 3`, with d / 3 the expected square length of a fresh
      embedding. Without a floor the direction of an embedding jumps where it passes through zero. Training
      drives mismatched pairs there, and no optimum exists;
    * :math:`W_0, V_0` are the initial weights. Normalised embeddings hardly depend on the scale of a head,
      and never on a rotation of both heads, so that decay towards zero would leave the optimum undefined.

    The loss is not convex: results belong to the local optimum that training from :math:`W_0, V_0` reaches.

    Args:
        dim: Dimension d of the common space.
        temperature: T.
        weight_decay: Strength of the pull to the initial weights, on the scale of the mean loss.
        norm_floor: See above; 0 means strict normalisation.
        batch_size: Every pair is compared with the pairs of its batch; None: with all. Batches are fixed:
            blocks of a permutation drawn from `seed`, equal in size up to one pair.
        seed: Seed of the initial weights (``torch.manual_seed(seed)``, then a ``torch.nn.Linear`` without
            bias for each head, left first) and of the batches.

    Raises:
        InputError: Settings outside their range.
    """

    dim: int = 32
    temperature: float = 0.2
    weight_decay: float = 0.3
    norm_floor: float = 0.3
    batch_size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dim < 2:
            raise InputError(f"dim must be at least 2, got {self.dim!r}.")
        if self.batch_size is not None and self.batch_size < 4:
            raise InputError(
                f"batch_size must be at least 4, or None for all pairs; got {self.batch_size!r}."
            )
        check_positive("temperature", self.temperature)
        check_positive("weight_decay", self.weight_decay, allow_zero=True)
        check_positive("norm_floor", self.norm_floor, allow_zero=True)
        if not 0.005 <= self.temperature:
            raise InputError(f"temperature={self.temperature!r} is too low: use 0.005 or more.")

    def initial_weights(self, n_left: int, n_right: int) -> tuple[Tensor, Tensor]:
        """Return the initial heads `(d, D1)` and `(d, D2)`, float32; the global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            heads = [torch.nn.Linear(n, self.dim, bias=False).weight.detach() for n in (n_left, n_right)]
        return heads[0], heads[1]

    def batches(self, n_pairs: int) -> list[Tensor]:
        """Return the positions of the pairs of each batch, ascending within a batch."""
        if self.batch_size is None or self.batch_size >= n_pairs:
            return [torch.arange(n_pairs)]
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(n_pairs, generator=generator)
        count = -(-n_pairs // self.batch_size)
        return [part.sort().values for part in order.tensor_split(count)]

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the manifest."""
        return {"kind": "contrastive", **asdict(self)}
