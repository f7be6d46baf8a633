"""Record every figure of many small runs to the last bit, and compare two records.

    python -m benchmarks.bits record before.json      # on the old code
    python -m benchmarks.bits record after.json       # on the new
    python -m benchmarks.bits compare before.json after.json

A refactoring must not move a score. The runs cross probes, posteriors, methods and solvers, and include
label noise, pairs, networks, shards and the commands. Only the public contract is called, so that the same
script runs before and after modules move. One thread: with more, sums may run in another order.
"""

import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import threadpoolctl
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from torch import nn

import lsi

# What two runs of one configuration may tell differently: clocks, dates, and where files were.
UNSTABLE = {
    "timings",
    "created",
    "seconds",
    "run",
    "versions",
    "longest",
    "path",
    "description",
    "recorded_at",
}


def small(n=120, d=6, c=3, seed=0, distance=1.0):
    """Return overlapping Gaussian classes."""
    random = np.random.default_rng(seed)
    centres = distance * random.standard_normal((c, d))
    y = random.permutation(np.arange(n) % c)
    return centres[y] + random.standard_normal((n, d)), y


def digits(n=200):
    """Return the first digits, scaled to 0 … 1."""
    X, y = load_digits(return_X_y=True)
    return X[:n] / 16.0, y[:n]


def _wide(n, d, c):
    """Return overlapping classes in single precision, large enough that the engine leaves float64."""
    random = np.random.default_rng(1)
    y = np.arange(n) % c
    centres = random.standard_normal((c, d))
    return (0.1 * centres[y] + random.standard_normal((n, d))).astype(np.float32), y


