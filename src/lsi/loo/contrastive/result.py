"""What leaving out pairs gives: aligned arrays, one entry a left-out pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from lsi.loo.contrastive.model import Embeddings, PairModel
from lsi.loo.contrastive.precision import Divergences

MATCH_NUMBERS = 1 << 23
"""Numbers of the embeddings of one block of left-out pairs."""


@dataclass
class PairResult:
    """Leave-one-out quantities of the scored pairs, in the order asked for.

    Attributes:
        mean_term: Of both heads as one vector, nats, `(n,)` float64.
        covariance_term: Nats.
        lsi_left: LSI of the left head, nats.
        lsi_right: LSI of the right head, nats.
        loo_probability: InfoNCE probability of the own partner under heads that never saw the pair; the
            mean of both directions.
        loo_rank: Place of the own partner among the candidates, 1 for the likeliest; the mean of both
            directions.
        loo_prediction: Position of the likeliest right partner of the left item.
        leverage: Trace of the pair's own curvature in the metric of the inverse Hessian; NaN without one.
        relative_error: Certificate; NaN without one.
    """

    mean_term: np.ndarray
    covariance_term: np.ndarray
    lsi_left: np.ndarray
    lsi_right: np.ndarray
    loo_probability: np.ndarray
    loo_rank: np.ndarray
    loo_prediction: np.ndarray
    leverage: np.ndarray
    relative_error: np.ndarray

    @classmethod
    def empty(cls, n: int) -> PairResult:
        """Return a result of NaN, to be filled block by block."""
        values = {field.name: np.full(n, np.nan) for field in fields(cls)}
        values["loo_prediction"] = np.full(n, -1, dtype=np.int64)
        return cls(**values)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def put(self, where: np.ndarray | slice, columns: Mapping[str, np.ndarray]) -> None:
        """Write the columns of a block."""
        for name, column in columns.items():
            getattr(self, name)[where] = column

    @property
    def lsi(self) -> np.ndarray:
        """LSI of both heads as one vector, nats."""
        return self.mean_term + self.covariance_term

    def put_terms(self, where: np.ndarray | slice, divergences: Divergences) -> None:
        """Write the divergences of a block."""
        left, right, both = divergences
        self.mean_term[where], self.covariance_term[where] = both.mean.numpy(), both.covariance.numpy()
        self.lsi_left[where], self.lsi_right[where] = left.total.numpy(), right.total.numpy()

    def put_match(
        self, where: np.ndarray | slice, model: PairModel, positions: Tensor, theta: Tensor
    ) -> None:
        """Write how the own partner does under the heads `theta`, `(B, K)`, of each left-out pair."""
        rows = model.batch_of(int(positions[0]))
        # Every left-out pair has embeddings of all candidates of its own: n · d numbers.
        size = max(1, MATCH_NUMBERS // (len(rows) * model.dim))
        parts = [
            _match(model, rows, torch.searchsorted(rows, some), heads)
            for some, heads in zip(positions.split(size), theta.split(size), strict=True)
        ]
        probability, rank, best = (torch.cat(values) for values in zip(*parts, strict=True))
        self.loo_probability[where], self.loo_rank[where] = probability.numpy(), rank.numpy()
        self.loo_prediction[where] = rows[best].numpy()


def _match(model: PairModel, rows: Tensor, at: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probability and rank of the own partner, and the likeliest one's position in the batch."""
    heads = theta[:, : model.n_left], theta[:, model.n_left :]
    here = torch.arange(len(at))
    units = []
    for head, x in zip(heads, (model.x, model.y), strict=True):
        flat = head.reshape(len(at) * model.dim, -1).to(x.dtype)
        z = (x[rows] @ flat.T).view(len(rows), len(at), model.dim)
        units.append(Embeddings.of(z, model.floor).unit)
    probability = torch.zeros(len(at), dtype=torch.float64)
    rank, best = torch.zeros_like(probability), at
    for direction, (own, others) in enumerate((units, units[::-1])):
        cosine = torch.einsum("bd,nbd->bn", own[at, here], others)
        partner = cosine[here, at]
        probability += 0.5 * torch.softmax(cosine / model.temperature, 1)[here, at]
        rank += 0.5 * (1 + (cosine > partner[:, None]).sum(1))
        if direction == 0:
            best = cosine.argmax(1)
    return probability, rank, best
