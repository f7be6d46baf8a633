"""The library's inner objects as the pipeline makes them, for the few tests that go below `lsi.score`."""

from dataclasses import replace

import torch

from lsi.features.design import Design
from lsi.loo.retrain.engine import RetrainEngine
from lsi.posterior import POSTERIORS
from lsi.probes.softmax.model import SoftmaxModel


def untrained(case, dtype=torch.float64):
    """Return the model of a case before training."""
    design = Design(case.features, case.fit_intercept, dtype)
    target, weight = torch.from_numpy(case.target), torch.from_numpy(case.weight)
    return SoftmaxModel.start(design, target, weight, case.weight_decay, case.n_classes)


def posterior_at(case, kind, head):
    """Return a posterior at the weights `head` `(C, D)`, in the coordinates that it asks for."""
    model = untrained(case)
    basis = POSTERIORS[kind].coordinates(model.design)
    theta = model.contrasts.T @ torch.from_numpy(head)
    if basis is not None:
        model, theta = replace(model, design=model.design.rotated(basis)), theta @ basis
    return POSTERIORS[kind](replace(model, theta=theta), case.prior_precision, basis)


def retrain_engine(case, kind, settings, **options):
    """Return the engine that trains heads of a case again."""

    def build(trained):
        head = (trained.contrasts @ trained.theta).numpy()
        posterior = posterior_at(case, kind, head)
        return posterior, posterior.basis

    return RetrainEngine(untrained(case, torch.float32), build, settings, case.fit_intercept, **options)
