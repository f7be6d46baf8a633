"""The `Newton` engine for many classes: class blocks for every sample, all of the curvature for some."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lsi.loo.newton.blocks import BlockSolver
from lsi.loo.newton.chord import EXACT_BYTES, MARGIN, ChordScorer
from lsi.loo.newton.engine import loo_prediction
from lsi.loo.newton.exact import ExactScorer
from lsi.loo.newton.settings import Newton
from lsi.loo.result import LooResult
from lsi.posterior.base import Posterior
from lsi.posterior.sparse import SparseRemoval, sparse_scorer
from lsi.probes.blocks import BlockCurvature
from lsi.probes.model import SoftmaxModel
from lsi.progress import Progress

PILOTS = 24  # samples solved with all of the curvature to see what the class blocks miss
# What solving one sample takes: sweeps over all rows and classes, and products with the sparse curvature.
PASSES, PRODUCTS = 6, 160
REFINE_WORK = 5e12  # operations spent on the samples that matter most
REFINE_BLOCK = 16
ROUGH_AUDIT = 1e-7  # squared error of an audit by chord steps: values good to a thousandth
BLOCK_BYTES = 1 << 28


class BlockEngine:
    """Leave-one-out optima of a probe whose Hessian is too large to be formed.

    Every sample is scored from class blocks. A few pilots, and then as many of the highest scores as the
    budget of operations allows, are solved to their optima with all of the curvature; the pilots tell how
    far the values of the others are off, which is their certificate.

    Args:
        curvature: Class blocks at the trained weights.
        posterior: The posterior that scores are taken of, `diag` or `kron`.
        settings: Tolerance; None: no refinement.
        memory: Bytes that the run may use; None: no limit.
    """

    def __init__(
        self, curvature: BlockCurvature, posterior: Posterior, settings: Newton, memory: int | None = None
    ) -> None:
        self.model: SoftmaxModel = curvature.model
        self.posterior, self.settings = posterior, settings
        self._block_bytes = BLOCK_BYTES if memory is None else min(BLOCK_BYTES, memory // 16)
        self.solver = BlockSolver(curvature)
        self.start = self.model.objective_and_gradient(self.model.theta)[1]
        self._scorer = sparse_scorer(posterior, self.solver.decay_step)
        self._chord = ChordScorer(self.solver, posterior, self.start)

    def exact_scorer(self, tolerance: float) -> ExactScorer | ChordScorer:
        """Return what the audit solves with: float64 throughout where that fits, else chord steps.

        Args:
            tolerance: Squared relative decrement.
        """
        if 4 * 8 * self.model.n_samples * self.model.n_classes <= EXACT_BYTES:
            return ExactScorer(self.posterior, self.solver, self.start, tolerance)
        return ChordScorer(self.solver, self.posterior, self.start, max(tolerance, ROUGH_AUDIT))

    def block_size(self) -> int:
        """Return how many samples one block holds: enough for each class, within bounds of memory."""
        c, d = self.model.n_classes, self.model.design.n_features
        return int(max(256, min(64 * c, self._block_bytes // (4 * (8 * d + 6 * c)))))

    def run(self, index: Tensor, progress: Progress | None = None) -> LooResult:
        """Return the leave-one-out result of the samples at `index`, in that order."""
        result = LooResult.empty(len(index))
        done = 0
        for block in torch.arange(len(index)).split(self.block_size()):
            removal, leverage = self.solver.sparse(index[block.to(index.device)])
            result.put(block.numpy(), self._result(removal, leverage))
            done += len(block)
            if progress is not None:
                progress("leave-one-out", done, len(index))
        if self.settings.tol is not None:
            self._refine(index, result, progress)
        return result

    def _result(self, removal: SparseRemoval, leverage: Tensor) -> LooResult:
        terms = self._scorer.divergence(removal)
        logits = removal.probabilities.clamp_min(1e-38).log() + removal.logit_shift
        target = removal.target
        p = torch.softmax(logits, -1)
        columns = (
            terms.mean,
            terms.covariance,
            p.gather(1, target[:, None])[:, 0].to(torch.float64),
            p.argmax(-1),
            leverage,
            torch.full_like(leverage, float("nan")),
        )
        return LooResult(*(column.cpu().numpy() for column in columns))

    def refined_count(self, n_scored: int) -> int:
        """Return how many of the highest scores are solved with all of the curvature."""
        sweeps = 4.0 * self.model.n_samples * self.model.theta.numel() * PASSES
        products = 4.0 * self.solver.curvature.entries.count * self.model.design.n_features * PRODUCTS
        sample = sweeps + 2.0 * products  # gathering rows takes about as long as the products
        return int(min(n_scored, REFINE_WORK / sample))

    def _refine(self, index: Tensor, result: LooResult, progress: Progress | None) -> None:
        """Certify everything by pilots, and solve the highest scores with all of the curvature."""
        n = len(index)
        order = np.argsort(result.lsi, kind="stable")
        ranks = np.unique(np.linspace(0, n - 1, min(PILOTS, n)).astype(int))
        pilots, before = order[ranks], result.lsi.copy()
        top = np.setdiff1d(order[n - self.refined_count(n) :], pilots)
        total = len(pilots) + len(top)
        self._solve(index, result, pilots, progress, 0, total)
        exact = np.maximum(result.lsi[pilots], np.finfo(float).tiny)
        missed = np.abs(before[pilots] / exact - 1.0)
        certified = result.relative_error[pilots].copy()
        result.relative_error[order] = _nearest(ranks, missed, n)
        result.relative_error[pilots] = certified
        self._solve(index, result, top, progress, len(pilots), total)

    def _solve(
        self,
        index: Tensor,
        result: LooResult,
        which: np.ndarray,
        progress: Progress | None,
        done: int,
        total: int,
    ) -> None:
        """Replace the entries `which` by values at their optima."""
        for part in np.array_split(which, max(1, -(-len(which) // REFINE_BLOCK))) if len(which) else ():
            where = index[torch.from_numpy(part).to(index.device)]
            first = self.solver.first_order(where)
            delta, error, terms = self._chord.score(first, first.delta)
            probability, prediction = loo_prediction(self.model, where, delta)
            known = torch.isfinite(error).cpu().numpy()
            found = LooResult(
                terms.mean.cpu().numpy(),
                terms.covariance.cpu().numpy(),
                probability.cpu().numpy(),
                prediction.cpu().numpy(),
                result.leverage[part],
                (self.posterior.float32_floor + MARGIN * error).cpu().numpy(),
            )
            result.put(part[known], found.select(known))
            result.relative_error[part[~known]] = np.inf
            done += len(part)
            if progress is not None:
                progress("refine", done, total)


def _nearest(ranks: np.ndarray, missed: np.ndarray, n: int) -> np.ndarray:
    """Return for every rank the largest of the errors of the five nearest pilots, with a margin of two."""
    padded = np.pad(missed, 2, mode="edge")
    around = 2.0 * np.lib.stride_tricks.sliding_window_view(padded, 5).max(axis=1)
    return np.asarray(around[np.clip(np.searchsorted(ranks, np.arange(n)), 0, len(ranks) - 1)])
