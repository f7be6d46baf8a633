"""The published protocol: batched heads against a plain loop that trains one head at a time."""

import time

import numpy as np
import torch

from benchmarks.common import cifar_features, parser, write

COLUMNS = [
    "samples",
    "scored",
    "strides",
    "batched s/sample",
    "plain s/sample",
    "times faster",
    "in processor time",
    "max difference",
]


def clocks():
    """Return seconds on the wall and of the processor; the second ones do not see other processes."""
    return np.array([time.perf_counter(), time.process_time()])


def plain_head(X, y, left_out, settings, weight_decay, n_classes):
    """Train one head as anyone would write it in PyTorch; return its weights with the bias last."""
    keep = torch.arange(len(X)) != left_out
    x, target = torch.from_numpy(X)[keep], torch.from_numpy(y)[keep]
    torch.manual_seed(settings.seed)
    layer = torch.nn.Linear(X.shape[1], n_classes)
    optimizer = torch.optim.SGD(
        layer.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=True,
        weight_decay=weight_decay,
    )
    for _ in range(settings.epochs):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), target).backward()
        optimizer.step()
    return layer


def curvature_diagonal(layer, x, prior_precision):
    """Return the diagonal of the posterior precision, `(C, D + 1)`, in float64."""
    with torch.no_grad():
        p = torch.softmax(layer(x), -1).double()
    inputs = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    return (p * (1 - p)).T @ inputs.square() + prior_precision


def plain_lsi(X, y, positions, settings, weight_decay, n_classes):
    """Return LSI with a diagonal posterior from heads trained one by one, and what a sample took."""
    everything = plain_head(X, y, -1, settings, weight_decay, n_classes)
    x = torch.from_numpy(X)
    first, values = curvature_diagonal(everything, x, 1.0), []
    began = clocks()
    for i in positions:
        layer = plain_head(X, y, int(i), settings, weight_decay, n_classes)
        second = curvature_diagonal(layer, x[torch.arange(len(X)) != int(i)], 1.0)
        weight = [torch.cat([a.weight, a.bias[:, None]], 1).detach().double() for a in (everything, layer)]
        u = second / first - 1
        values.append(0.5 * float((u - u.log1p()).sum() + (second * (weight[1] - weight[0]) ** 2).sum()))
    return np.array(values), (clocks() - began) / len(positions)


def main():
    import lsi

    options = parser(__doc__)
    options.add_argument("--samples", type=int, nargs="+", default=[200, 5000])
    options.add_argument("--scored", type=int, default=256, help="left-out samples of the batched run")
    options.add_argument("--every", action="store_true", help="compute every epoch of every head")
    options.add_argument("--tol", type=float, default=1e-3, help="relative error that strides may have")
    options.add_argument("--plain", type=int, default=4, help="left-out samples of the plain loop")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    settings, rows = lsi.Retrain(tol=None if given.every else given.tol), []
    for n in given.samples:
        X, y, source = cifar_features(given.data, n)
        scored = np.arange(min(given.scored, n))
        began = clocks()
        scores = lsi.score(X, y, method=settings, subset=scored, audit=False, label_noise=False)
        batched = (clocks() - began) / len(scored)
        values, plain = plain_lsi(
            X, y.astype(np.int64), scored[: given.plain], settings, 1e-4, int(y.max()) + 1
        )
        difference = float(np.abs(scores.lsi[: given.plain] / values - 1).max())
        training = scores.manifest["training"]
        strides = f"{training.get('strides', [settings.epochs])[0]}"
        row = [n, len(scored), strides, batched[0], plain[0], *(plain / batched), difference]
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    write("Retrain", rows, COLUMNS, {"data": source, "threads": given.threads}, given.output)


if __name__ == "__main__":
    main()
