"""Changes whose walk does not end: the probe is trained again on what is left, from the weights there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lsi.features.design import Design
from lsi.loo.edits.edits import Edits
from lsi.loo.edits.refine import EditRefiner
from lsi.loo.edits.solver import EditSolver, Prepared
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.newton.refine import Refined
from lsi.probes.softmax.fit import fit
from lsi.probes.softmax.model import SoftmaxModel


def certified(
    engine: NewtonEngine,
    edits: Edits,
    tol: float,
    joined: bool = False,
    prepare: Callable[[EditSolver, Edits], Prepared] = EditSolver.prepare,
) -> Refined:
    """Return weights, divergences and certificates of changes, each walked to, else trained again.

    `prepare` gives the steps that the walks start from.
    """
    solver = EditSolver(engine.solver)
    refiner = EditRefiner(engine.model, solver, engine.posterior, tol, joined)
    found = refiner.refine(prepare(solver, edits))  # type: ignore[arg-type]
    left = (~(found.certificate <= tol)).nonzero()[:, 0].tolist()
    # In double precision: where most rows of a class leave, its curvature is a small difference.
    posterior = engine.posterior.in_double() if left else engine.posterior
    for b in left:
        one = edits.select(torch.tensor([b], device=edits.x.device))
        delta = (_trained(one).theta - engine.model.theta)[None]
        one, swept = replace(one, model=posterior.model, x=one.x.to(delta.dtype)).swept(delta, posterior)
        terms = posterior.divergence_of(one.for_posterior(delta, swept.shift), joined)
        found.delta[b] = delta[0].to(found.delta.dtype)
        found.terms.mean[b], found.terms.covariance[b] = terms.mean[0], terms.covariance[0]
        found.certificate[b] = refiner.floor
    return found


def _trained(edits: Edits) -> SoftmaxModel:
    """Return the probe trained on the data after one change, from the weights before it.

    A row that leaves is there twice, with weights that cancel: its losses are the same number.
    """
    model, added = edits.model, edits.x.to(edits.model.design.dtype)
    n = model.n_samples + len(added)
    rows = torch.cat([model.design.rows(0, model.n_samples), added])
    ridge = (model.n_samples + float(edits.gained[0])) * model.weight_decay
    whole = replace(
        model,
        design=Design(rows, dtype=model.design.dtype, device=model.design.device),
        target=torch.cat([model.target, edits.target]),
        weight=torch.cat([model.weight, edits.weight]),
        weight_decay=ridge / n,  # the penalty is that of the samples that are left
    )
    return fit(whole)[0]
