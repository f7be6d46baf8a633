"""The published protocol, one head at a time: `torch.nn.Linear` trained by `torch.optim.SGD`."""

import numpy as np
import torch


def train(
    features,
    y,
    n_classes,
    *,
    weight_decay,
    weight=None,
    left_out=None,
    fit_intercept=True,
    seed=5,
    epochs=1000,
    lr=0.004,
    momentum=0.9,
    nesterov=True,
    dtype=torch.float32,
    along=None,
):
    """Return the head `(C, D)` in float64, the intercept last; with `along`, heads by epoch.

    Args:
        features: `(N, D₀)` without an intercept column.
        y: Class codes.
        n_classes: C.
        weight_decay: As in `torch.optim.SGD`.
        weight: Sample weights, or None.
        left_out: Position that is left out, or None.
        fit_intercept: Whether the layer has a bias.
        seed: Given to `torch.manual_seed` before the layer is made.
        epochs: Full-batch steps.
        lr: Learning rate.
        momentum: Momentum.
        nesterov: Whether it is Nesterov's.
        dtype: Type to train in; the initial weights are float32 in any case.
        along: Numbers of epochs, 0 to `epochs`, after which the head is returned; None: after the last alone.
    """

    def head():
        parts = [layer.weight.detach()] + ([layer.bias.detach()[:, None]] if fit_intercept else [])
        return torch.cat(parts, 1).to(torch.float64).numpy()

    keep = torch.arange(len(features)) != (-1 if left_out is None else left_out)
    x, target = torch.tensor(np.asarray(features), dtype=dtype)[keep], torch.tensor(y)[keep]
    weights = torch.ones(len(x), dtype=dtype) if weight is None else torch.tensor(weight, dtype=dtype)[keep]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x.shape[1], n_classes, bias=fit_intercept).to(dtype)
    optimizer = torch.optim.SGD(
        layer.parameters(), lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )
    heads = {0: head()}
    for epoch in range(1, epochs + 1):
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(layer(x), target, reduction="none")
        (weights * losses).mean().backward()
        optimizer.step()
        if along is not None and epoch in along:
            heads[epoch] = head()
    return head() if along is None else {epoch: heads[epoch] for epoch in along}
