"""Which training rows made an answer: this library and others against training again, on the same truth.

Two figures, each the mean over queries. Leave-one-out correlation: Pearson's between predicted and true
changes when single rows are left out. Linear datamodeling score (Park et al., TRAK, 2023): Spearman's
between what added-up effects predict for random halves of the data and the outcome for probes trained on
them. Both are of a query's loss or its logit, the label's log-odds; the loss falls with the logit, so that
the true ranks of both are the same.
"""

import sys
import time

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import pearsonr, spearmanr

import lsi
from benchmarks.common import cifar_features, parser, write

COLUMNS = ["method", "leave-one-out correlation", "LDS", "seconds"]


def optimum(X, y, weight_decay, start):
    """Return the softmax probe's weights `(C, D)`, by L-BFGS in float64; shares nothing with the library."""
    hot = np.eye(len(start))[y]

    def objective(flat):
        theta = flat.reshape(start.shape)
        logits = X @ theta.T
        loss = -np.mean(np.sum(hot * log_softmax(logits, axis=1), axis=1)) + 0.5 * weight_decay * flat @ flat
        return loss, ((softmax(logits, axis=1) - hot).T @ X / len(X) + weight_decay * theta).ravel()

    options = {"maxiter": 5000, "maxfun": 10000, "gtol": 1e-9, "ftol": 0.0, "maxcor": 30}
    return minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(
        start.shape
    )


def outcomes(theta, X, y):
    """Return the loss and the negative logit of each query's label, `(2, M)`."""
    logits, places = X @ theta.T, (np.arange(len(X)), y)
    others = logits.copy()
    others[places] = -np.inf
    return np.stack([-log_softmax(logits, axis=1)[places], logsumexp(others, axis=1) - logits[places]])


