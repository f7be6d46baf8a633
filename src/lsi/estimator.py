"""`lsi.score` as a scikit-learn estimator."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, validate_data

from lsi.methods import Newton, Retrain
from lsi.pipeline import score
from lsi.system.progress import Progress
from lsi.validation.labels import check_labels


class LaplaceSampleInformation(BaseEstimator):
    """Laplace Sample Information of every training sample, with scikit-learn's conventions.

    It scores the data that it is fitted on and predicts nothing, so it has `fit` and fitted attributes but is
    not a classifier. Settings are those of `lsi.score`; `sample_id` belongs to the data and is passed to
    `fit`. Inputs may be whatever `lsi.score` takes and, as in scikit-learn, object arrays of numbers.

    Args:
        probe: What is trained, such as `lsi.LinearProbe(weight_decay=1e-2)`, `lsi.RidgeProbe()` for numbers,
            or `lsi.SigmoidProbe()` for several labels for each sample; None: `lsi.LinearProbe()`.
        posterior: "diag", "kron" or "full".
        method: "newton", "retrain", `lsi.Newton(...)` or `lsi.Retrain(...)`.
        prior_precision: τ > 0, precision of the Gaussian prior in the posterior.
        subset: Positions to score, or a boolean mask; None: all.
        audit: Whether a few samples are left out again by brute force, or how many.
        seed: Seed for choosing the audited samples.
        device: Torch device; None: a GPU if there is one, else the processor.
        memory: What the run may use, such as ``"4GiB"``; None: what the machine has left.
        label_noise: Whether to estimate which labels are wrong; None: if that takes little time.
        checkpoint: Folder for finished blocks, from which the same fit resumes.
        cluster: Address of a Ray cluster, ``"local"``, or None: this process.
        progress: Called as `progress(stage, done, total)`.

    Attributes:
        result_: The `lsi.Scores` of the run.
        scores_: LSI in nats, `(n_scored,)` float64, in the order requested.
        classes_: `(C,)` labels that occur in y, for classification.
        n_features_in_: Number of columns of X.
        feature_names_in_: Names of the columns, where X is a DataFrame with string names.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> estimator = LaplaceSampleInformation(subset=range(5), audit=False)
        >>> estimator.fit(*load_iris(return_X_y=True)).scores_.shape
        (5,)
    """

    def __init__(
        self,
        probe: Any = None,
        posterior: str = "diag",
        method: str | Newton | Retrain = "newton",
        prior_precision: float = 1.0,
        subset: Any = None,
        audit: bool | int = True,
        seed: int = 0,
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        label_noise: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        cluster: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.probe = probe
        self.posterior = posterior
        self.method = method
        self.prior_precision = prior_precision
        self.subset = subset
        self.audit = audit
        self.seed = seed
        self.device = device
        self.memory = memory
        self.label_noise = label_noise
        self.checkpoint = checkpoint
        self.cluster = cluster
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_id: Any = None) -> LaplaceSampleInformation:
        """Score the samples.

        Args:
            X: `(N, D)` features.
            y: `(N,)` labels, or what the probe asks for.
            sample_id: `(N,)` unique ids; None: the index of X if it is a DataFrame, else `0 … N−1`.

        Returns:
            The estimator itself.

        Raises:
            InputError: Data or settings cannot be used; it is a ValueError too.
            ConvergenceError: The probe did not reach its optimum.
        """
        X = _objects_to_numbers(X)
        validate_data(self, X, skip_check_array=True)  # sets n_features_in_ and feature_names_in_
        self.result_ = score(X, y, sample_id=sample_id, **self.get_params(deep=False))
        self.scores_ = self.result_.lsi
        if self.result_.manifest["task"] == "classification":
            self.classes_ = pd.Series(check_labels(y)[1]).infer_objects().to_numpy()
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _objects_to_numbers(X: Any) -> Any:
    """Return object arrays as numbers, as scikit-learn does; `check_problem` handles everything else."""
    if isinstance(X, np.ndarray) and X.dtype == object:
        return check_array(X, ensure_all_finite=False, ensure_min_samples=0, ensure_min_features=0)
    return X