def _several_labels():
    X, y = small(90, 5, 4, seed=3)
    return X, np.stack([y % 2, y // 2], axis=1)


def _views():
    X = load_digits().data[:60] / 16.0
    return X[:, :32], X[:, 32:]


def _module():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def _retrain(**settings):
    return lsi.Retrain(**{"epochs": 60, "lr": 0.05, "tol": None, **settings})


def api_runs():
    """Yield (name, function that returns Scores)."""
    iris, wine = load_iris(return_X_y=True), load_wine(return_X_y=True)
    wine = (wine[0] - wine[0].mean(0)) / wine[0].std(0), wine[1]
    cancer = load_breast_cancer(return_X_y=True)
    cancer = (cancer[0] - cancer[0].mean(0)) / cancer[0].std(0), cancer[1]
    diabetes = load_diabetes(return_X_y=True)
    for posterior in ("diag", "kron", "full"):
        yield f"iris {posterior}", lambda p=posterior: lsi.score(*iris, posterior=p, audit=4)
        yield (
            f"small {posterior} tol 1e-3",
            lambda p=posterior: lsi.score(*small(), posterior=p, method=lsi.Newton(tol=1e-3), audit=4),
        )
        yield (
            f"digits {posterior} unrefined",
            lambda p=posterior: lsi.score(*digits(), posterior=p, method=lsi.Newton(tol=None), audit=3),
        )
        yield (
            f"blocks {posterior}",
            lambda p=posterior: lsi.score(
                *small(160, 8, 12, seed=5), posterior=p, method=lsi.Newton(solver="blocks"), audit=3
            ),
        )
        yield (
            f"retrain {posterior}",
            lambda p=posterior: lsi.score(*small(60, 5, 3, seed=2), posterior=p, method=_retrain(), audit=2),
        )
        yield (
            f"sigmoid binary {posterior}",
            lambda p=posterior: lsi.score(
                *small(90, 5, 2, seed=4), probe=lsi.SigmoidProbe(), posterior=p, audit=3
            ),
        )
        yield (
            f"several labels {posterior}",
            lambda p=posterior: lsi.score(*_several_labels(), probe=lsi.SigmoidProbe(), posterior=p, audit=3),
        )
        yield (
            f"ridge {posterior}",
            lambda p=posterior: lsi.score(*diabetes, probe=lsi.RidgeProbe(), posterior=p, audit=3),
        )
        yield (
            f"pairs {posterior}",
            lambda p=posterior: lsi.score_pairs(
                *_views(), probe=lsi.ContrastiveProbe(dim=3), posterior=p, audit=2
            ),
        )
        yield (
            f"mlp {posterior}",
            lambda p=posterior: lsi.score(
                *small(40, 5, 3, seed=6),
                probe=lsi.MLPProbe(hidden=4),
                posterior=p,
                method=_retrain(epochs=20),
                audit=2,
            ),
        )
    yield "cancer float32", lambda: lsi.score(cancer[0].astype(np.float32), cancer[1], audit=4)
    yield "label noise", lambda: lsi.score(*wine, label_noise=True, audit=3)
    yield (
        "class weights",
        lambda: lsi.score(
            *small(), probe=lsi.LinearProbe(class_weight="balanced", weight_decay=1e-2), audit=3
        ),
    )
    yield (
        "no intercept, subset, ids",
        lambda: lsi.score(
            *small(),
            probe=lsi.LinearProbe(fit_intercept=False),
            subset=[5, 3, 100, 7],
            sample_id=[f"s{k}" for k in range(120)],
            prior_precision=0.1,
            audit=2,
        ),
    )
    yield (
        "early stopping",
        lambda: lsi.score(*small(), method=lsi.Newton.from_early_stopping(0.004, 0.9, 1000), audit=3),
    )
    yield (
        "text labels, few samples",
        lambda: lsi.score(small(14, 30, 3)[0], np.array(["a", "b", "c"])[small(14, 30, 3)[1]], audit=2),
    )
    yield (
        "larger, sampled rows",
        lambda: lsi.score(*small(6000, 12, 3, seed=8, distance=0.5), subset=np.arange(0, 6000, 30), audit=4),
    )
    yield (
        "retrain in strides",
        lambda: lsi.score(*small(400, 20, 3, seed=9), method=_retrain(epochs=600, tol=1e-3), audit=2),
    )
    yield (
        "retrain three seeds, recorded",
        lambda: lsi.score(*small(40, 5, 3, seed=2), method=_retrain(n_seeds=3, record_every=20), audit=2),
    )
    for optimizer in ("adam", "sam", "dp-sgd"):
        yield (
            f"retrain {optimizer}",
            lambda o=optimizer: lsi.score(
                *small(40, 5, 3, seed=2),
                method=_retrain(
                    optimizer=o, epochs=20, batch_size=None if o == "dp-sgd" else 16, schedule="cosine"
                ),
                audit=2,
            ),
        )
    yield (
        "module probe",
        lambda: lsi.score(
            *small(30, 6, 3, seed=6), probe=lsi.ModuleProbe(_module), method=_retrain(epochs=15), audit=2
        ),
    )
    yield (
        "pairs retrain",
        lambda: lsi.score_pairs(
            *_views(), probe=lsi.ContrastiveProbe(dim=3), method=_retrain(epochs=30, nesterov=False), audit=2
        ),
    )
    yield "two shards merged", lambda: lsi.merge([lsi.score(*small(), audit=2, shard=(k, 2)) for k in (1, 2)])
    yield "model", _model
    yield "estimator", lambda: _fitted(iris)
    yield "redundancy", lambda: lsi.score(*wine, audit=0).with_redundancy(*wine)
    yield (
        "single precision",
        lambda: lsi.score(*_wide(9600, 512, 10), subset=np.arange(0, 9600, 400), audit=1, label_noise=False),
    )


def other_calls():
    """Yield (name, function that returns something to print): analyses of several scores, and studies."""
    X, y = small(90, 5, 3, seed=11)
    first, second = lsi.score(X, y, audit=0), lsi.score(X, y, audit=0, posterior="kron")
    yield "compare", lambda: lsi.compare(first, second).to_dict()
    yield "compare datasets", lambda: lsi.compare_datasets({"one": first, "two": second}).to_csv()
    yield "sensitivity", lambda: lsi.sensitivity(X, y, audit=0).to_dict()
    yield "redundancy", lambda: lsi.redundancy(X, y).to_csv()
    yield "curate", lambda: lsi.curate(X, y, keep=0.5, rounds=2, audit=0)[0].tolist()
    yield (
        "curation curves",
        lambda: lsi.curation_curves(
            X[:60], y[:60], X[60:], y[60:], lsi.score(X[:60], y[:60], audit=0), shares=[0.5], n_seeds=2
        ).to_manifest(),
    )


def _model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    X, y = small()
    data = torch.utils.data.TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(y))
    return lsi.score_model(net, torch.utils.data.DataLoader(data, batch_size=32), audit=2)


def _fitted(data):
    estimator = lsi.LaplaceSampleInformation().fit(*data)
    return estimator.result_


def tables(scores):
    """Return what the analyses make of scores, as text to the last digit."""
    asked = {
        "by_class": lambda: scores.by_class().to_csv(),
        "class_summary": lambda: scores.class_summary().to_csv(),
        "typicality": lambda: scores.typicality().to_csv(),
        "difficulty": lambda: _stable(scores.difficulty(n_bootstrap=20).to_dict()),
        "mislabeled": lambda: scores.mislabeled().to_csv(),
        "select": lambda: np.asarray(scores.select(0.5)).tolist(),
        "top": lambda: scores.top(5).to_csv(),
        "repr": lambda: re.sub(r"in [^ ]+ s\b", "in # s", repr(scores)),
    }
    out = {}
    for name, ask in asked.items():
        try:
            out[name] = ask()
        except lsi.LsiError as error:
            out[name] = str(error)
    return out


def described(scores):
    """Return a run's columns as digests and its manifest and audit as values."""
    frame = scores.to_frame()
    columns = {name: _digest(frame[name]) for name in frame}
    audit = None if scores.audit is None else scores.audit.to_dict()
    head = {name: float(frame[name].iloc[0]) for name in frame if frame[name].dtype == np.float64}
    return {
        "columns": columns,
        "first_row": _stable(head),
        "manifest": _stable(scores.manifest),
        "audit": _stable(audit),
        "tables": tables(scores),
    }


def _digest(column):
    values = column.to_numpy()
    if values.dtype == object or isinstance(column.dtype, pd.StringDtype):
        data = "\0".join(map(repr, column.tolist())).encode()
    else:
        data = np.ascontiguousarray(values).tobytes()
    return f"{column.dtype} {hashlib.sha256(data).hexdigest()[:16]}"


def _stable(value):
    if isinstance(value, dict):
        return {str(k): _stable(v) for k, v in value.items() if k not in UNSTABLE}
    if isinstance(value, (list, tuple)):
        return [_stable(v) for v in value]
    if isinstance(value, np.generic):
        return _stable(value.item())
    return repr(value) if isinstance(value, float) else value


def command_lines(folder):
    """Return the commands to run, in order; each may read what an earlier one wrote."""
    rng = np.random.default_rng(0)
    X, y = small(80, 4, 3, seed=7)
    np.savez(folder / "data.npz", X=X, y=np.array(["cat", "dog", "owl"])[y], ids=np.arange(80) + 1000)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=y, price=X @ rng.normal(size=4))
    frame.to_csv(folder / "table.csv", index=False)
    left, right = _views()
    np.savez(folder / "pairs.npz", left=left, right=right)
    lines = [
        "compute --dataset digits --corrupt-label 0.1 --first 300 --audit 4 --output scores",
        "compute --dataset data.npz --output npz --audit 3 --posterior kron --json",
        "compute --dataset table.csv --label-column kind --feature-columns a b c d --audit 3 --output tab",
        "compute -d table.csv --label-column price --feature-columns a b c d --task regression --audit 3",
        "compute --dataset pairs.npz --dim 3 --audit 2 --output pairs",
        "compute --dataset data.npz --method retrain --epochs 40 --lr 0.05 --audit 2 --subset 20",
        "compute --dataset data.npz --shard 1/2 --output part1 --audit 2",
        "compute --dataset data.npz --shard 2/2 --output part2 --audit 2",
        "merge part1 part2 --output whole",
        "show scores",
        "show npz --json",
        "mislabeled scores",
        "mislabeled scores --json",
        "select scores --keep 0.5 --json",
        "select npz --keep 0.5 -o kept.csv",
        "apply kept.csv data.npz -o clean.npz",
        "compare npz whole",
        "difficulty npz whole tab",
        "compute --dataset nothing-here",
        "compute --dataset digits --posterior wrong",
        "compute --dataset digits --weight-decay -1",
        "show nowhere",
        "plan --n-samples 50000 --n-features 512 --n-classes 10 --memory 4GiB",
    ]
    return [line.split() for line in lines]