def truth(X, y, Q, labels, weight_decay, n_left_out, n_subsets):
    """Return the full weights, rows left out with true changes `(n, 2, M)`, and halves with true outcomes."""
    rng = np.random.default_rng(0)
    full = optimum(X, y, weight_decay, np.zeros((10, X.shape[1])))
    rows = np.sort(rng.choice(len(X), n_left_out, replace=False))
    alone = [optimum(np.delete(X, i, 0), np.delete(y, i), weight_decay, full) for i in rows]
    changes = np.stack([outcomes(theta, Q, labels) - outcomes(full, Q, labels) for theta in alone])
    halves = [np.sort(rng.choice(len(X), len(X) // 2, replace=False)) for _ in range(n_subsets)]
    after = np.stack([outcomes(optimum(X[half], y[half], weight_decay, full), Q, labels) for half in halves])
    return full, rows, changes, halves, after


def figures(effects, kind, rows, changes, halves, after):
    """Return both figures of effects `(N, M)` on the loss (kind 0) or the negative logit (1)."""
    changes, after = changes[:, kind], after[:, kind]
    queries = range(effects.shape[1])
    alone = np.mean([pearsonr(effects[rows, q], changes[:, q]).statistic for q in queries])
    left = np.stack([effects.sum(0) - effects[half].sum(0) for half in halves])
    return float(alone), float(np.mean([spearmanr(left[:, q], after[:, q]).statistic for q in queries]))


def ours(X, y, Q, labels, weight_decay, column, sign):
    fitted = lsi.fit(X, y, probe=lsi.LinearProbe(weight_decay, fit_intercept=False))
    table = fitted.explain(Q, labels, k=len(X))
    effects = np.zeros((len(X), len(Q)))
    effects[table["sample_id"], table["query"]] = sign * table[column]
    return effects


class Peers:
    """Methods of other packages, on the same trained probe."""

    def __init__(self, X, y, Q, labels, weight_decay, theta, folder):
        self.model = torch.nn.Linear(X.shape[1], len(theta), bias=False)
        self.model.load_state_dict({"weight": torch.from_numpy(theta).float()})
        self.weight_decay, self.folder = weight_decay, folder
        self.train, self.test = (
            torch.utils.data.TensorDataset(torch.from_numpy(rows).float(), torch.from_numpy(codes).long())
            for rows, codes in ((X, y), (Q, labels))
        )

    def loaders(self):
        return (
            torch.utils.data.DataLoader(each, batch_size=len(each), shuffle=False)
            for each in (self.train, self.test)
        )

    def dattri(self, kind):
        """Return the influence function by conjugate gradients; the explicit one agrees to three digits."""
        from dattri.algorithm.influence_function import IFAttributorCG
        from dattri.task import AttributionTask

        def loss(params, data):
            x, label = data
            logits = torch.func.functional_call(self.model, params, x)
            return torch.nn.functional.cross_entropy(logits, label.long())

        def target(params, data):
            if not kind:
                return loss(params, data)
            x, label = data
            logits = torch.func.functional_call(self.model, params, x)
            hot = torch.arange(logits.shape[-1]) == label[..., None]
            return (logits.masked_fill(hot, -torch.inf).logsumexp(-1) - (logits * hot).sum(-1)).mean()

        task = AttributionTask(
            loss_func=loss, target_func=target, model=self.model, checkpoints=self.model.state_dict()
        )
        attributor = IFAttributorCG(task, max_iter=100, regularization=self.weight_decay)
        train, test = self.loaders()
        attributor.cache(train)
        return attributor.attribute(train, test).detach().numpy()

    def traker(self):
        from trak import TRAKer
        from trak.projectors import BasicProjector, ProjectionType

        size = sum(p.numel() for p in self.model.parameters())
        projector = BasicProjector(
            size, min(2048, size), 0, ProjectionType.rademacher, torch.device("cpu"), dtype=torch.float32
        )
        traker = TRAKer(
            self.model,
            "image_classification",
            len(self.train),
            save_dir=str(self.folder / "trak"),
            device="cpu",
            projector=projector,
            proj_dim=min(2048, size),
            use_half_precision=False,
            lambda_reg=self.weight_decay * len(self.train),
        )
        train, test = self.loaders()
        traker.load_checkpoint(self.model.state_dict(), model_id=0)
        for batch in train:
            traker.featurize(batch=batch, num_samples=len(batch[0]))
        traker.finalize_features()
        traker.start_scoring_checkpoint("queries", self.model.state_dict(), 0, len(self.test))
        for batch in test:
            traker.score(batch=batch, num_samples=len(batch[0]))
        return np.array(traker.finalize_scores("queries"))

    def kronfluence(self):
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments, ScoreArguments
        from kronfluence.task import Task

        class Classification(Task):
            def compute_train_loss(self, batch, model, sample=False):
                logits = model(batch[0])
                if not sample:
                    return torch.nn.functional.cross_entropy(logits, batch[1], reduction="sum")
                drawn = torch.multinomial(torch.softmax(logits.detach(), 1), 1).flatten()
                return torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")

            def compute_measurement(self, batch, model):
                return self.compute_train_loss(batch, model)

        task = Classification()
        analyzer = Analyzer(
            "probe", prepare_model(self.model, task), task, cpu=True, output_dir=str(self.folder)
        )
        analyzer.fit_all_factors(
            "factors", self.train, per_device_batch_size=len(self.train), factor_args=FactorArguments("ekfac")
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            self.test,
            self.train,
            per_device_query_batch_size=len(self.test),
            per_device_train_batch_size=len(self.train),
            score_args=ScoreArguments(damping_factor=self.weight_decay),
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].numpy().T


def peers(folder, *problem):
    """Yield name, kind and method of the other packages."""
    made = Peers(*problem, folder)
    yield "dattri: influence function, loss", 0, lambda: made.dattri(0)
    yield "dattri: influence function, logit", 1, lambda: made.dattri(1)
    yield "traker: TRAK, logit", 1, made.traker
    yield "kronfluence: EK-FAC, loss", 0, made.kronfluence


def main():
    options = parser(__doc__)
    options.add_argument("--n-samples", type=int, default=1000)
    options.add_argument("--n-features", type=int, default=64)
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--left-out", type=int, default=64)
    options.add_argument("--subsets", type=int, default=50)
    options.add_argument("--weight-decay", type=float, default=1e-3)
    options.add_argument("--packages", type=str, default=None, help="folder that holds the other packages")
    options.add_argument("--scratch", type=str, default=None, help="folder where they may write")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.packages:
        sys.path.append(args.packages)
    n, m = args.n_samples, args.queries
    X, y, source = cifar_features(args.data, n + m, "clean")
    X = np.column_stack([X[:, : args.n_features], np.ones(len(X))]).astype(np.float64)
    y = y.astype(np.int64)
    problem = X[:n], y[:n], X[n:], y[n:], args.weight_decay
    full, *true = truth(*problem, args.left_out, args.subsets)
    rows = []

    def measure(name, kind, method):
        began = time.perf_counter()
        effects = method()
        seconds = time.perf_counter() - began
        rows.append(dict(zip(COLUMNS, (name, *figures(effects, kind, *true), seconds), strict=True)))

    measure("lsi: explain, loss", 0, lambda: ours(*problem, "loss_change", 1.0))
    measure("lsi: explain, logit", 1, lambda: ours(*problem, "logit_change", -1.0))
    if args.packages:
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            for peer in peers(Path(folder), *problem, full):
                try:
                    measure(*peer)
                except Exception as error:  # a peer that fails is reported, and the others go on
                    print(f"{peer[0]}: {type(error).__name__}: {error}", file=sys.stderr)
    facts = {
        "data": source,
        "rows": n,
        "features": args.n_features,
        "queries": m,
        "weight decay": args.weight_decay,
        "left out": args.left_out,
        "halves": args.subsets,
    }
    write("Attribution", rows, COLUMNS, facts, args.output)


if __name__ == "__main__":
    main()
