"""Networks: many copies at once against a plain loop that trains one network at a time."""

import time

import numpy as np
import torch

from benchmarks.common import cifar_features, parser, write

COLUMNS = ["network", "samples", "copies", "plain s/copy", "batched s/copy", "times faster", "max difference"]


def plain_copy(X, y, left_out, make, settings, weight_decay, dtype):
    """Train one network as anyone would write it in PyTorch; return its weights."""
    keep = torch.arange(len(X)) != left_out
    x, target = torch.from_numpy(X).to(dtype)[keep], torch.from_numpy(y)[keep]
    torch.manual_seed(settings.seed)
    network = make().to(dtype)
    optimizer = torch.optim.SGD(
        network.parameters(), settings.lr, settings.momentum, nesterov=True, weight_decay=weight_decay
    )
    for _ in range(settings.epochs):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), target).backward()
        optimizer.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def trainer(kind, X, y, hidden, settings, weight_decay, dtype):
    """Return the library's trainer of many copies."""
    from lsi.loo.networks.mlp_stack import MLPStack
    from lsi.loo.networks.module_stack import ModuleStack
    from lsi.loo.networks.trainer import Data, StackTrainer

    widths = (X.shape[1], *hidden, int(y.max()) + 1)
    stack = MLPStack(widths)
    if kind == "module":
        stack = ModuleStack(stack.fresh, "cross_entropy", widths[0], widths[-1])
    return StackTrainer(
        stack, Data(torch.from_numpy(X).to(dtype), torch.from_numpy(y), None), settings, weight_decay
    )


def compare(kind, X, y, hidden, given, dtype):
    """Return one row: the same copies trained both ways, in one process."""
    import lsi

    settings = lsi.Retrain(epochs=given.epochs)
    batched = trainer(kind, X, y, hidden, settings, 1e-4, dtype)
    index = torch.arange(min(given.copies, len(X)))
    start = batched.stack.start(settings.seed)
    size = batched.stack.copies_in_cache(len(X), dtype.itemsize)
    batched.stack.gradient(batched.stack.spread(start.to(dtype), 2), next(batched.batches(index[:2])))
    began = time.perf_counter()
    copies = torch.cat([batched.train(start, part, settings.seed) for part in index.split(size)])
    fast = (time.perf_counter() - began) / len(index)
    few = index[: given.plain]
    began = time.perf_counter()
    alone = [plain_copy(X, y, int(i), batched.stack.fresh, settings, 1e-4, dtype) for i in few]
    slow = (time.perf_counter() - began) / len(few)
    difference = float((torch.stack(alone) - copies[: len(few)]).abs().max())
    name = f"{kind} {'-'.join(map(str, batched.stack.widths)) if kind == 'MLP' else hidden} {dtype}"
    values = [name.replace("torch.", ""), len(X), len(index), slow, fast, slow / fast, difference]
    return dict(zip(COLUMNS, values, strict=True))


def main():
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=200)
    options.add_argument("--copies", type=int, default=200)
    options.add_argument("--plain", type=int, default=4, help="copies that the plain loop trains too")
    options.add_argument("--epochs", type=int, default=1000)
    options.add_argument("--features", type=int, nargs="+", default=[64, 512])
    options.add_argument("--published", action="store_true", help="only the paper's hidden width, D // 16")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    X, y, source = cifar_features(given.data, given.samples)
    y, rows = y.astype(np.int64), []
    for d in given.features:
        part = np.ascontiguousarray(X[:, :d])
        for hidden in ((max(1, d // 16),), (32,)):
            for dtype in (torch.float32, torch.float64):
                rows.append(compare("MLP", part, y, hidden, given, dtype))
            if given.published:
                break
        rows.append(compare("module", part, y, (max(1, d // 16),), given, torch.float32))
    write("Networks", rows, COLUMNS, {"data": source, "threads": given.threads}, given.output)


if __name__ == "__main__":
    main()
