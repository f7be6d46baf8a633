"""Leave-one-out of a network: trained copies, their posteriors, and the divergence between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lsi.loo.networks.curvature import NetworkPosterior
from lsi.loo.networks.stack import Stack
from lsi.loo.networks.trainer import Data, StackTrainer
from lsi.loo.result import LooResult
from lsi.loo.retrain.copies import CopiesEngine, Record, Scorer
from lsi.loo.retrain.plain import train_plainly
from lsi.methods.retrain import Retrain

_BYTES = 256 << 20  # bytes of one block of copies, with all that an optimizer keeps
_ARRAYS = 6  # arrays of a copy's size: weights, gradient, two states, two temporaries


class NetworkEngine(CopiesEngine):
    """Leave-one-out scores of a network by training it again.

    Args:
        stack: The network.
        data: The samples, in the type to train in.
        settings: The protocol.
        weight_decay: On the scale of the mean loss.
        posterior: The structure of the posterior.
        block: Copies to train together; None: as `block_size` says.

    Raises:
        InputError: A batch size that leaves a batch of a single sample.
    """

    def __init__(
        self,
        stack: Stack,
        data: Data,
        settings: Retrain,
        weight_decay: float,
        posterior: NetworkPosterior,
        block: int | None = None,
    ) -> None:
        super().__init__(settings, data.x.device, block)
        self.stack, self.data, self.weight_decay = stack, data, weight_decay
        self.posterior = posterior
        self.trainer = StackTrainer(stack, data, settings, weight_decay)

    def start(self, seed: int) -> Tensor:
        """Return the initial weights `(K,)`."""
        return self.stack.start(seed)

    def block_size(self) -> int:
        """Return how many copies to train together: as many as fit in the caches, within bounds."""
        size = self.data.x.element_size()
        fast = 256 if self.device.type != "cpu" else self.stack.copies_in_cache(len(self.data.x), size)
        return int(max(1, min(256, fast, _BYTES // (_ARRAYS * self.stack.n_parameters * size))))

    def train(
        self,
        start: Tensor,
        index: Tensor,
        seed: int,
        tick: Callable[[], None] | None,
        record: Record | None,
    ) -> Tensor:
        """Return trained copies `(B, K)`."""
        return self.trainer.train(start, index, seed, tick, record)

    def train_plainly(self, seed: int, left_out: int | None) -> Tensor:
        """Return one copy `(K,)`."""
        data = self.data
        self.start(seed)  # frozen weights depend on the seed, too
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.stack.fresh().to(data.x)
        weight = data.x.new_ones(len(data.x)) if data.weight is None else data.weight.to(data.x)
        settings, loss = self.settings, self.stack.losses
        train_plainly(module, data.x, data.y, weight, settings, self.weight_decay, seed, left_out, loss)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.cat([parameter.detach().reshape(-1) for parameter in trained])

    def scorer(self, whole: Tensor) -> Scorer:
        """Return the function that scores copies against the full-data weights `whole`, `(K,)`."""
        whole = whole.to(torch.float64)
        nothing = torch.tensor([-1], device=whole.device)
        first = self.posterior.precision(whole[None], nothing)

        def score(index: Tensor, copies: Tensor) -> LooResult:
            copies, index = copies.to(torch.float64), index.to(copies.device)
            terms = self.posterior.score(whole, copies, index, first)
            probability, prediction = self._predict(copies, index)
            unknown = torch.full_like(probability, float("nan"))
            columns = (terms.mean, terms.covariance, probability, prediction, unknown, unknown)
            return LooResult(*(column.cpu().numpy() for column in columns))

        return score

    def _predict(self, copies: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of the given label and the likeliest class, without each sample."""
        x, y = self.data.x[index].to(torch.float64), self.data.y[index]
        every = self.stack.outputs(self.stack.scatter(copies), len(copies), x)
        own = torch.arange(len(index), device=index.device)
        p = torch.softmax(every[own, own], 1)
        return p[own, y], p.argmax(1)
