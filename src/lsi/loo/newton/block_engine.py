"""The `Newton` engine for many classes: class blocks for every sample, the whole curvature for some."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lsi.execution.halving import halving
from lsi.execution.work import Arrays, Shard, Tick, Work
from lsi.loo.engine import Engine
from lsi.loo.newton.blocks import BlockSolver
from lsi.loo.newton.coupled import CoupledRefiner, coupled_work, walked_together
from lsi.loo.newton.optima import AUDIT_TOLERANCE, exact_optima
from lsi.loo.newton.refine import Refiner
from lsi.loo.result import LooResult, loo_prediction
from lsi.methods import Newton
from lsi.posterior.base import Posterior
from lsi.posterior.sparse import sparse_scorer
from lsi.probes.softmax.blocks import BlockCurvature
from lsi.probes.softmax.model import SoftmaxModel

PILOTS = 32  # samples solved with the whole curvature to measure what the others' values miss
# Cost of solving one sample: sweeps over all rows and classes, with their exponentials, and products with
# the sparse curvature. Measured on 20,000 × 256 × 100, overlapping and separate classes: within 1.4 times.
PASSES, ELEMENT, PRODUCTS = 4, 1200.0, 20
SOLVE_WORK = 1e12  # operations spent on solving the highest scores in the same way: some ten seconds
COUPLE_WORK = 1e14  # and on coupled steps of those that follow: a quarter of an hour on two cores
REFINE_BLOCK = 16
TINY = np.finfo(float).tiny
PART = 512  # samples with coupled steps that an interruption loses at most
BLOCK_BYTES = 1 << 28


class BlockEngine(Engine):
    """Leave-one-out optima of a probe whose Hessian is too large to be formed.

    Every sample is scored from class blocks. The highest scores are solved to their optima with the whole
    curvature, as many as SOLVE_WORK allows, and those that follow get steps that know how classes are coupled
    (`CoupledRefiner`), as many as COUPLE_WORK allows: of small data, all. Pilots among both kinds are solved
    too. A certificate is what the sample's own steps left, if it took any, and twice what the pilots of its
    kind miss beyond theirs. A walk that does not arrive leaves the value of the class blocks, of which
    nothing is known.

    Args:
        curvature: Class blocks at the trained weights.
        posterior: The posterior whose divergence is the score, `diag` or `kron`.
        settings: Tolerance; None: no refinement.
        memory: Bytes that the run may use; None: no limit.
    """

    audit_block = 4

    def __init__(
        self, curvature: BlockCurvature, posterior: Posterior, settings: Newton, memory: int | None = None
    ) -> None:
        self.model: SoftmaxModel = curvature.model
        self.posterior, self.settings = posterior, settings
        self._block_bytes = BLOCK_BYTES if memory is None else min(BLOCK_BYTES, memory // 16)
        self.solver = BlockSolver(curvature)
        self._scorer = sparse_scorer(posterior, self.solver.decay_step)
        tol = AUDIT_TOLERANCE if settings.tol is None else settings.tol
        self._refiner = Refiner(self.model, self.solver, posterior, tol, settings.max_passes)
        self._coupled = CoupledRefiner(self.solver, posterior)

    def exact(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return LSI at the optima, found in double precision, as `exact`. Shapes: positions `(n,)`."""
        return exact_optima(self._refiner, self.solver, positions)

    def block_size(self) -> int:
        """Return how many samples one block holds: enough for each class, within the memory."""
        c, d = self.model.n_classes, self.model.design.n_features
        return int(max(256, min(64 * c, self._block_bytes // (4 * (8 * d + 6 * c)))))

    def run(self, index: Tensor, work: Work | None = None) -> LooResult:
        """Return the leave-one-out result of the samples at `index`, in that order.

        Which samples are refined depends on all scores, so every shard scores all samples from class blocks,
        and only the refinement is divided.

        Shapes: index `(n,)`.
        """
        work, result, size = work or Work(), LooResult.empty(len(index)), self.block_size()
        tasks = [slice(low, min(low + size, len(index))) for low in range(0, len(index), size)]
        positions = [index[which].cpu().numpy() for which in tasks]
        for place, arrays in work.map("leave-one-out", self, "score_task", positions, divided=False):
            result.put(tasks[place], arrays)
        if self.settings.tol is not None:
            self._refine(index, tasks, result, work)
        own = [np.arange(len(index))[tasks[place]] for place in work.own(len(tasks))]
        result.done[:] = False
        result.done[np.concatenate(own) if own else []] = True
        return result

    def score_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result from class blocks, for the samples at `positions`.

        Shapes: positions `(n,)`.
        """
        return _joined(halving(positions, max(1, len(positions)), self._score_few))

    def _score_few(self, positions: np.ndarray) -> Arrays:
        removal, leverage = self.solver.sparse(torch.from_numpy(positions).to(self.model.design.device))
        terms = self._scorer.divergence(removal)
        logits = removal.probabilities.clamp_min(1e-38).log() + removal.logit_shift
        p = torch.softmax(logits, -1)
        columns = {
            "mean_term": terms.mean,
            "covariance_term": terms.covariance,
            "loo_probability": p.gather(1, removal.target[:, None])[:, 0].to(torch.float64),
            "loo_prediction": p.argmax(-1),
            "leverage": leverage,
            "relative_error": torch.full_like(leverage, float("nan")),
        }
        return {name: column.cpu().numpy() for name, column in columns.items()}

    def counts(self, n_scored: int) -> tuple[int, int]:
        """Return how many of the highest scores are solved, and how many after them get coupled steps."""
        model, n_entries = self.model, self.solver.curvature.entries.count
        n, d, c = model.n_samples, model.design.n_features, model.n_classes
        return refined_counts(n_scored, n, d, c, n_entries, self.posterior.name)

    def _refine(self, index: Tensor, tasks: list[slice], result: LooResult, work: Work) -> None:
        """Replace the values of the highest scores by better ones, and certify the others by pilots."""
        n, order = len(index), np.argsort(result.lsi, kind="stable")
        n_solved, n_coupled = self.counts(n)
        plain, coupled, solved = np.split(order, [n - n_solved - n_coupled, n - n_solved])
        self._replace(index, result, _parts(solved, tasks, work.shard), work, "refine", "solve_task")
        kinds = [kind for kind in (plain, coupled) if len(kind)]
        pilots = [_spread(kind, PILOTS // len(kinds)) for kind in kinds]
        every = np.concatenate([solved[:0], *pilots])
        few, others = np.intersect1d(coupled, every), np.setdiff1d(coupled, every)
        self._replace(index, result, [few], work, "few", "couple_task", divided=False)
        self._replace(index, result, _parts(others, tasks, work.shard), work, "couple", "couple_task")
        certificate, before = np.nan_to_num(result.relative_error, posinf=np.inf), result.lsi.copy()
        apart = np.array_split(every, -(-PILOTS // REFINE_BLOCK))
        self._replace(index, result, apart, work, "pilots", "solve_task", divided=False)
        for kind, few in zip(kinds, pilots, strict=True):
            missed = np.abs(before[few] / np.maximum(result.lsi[few], TINY) - 1.0)
            missed[np.isinf(result.relative_error[few])] = np.inf  # the optimum was not found
            arrived = np.isfinite(certificate[few])  # others' values are of another kind
            beyond = (missed - certificate[few])[arrived].max() if arrived.any() else np.inf
            others = np.setdiff1d(kind, few)
            result.relative_error[others] = certificate[others] + 2.0 * max(beyond, 0.0)

    def _replace(
        self,
        index: Tensor,
        result: LooResult,
        parts: list[np.ndarray],
        work: Work,
        stage: str,
        method: str,
        *,
        divided: bool = True,
    ) -> None:
        """Replace the entries of each of `parts` by the values that a method finds, where these are known."""
        positions = [index[torch.from_numpy(part).to(index.device)].cpu().numpy() for part in parts]
        for place, arrays in work.map(stage, self, method, positions, divided=divided):
            part, known = parts[place], arrays.pop("known")
            result.put(part[known], {name: column[known] for name, column in arrays.items()})
            result.relative_error[part[~known]] = np.inf

    def couple_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result after coupled steps, and which arrived, as `known`.

        Shapes: positions `(n,)`.
        """
        model = self.model
        together = walked_together(model.design.n_features, model.n_classes, self._block_bytes)
        return self._refined(self._coupled, positions, together, tick)

    def solve_task(self, positions: np.ndarray, tick: Tick) -> Arrays:
        """Return the columns of a result at the optima, and which of them were reached, as `known`.

        Shapes: positions `(n,)`.
        """
        even = -(-len(positions) // max(1, -(-len(positions) // REFINE_BLOCK)))
        return self._refined(self._refiner, positions, even, tick)

    def _refined(self, refiner: Refiner, positions: np.ndarray, together: int, tick: Tick) -> Arrays:
        """Return what a refiner finds, so many samples together."""

        def few(positions: np.ndarray) -> Arrays:
            where = torch.from_numpy(positions).to(self.model.design.device)
            found = refiner.refine(self.solver.first_order(where))
            probability, prediction = loo_prediction(self.model, where, found.delta)
            columns = {
                "mean_term": found.terms.mean,
                "covariance_term": found.terms.covariance,
                "loo_probability": probability,
                "loo_prediction": prediction,
                "relative_error": found.certificate,
                "known": found.certificate <= refiner.tol,
            }
            return {name: column.cpu().numpy() for name, column in columns.items()}

        parts = []
        for part in halving(positions, together, few):
            parts.append(part)
            tick(len(part["known"]))
        return _joined(parts)


def refined_counts(n_scored: int, n: int, d: int, c: int, n_entries: int, posterior: str) -> tuple[int, int]:
    """Return how many scores are solved with the whole curvature, and how many get coupled steps."""
    solved = int(min(n_scored, SOLVE_WORK / solving_work(n, d, c, n_entries)))
    return solved, int(min(n_scored - solved, COUPLE_WORK / coupled_work(n_entries, d, c, posterior)))


def solving_work(n_samples: int, n_features: int, n_classes: int, n_entries: int) -> float:
    """Return the operations of solving one sample; `n_entries` probabilities of all rows are noticeable."""
    sweep = n_samples * (6.0 * n_features * (n_classes - 1) + ELEMENT * n_classes)
    # Gathering rows takes about as long as the products.
    return PASSES * sweep + PRODUCTS * 8.0 * n_entries * n_features


def _joined(parts: Iterable[Arrays]) -> Arrays:
    """Return the columns of several blocks, one after the other."""
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """Return about `count` of them, evenly from the first to the last."""
    return places[np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(int))]


def _parts(places: np.ndarray, tasks: list[slice], shard: Shard | None) -> list[np.ndarray]:
    """Divide entries of a result into parts that belong to the shard whose task they come from."""
    apart = 1 if shard is None else shard.of
    every = -(-len(tasks) // apart) * apart  # so that a part's shard is that of its task
    of_task = [np.sort(places[(places >= task.start) & (places < task.stop)]) for task in tasks]
    most = max(1, *(-(-len(part) // PART) for part in of_task))
    parts = [np.empty(0, dtype=int)] * (every * most)
    for task, whole in enumerate(of_task):
        for round_, start in enumerate(range(0, len(whole), PART)):
            parts[round_ * every + task] = whole[start : start + PART]
    return parts
