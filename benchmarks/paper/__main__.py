"""Run one experiment of the paper, or all: claim, settings, figures, a table and a plot each."""

import argparse
import importlib
import time
from pathlib import Path

import torch

from benchmarks.paper.data import Sources
from benchmarks.paper.outcome import write

EXPERIMENTS = {
    "typical": "samples",
    "mislabeled": "samples",
    "noise": "noise",
    "classes": "classes",
    "difficulty": "datasets",
    "thirds": "datasets",
    "posteriors": "posteriors",
    "layers": "layers",
    "transfer": "transfer",
    "text": "text",
    "contrastive": "pairs",
    "sam": "training",
    "dp": "training",
    "stopping": "training",
}
"""Module of each experiment; its function has the experiment's name."""


def experiment(name):
    """Return the function of an experiment, and its sizes: `{"full": {...}, "small": {...}}`."""
    module = importlib.import_module(f"benchmarks.paper.{EXPERIMENTS[name]}")
    return getattr(module, name), module.SIZES[name]


def run(name, sources, output, small=False):
    """Run one experiment and write it; return its Markdown."""
    function, sizes = experiment(name)
    began = time.process_time()
    outcome = function(sources, **sizes["small" if small else "full"])
    return write(name, outcome, time.process_time() - began, output)


def main(arguments=None):
    options = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    options.add_argument("name", choices=[*EXPERIMENTS, "all"])
    options.add_argument("--data", type=Path, help="folder with cifar10/ and imdb/; default: small stand-ins")
    options.add_argument("--second", type=Path, help=".npy of another network's features of the same images")
    options.add_argument("--output", type=Path, default=Path("paper"), help="folder to write")
    options.add_argument("--small", action="store_true", help="tiny sizes: shows that the command works")
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args(arguments)
    if given.data is not None and not given.data.is_dir():
        options.error(f"--data {given.data} is no folder. It should hold cifar10/ and imdb/.")
    torch.set_num_threads(given.threads)
    if given.second is not None and not given.second.is_file():
        options.error(f"--second {given.second} is no file. It should be a .npy with one row an image.")
    sources = Sources(given.data, given.second)
    for name in EXPERIMENTS if given.name == "all" else [given.name]:
        print(run(name, sources, given.output, given.small), flush=True)


if __name__ == "__main__":
    main()