def run_commands(folder):
    """Return exit code, output and errors of each command, in words that do not depend on the clock."""
    from lsi.cli import main

    out = {}
    with contextlib.chdir(folder):
        for words in command_lines(folder):
            stdout, stderr = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                code = main(words)
            streams = [_timeless(stream.getvalue(), folder) for stream in (stdout, stderr)]
            out[" ".join(words)] = {"code": code, "stdout": streams[0], "stderr": streams[1]}
    return out


def _timeless(text, folder):
    """Mask dates, seconds, sizes of memory, and rates: they are the machine's, not the run's."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(
        r'"(seconds|created|timings|versions|run)": ("[^"]*"|\{[^{}]*\}|[-\d.e]+|null)', r'"\1": _', text
    )
    units = "ms|s|min|h|hours?|days?|GiB|MiB|GB|MB|TFLOP|GFLOP/s|GFLOP"
    text = re.sub(rf"\d[\d,.]*(?:–\d[\d,.]*)? ?({units})\b", "#", text)
    return re.sub(" +", " ", text)


def record(path):
    """Run everything and write what it gave."""
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    out = {"runs": {}, "commands": {}}
    for name, make in api_runs():
        try:
            out["runs"][name] = described(make())
        except Exception:
            out["runs"][name] = {"failed": traceback.format_exc().splitlines()[-1]}
        print(f"{name}: {out['runs'][name].get('failed', 'done')}", file=sys.stderr, flush=True)
    out["calls"] = {name: _stable(call()) for name, call in other_calls()}
    with tempfile.TemporaryDirectory() as folder:
        out["commands"] = run_commands(Path(folder))
    path.write_text(json.dumps(out, indent=1, sort_keys=True))
    print(f"{len(out['runs'])} runs and {len(out['commands'])} commands in {path}")


def differences(one, other, where=""):
    """Yield each place where two records differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            place = f"{where} / {key}" if where else key
            if key not in one or key not in other:
                yield f"{place}: only in the {'second' if key not in one else 'first'}"
            else:
                yield from differences(one[key], other[key], place)
    elif one != other:
        yield f"{where}:\n    {one!r}\n    {other!r}"


def compare(first, second):
    """Print where two records differ; return whether they do."""
    records = [json.loads(path.read_text()) for path in (first, second)]
    found = list(differences(*records))
    for line in found:
        print(line)
    counts = [f"{len(each['runs'])} runs, {len(each['commands'])} commands" for each in records]
    print(f"{counts[0]} against {counts[1]}: {len(found)} differences")
    return bool(found)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("record").add_argument("path", type=Path)
    both = actions.add_parser("compare")
    both.add_argument("first", type=Path)
    both.add_argument("second", type=Path)
    options = parser.parse_args()
    if options.action == "record":
        record(options.path)
        return 0
    return int(compare(options.first, options.second))


if __name__ == "__main__":
    sys.exit(main())
