"""A trained network: which of its training labels are wrong? docs/tutorials/network.md goes through it.

    python examples/network.py [FOLDER]

trains a small network on scikit-learn's digits, one label in twenty wrong on purpose, scores its training
samples from the network as it is, and trains it again without the labels that are probably wrong.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lsi

N, N_TEST = 700, 600


def make_digits(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, torch.Tensor, torch.Tensor]:
    """Return training pictures and labels, which labels are wrong, and test pictures and labels."""
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
    rng = np.random.default_rng(seed)
    wrong = np.zeros(N, dtype=bool)
    wrong[rng.choice(N, N // 20, replace=False)] = True
    given = y[:N].clone()
    given[wrong] = (given[wrong] + torch.tensor(rng.integers(1, 10, wrong.sum()))) % 10
    return X[:N], given, wrong, X[-N_TEST:], y[-N_TEST:]


def train(X: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Return a network with one hidden layer, trained on these samples."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()
    return model


def accuracy(model: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    """Return the share of samples that a network gets right."""
    with torch.no_grad():
        return float((model(X).argmax(1) == y).float().mean())


def main() -> None:
    """Train, score, drop what is probably wrong, and train again."""
    X, y, wrong, X_test, y_test = make_digits()
    model = train(X, y)
    print(f"accuracy on the test set: {accuracy(model, X_test, y_test):.3f}")

    loader = DataLoader(TensorDataset(X, y), batch_size=100)
    scores = lsi.score_model(model, loader, probe=lsi.LinearProbe(weight_decay=1e-2))
    print(scores)
    print(scores.top(5))
    scores.save("scores", overwrite=True)

    suspects = scores.mislabeled(fdr=0.1)
    rows = suspects["sample_id"].to_numpy()
    print(f"{len(rows)} labels are probably wrong; {wrong[rows].sum()} of them are, of {wrong.sum()} in all.")

    kept = np.setdiff1d(np.arange(len(y)), rows)
    again = train(X[kept], y[kept])
    print(f"accuracy without them: {accuracy(again, X_test, y_test):.3f}")


if __name__ == "__main__":
    os.chdir(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    main()
