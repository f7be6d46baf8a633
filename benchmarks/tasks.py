"""Regression and several labels: how exact, how good at finding wrong targets, how fast.

    python benchmarks/tasks.py [exactness] [detection] [speed]

Brute force is written here anew, in numpy, and shares nothing with the library.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.metrics import roc_auc_score

import lsi


def brute_force(x: np.ndarray, y: np.ndarray, weight_decay: float, diagonal: bool) -> np.ndarray:
    """Return the LSI of every sample, refitted without it; unit noise and prior precision."""
    n, d = x.shape
    gram, moment = x.T @ x, x.T @ y
    whole = np.linalg.solve(gram + n * weight_decay * np.eye(d), moment)
    first = gram + np.eye(d)
    values = np.empty(n)
    for i in range(n):
        keep = np.arange(n) != i
        rest = x[keep]
        own = rest.T @ rest
        left = np.linalg.solve(own + (n - 1) * weight_decay * np.eye(d), rest.T @ y[keep])
        delta, second = left - whole, own + np.eye(d)
        if diagonal:
            u = -(x[i] ** 2) / np.diag(first)
            covariance = 0.5 * np.sum(u - np.log1p(u))
            mean = 0.5 * np.sum(delta**2 * np.diag(second)[:, None])
        else:
            share = x[i] @ np.linalg.solve(first, x[i])
            covariance = 0.5 * (-share - np.log1p(-share))
            mean = 0.5 * np.einsum("dt,de,et->", delta, second, delta)
        values[i] = mean + y.shape[1] * covariance
    return values


def exactness() -> None:
    """Print the largest relative error against brute force, over all samples."""
    x, y = diabetes()
    rng = np.random.default_rng(0)
    made = rng.normal(size=(5000, 20))
    targets = made @ rng.normal(size=(20, 2)) + rng.normal(size=(5000, 2))
    for name, features, target in (("diabetes", x, y[:, None]), ("5,000 synthetic rows", made, targets)):
        ones = np.column_stack([features, np.ones(len(features))])
        for posterior in ("diag", "kron", "full"):
            found = lsi.score(features, target, probe=lsi.RidgeProbe(), posterior=posterior, audit=False).lsi
            exact = brute_force(ones, target, 1e-4, posterior == "diag")
            print(f"{name}, {posterior}: largest relative error {np.abs(found / exact - 1).max():.1e}")


def detection(seeds: int = 20) -> None:
    """Print AUROC for 10 % corrupted targets of diabetes, mean and minimum over seeds."""
    x, y = diabetes()
    for kind in ("moved by ±3 sd", "normal noise of 3 sd"):
        for posterior in ("diag", "full"):
            found: dict[str, list[float]] = {"LSI": [], "|loo_z|": [], "wrong_probability": []}
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                wrong = np.zeros(len(y), dtype=bool)
                wrong[rng.choice(len(y), round(0.1 * len(y)), replace=False)] = True
                noise = rng.choice([-1.0, 1.0], len(y)) if "±" in kind else rng.normal(size=len(y))
                scores = lsi.score(
                    x, y + 3.0 * wrong * noise, probe=lsi.RidgeProbe(), posterior=posterior, audit=False
                )
                found["LSI"].append(roc_auc_score(wrong, scores.lsi))
                found["|loo_z|"].append(roc_auc_score(wrong, scores.to_frame()["loo_z"].abs()))
                listed = scores.mislabeled()
                found["wrong_probability"].append(
                    roc_auc_score(wrong[listed["sample_id"]], listed["wrong_probability"])
                )
            figures = ", ".join(f"{k} {np.mean(v):.3f} (lowest {min(v):.3f})" for k, v in found.items())
            print(f"{kind}, {posterior}: AUROC {figures}")


def speed() -> None:
    """Print wall-clock and processor seconds of a large regression and of five sigmoid heads."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50_000, 512)).astype(np.float32)
    y = x[:, :3] @ rng.normal(size=3) + rng.normal(size=50_000)
    _timed("regression, 50,000 × 512", x, y, lsi.RidgeProbe(noise_precision="estimate"), False)
    x = x[:2000, :32]
    labels = x @ rng.normal(size=(32, 5)) + 4.0 * rng.normal(size=(2000, 5)) > 4.0
    _timed("five labels, 2,000 × 32", x, labels, lsi.SigmoidProbe(), 12)


def _timed(name: str, x: np.ndarray, y: np.ndarray, probe: object, audit: int | bool) -> None:
    wall, busy = time.perf_counter(), time.process_time()
    scores = lsi.score(x, y, probe=probe, audit=audit)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    print(f"{name}: {wall:.1f} s, {busy:.1f} processor seconds")
    if scores.audit:
        print(scores.audit.summary())


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Return standardised features and target."""
    x, y = load_diabetes(return_X_y=True, scaled=False)
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


if __name__ == "__main__":
    for part in sys.argv[1:] or ("exactness", "detection", "speed"):
        {"exactness": exactness, "detection": detection, "speed": speed}[part]()
