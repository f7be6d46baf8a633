"""Data, timing and output shared by the benchmarks."""

import argparse
import json
import platform
import resource
import threading
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table


def parser(description):
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--data", type=Path, default=None, help="folder of real data; default: random features")
    out.add_argument("--output", type=Path, default=None, help="JSON file to write")
    out.add_argument("--threads", type=int, default=2)
    return out


def cifar_features(folder, n_samples, label="aggre"):
    """Return features, labels and where they came from."""
    path = None if folder is None else folder / "cifar10" / "features_effnetlite0_pca512.npz"
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["X"][:n_samples].astype(np.float32), arrays[label][:n_samples], f"CIFAR-10, {label}"
    random = np.random.default_rng(0)
    y = random.integers(0, 10, n_samples)
    centres = random.normal(size=(10, 512))
    X = (0.25 * centres[y] + random.normal(size=(n_samples, 512))).astype(np.float32)
    return X, y, "random clusters"


def product_peak(dtype=torch.float32, size=2048, rounds=6):
    """Return the best measured rate of a square matrix product, in operations a second."""
    a, out = torch.randn(size, size, dtype=dtype), torch.empty(size, size, dtype=dtype)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        torch.mm(a, a, out=out)
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def peak_memory():
    """Return the largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Held:
    """The most memory that a process held while this was entered, in bytes, without pages of mapped files.

    Linux only: the anonymous pages of ``/proc/self/status``, looked at a thousand times a second.
    """

    def __enter__(self):
        self.most = self._held()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *exception):
        self._done.set()
        self._watcher.join()

    def _watch(self):
        while not self._done.wait(0.001):
            self.most = max(self.most, self._held())

    @staticmethod
    def _held():
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def write(name, rows, columns, facts, output):
    """Print rows as a table and write everything as JSON."""
    table = Table(title=name)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console = Console(width=140)
    console.print(table)
    for key, value in facts.items():
        console.print(f"{key}: {_cell(value)}", highlight=False)
    if output is not None:
        facts = {**facts, "torch": torch.__version__, "python": platform.python_version()}
        output.write_text(json.dumps({"name": name, "facts": facts, "rows": rows}, indent=1))


def _cell(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
