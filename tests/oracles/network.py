"""Networks one at a time: plain training loops, the Gauss-Newton matrix from Jacobians, and the LSI."""

import numpy as np
import torch
from tests.oracles.gaussian_kl import dense_kl
from torch import nn


def perceptron(widths, activation=nn.ReLU, bias=True):
    """Return a fresh perceptron."""
    layers = [nn.Linear(widths[0], widths[1], bias=bias)]
    for wide, narrow in zip(widths[1:-1], widths[2:], strict=True):
        layers += [activation(), nn.Linear(wide, narrow, bias=bias)]
    return nn.Sequential(*layers)


def cross_entropy(output, target):
    return nn.functional.cross_entropy(output, target, reduction="none")


def train(
    make, X, y, left_out=None, *, seed=5, epochs=30, lr=0.05, weight_decay=1e-3, batch_size=None,
    algorithm="sgd", momentum=0.9, nesterov=True, scheduler=None, loss=cross_entropy, rho=0.05, clip=1.0,
    noise=0.0, betas=(0.9, 0.999), weight=None, dtype=torch.float64, when=(),
):  # fmt: skip
    """Return a trained module; with `when`, also the weights after those epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().to(dtype)
    x, target = torch.tensor(np.asarray(X), dtype=dtype), torch.tensor(y)
    w = torch.ones(len(x), dtype=dtype) if weight is None else torch.tensor(weight, dtype=dtype)
    parameters = [p for p in module.parameters() if p.requires_grad]
    if algorithm in ("adam", "adamw"):
        kind = torch.optim.Adam if algorithm == "adam" else torch.optim.AdamW
        optimizer = kind(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    else:
        optimizer = torch.optim.SGD(
            parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )
    schedule = None if scheduler is None else scheduler(optimizer)
    generator, kept = torch.Generator().manual_seed(seed), {}
    size = batch_size or len(x)
    for epoch in range(epochs):
        for low in range(0, len(x), size):
            rows = [j for j in range(low, min(low + size, len(x))) if j != left_out]

            def mean_loss(rows=rows):
                return (w[rows] * loss(module(x[rows]), target[rows])).mean()

            optimizer.zero_grad()
            if algorithm == "dp":
                private(parameters, module, x, target, w, rows, loss, clip, noise, generator)
            elif algorithm == "sam":
                mean_loss().backward()
                length = sum(float((p.grad**2).sum()) for p in parameters) ** 0.5
                steps = [rho * p.grad / length for p in parameters]
                with torch.no_grad():
                    for p, step in zip(parameters, steps, strict=True):
                        p += step
                optimizer.zero_grad()
                mean_loss().backward()
                with torch.no_grad():
                    for p, step in zip(parameters, steps, strict=True):
                        p -= step
            else:
                mean_loss().backward()
            optimizer.step()
        if schedule is not None:
            schedule.step()
        if epoch + 1 in when:
            kept[epoch + 1] = flat(module)
    return (module, kept) if when else module


def private(parameters, module, x, target, w, rows, loss, clip, noise, generator):
    """Set the gradients to the mean of clipped ones and noise, a sample at a time."""
    total = [torch.zeros_like(p) for p in parameters]
    for j in rows:
        one = torch.autograd.grad(w[j] * loss(module(x[j : j + 1]), target[j : j + 1])[0], parameters)
        norm = sum(float((part**2).sum()) for part in one) ** 0.5
        for part, sum_ in zip(one, total, strict=True):
            sum_ += part * min(1.0, clip / (norm + 1e-6))
    for p, sum_ in zip(parameters, total, strict=True):
        extra = torch.normal(0.0, noise * clip, p.shape, generator=generator, dtype=p.dtype) if noise else 0.0
        p.grad = (sum_ + extra) / len(rows)


def flat(module):
    """Return the trained weights, `(K,)`."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters() if p.requires_grad]).double()


def loss_curvature(output, target, loss):
    """Return the Hessians of the losses by the outputs, `(n, C, C)`."""
    return torch.stack(
        [
            torch.autograd.functional.hessian(lambda z, t=t: loss(z[None], t[None])[0], z)
            for z, t in zip(output, target, strict=True)
        ]
    )


def jacobians(module, x):
    """Return the Jacobians of the outputs by the trained weights, `(n, C, K)`, row by row."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    out = []
    for row in x:
        z = module(row[None])[0]
        grads = [torch.autograd.grad(value, parameters, retain_graph=True) for value in z]
        out.append(torch.stack([torch.cat([g.reshape(-1) for g in one]) for one in grads]))
    return torch.stack(out)


def precision(
    module, X, y, left_out, posterior, prior_precision, n_last=None, loss=cross_entropy, weight=None
):
    """Return the dense precision in its structure; `n_last`: only the last so many weights."""
    keep = np.arange(len(X)) != (-1 if left_out is None else left_out)
    module = module.double()
    x, target = torch.tensor(np.asarray(X)[keep], dtype=torch.float64), torch.tensor(y[keep])
    j, s = jacobians(module, x), loss_curvature(module(x).detach(), target, loss)
    if weight is not None:
        s = s * torch.tensor(weight[keep])[:, None, None]
    if posterior == "kron":
        matrix = kfac(module, x, j, s)
    else:
        matrix = torch.einsum("nck,ncd,ndl->kl", j, s, j)
        matrix = torch.diag(matrix.diagonal()) if posterior == "diag" else matrix
    matrix = matrix + prior_precision * torch.eye(len(matrix))
    return (matrix if n_last is None else matrix[-n_last:, -n_last:]).numpy()


def kfac(module, x, j, s):
    """Return the block-diagonal matrix of `B ⊗ A` of a perceptron with biases, weights before bias."""
    module = module if isinstance(module, nn.Sequential) else [module]
    matrix, offset, inputs = torch.zeros(j.shape[2], j.shape[2], dtype=torch.float64), 0, x
    for layer in module:
        if isinstance(layer, nn.Linear):
            o, d = layer.weight.shape
            a = torch.cat([inputs, torch.ones(len(x), 1)], 1)
            by_sum = j[:, :, offset + o * d : offset + o * (d + 1)]  # gradient by the bias is that by the sum
            outer = torch.einsum("nco,ncd,ndp->op", by_sum, s, by_sum) / len(x)
            block = torch.kron(outer.contiguous(), (a.T @ a).contiguous())
            order = [c * (d + 1) + i for c in range(o) for i in range(d)] + [
                c * (d + 1) + d for c in range(o)
            ]
            size = o * (d + 1)
            matrix[offset : offset + size, offset : offset + size] = block[order][:, order]
            offset += size
        inputs = layer(inputs).detach()
    return matrix


def lsi(
    whole, copies, X, y, posterior="diag", prior_precision=1.0, n_last=None, loss=cross_entropy, weight=None
):
    """Return the LSI of the samples that `copies` (a dict from position to module) leave out."""
    first = precision(whole, X, y, None, posterior, prior_precision, n_last, loss, weight)
    values = []
    for i, copy in copies.items():
        second = precision(copy, X, y, i, posterior, prior_precision, n_last, loss, weight)
        delta = (flat(copy) - flat(whole)).numpy()
        values.append(sum(dense_kl(first, second, delta if n_last is None else delta[-n_last:])))
    return np.array(values)
