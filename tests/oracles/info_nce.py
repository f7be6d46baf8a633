"""The contrastive probe by its definition: autograd, dense matrices, a pair left out by deletion."""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch


@dataclass
class Pairs:
    """Two heads on raw features, in sum form."""

    left: torch.Tensor
    right: torch.Tensor
    dim: int
    temperature: float
    weight_decay: float
    norm_floor: float
    start: torch.Tensor
    batches: list

    def heads(self, theta):
        k = self.dim * self.left.shape[1]
        return theta[:k].reshape(self.dim, -1), theta[k:].reshape(self.dim, -1)

    def embed(self, head, features):
        x = features / features.norm(dim=1, keepdim=True) * features.shape[1] ** 0.5
        z = x @ head.T
        return z / (z.square().sum(1, keepdim=True) + self.norm_floor**2 * self.dim / 3).sqrt()

    def logits(self, theta, rows):
        left, right = self.heads(theta)
        return self.embed(left, self.left[rows]) @ self.embed(right, self.right[rows]).T / self.temperature

    def kept(self, out):
        return [[i for i in batch if i != out] for batch in self.batches]

    def data_loss(self, theta, out=None):
        total = 0.0
        for rows in self.kept(out):
            s, match = self.logits(theta, rows), torch.arange(len(rows))
            for view in (s, s.T):
                total = total + 0.5 * torch.nn.functional.cross_entropy(view, match, reduction="sum")
        return total

    def objective(self, theta, out=None):
        n = len(self.left) - (out is not None)
        return self.data_loss(theta, out) + 0.5 * n * self.weight_decay * (theta - self.start).square().sum()

    def ggn(self, theta, out=None):
        total = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
        for rows in self.kept(out):
            jacobian = torch.func.jacrev(lambda t, r=rows: self.logits(t, r))(theta)
            s = self.logits(theta, rows)
            for view, j in ((s, jacobian), (s.T, jacobian.transpose(0, 1))):
                for anchor in range(len(rows)):
                    p = torch.softmax(view[anchor], 0)
                    total += 0.5 * j[anchor].T @ (torch.diag(p) - torch.outer(p, p)) @ j[anchor]
        return total

    def optimum(self, theta, out=None):
        def evaluate(values):
            t = torch.tensor(values, requires_grad=True)
            value = self.objective(t, out)
            (gradient,) = torch.autograd.grad(value, t)
            return float(value.detach()), gradient.numpy()

        found = scipy.optimize.minimize(
            evaluate, theta.numpy(), jac=True, method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 9000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 30},
        )  # fmt: skip
        theta = torch.tensor(found.x)
        for _ in range(4):
            gradient = torch.func.grad(lambda t: self.objective(t, out))(theta)
            theta = theta - torch.linalg.solve(
                torch.autograd.functional.hessian(lambda t: self.objective(t, out), theta), gradient
            )
        return theta


def build(left, right, probe):
    """Return the oracle of a `ContrastiveProbe` on numpy features."""
    torch.manual_seed(probe.seed)
    heads = [torch.nn.Linear(x.shape[1], probe.dim, bias=False).weight.detach() for x in (left, right)]
    start = torch.cat([head.flatten() for head in heads]).double()
    return Pairs(
        torch.tensor(left, dtype=torch.float64), torch.tensor(right, dtype=torch.float64), probe.dim,
        probe.temperature, probe.weight_decay, probe.norm_floor, start,
        [batch.tolist() for batch in probe.batches(len(left))],
    )  # fmt: skip


def pairs(n=12, left=5, right=4, seed=0, mismatched=2):
    """Return two noisy linear views of the same points, the last few of them exchanged in a ring."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(n, 3))
    x = points @ random.normal(size=(3, left)) + 0.3 * random.normal(size=(n, left))
    y = points @ random.normal(size=(3, right)) + 0.3 * random.normal(size=(n, right))
    if mismatched:
        y[-mismatched:] = np.roll(y[-mismatched:], 1, axis=0)
    return x, y
