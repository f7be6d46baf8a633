"""From a result to the table and the manifest of `Scores`."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import numpy as np
import pandas as pd

from lsi.loo.result import LooResult
from lsi.methods import Method
from lsi.run.context import Run
from lsi.system.digests import add_matrix
from lsi.system.versions import versions
from lsi.validation.problem import Problem


def build_table(columns: dict[str, np.ndarray], problem: Problem, result: LooResult) -> pd.DataFrame:
    """Return one row for each scored sample, in the order requested; `columns` tell target and prediction."""
    where, told = problem.subset, dict(columns)
    return pd.DataFrame(
        {
            "sample_id": problem.sample_id[where],
            "position": where,
            "label": told.pop("label"),
            "lsi": result.lsi,
            "mean_term": result.mean_term,
            "covariance_term": result.covariance_term,
            **told,
            "leverage": result.leverage,
            "relative_error": result.relative_error,
            **result.extra,
        }
    )


def build_manifest(
    run: Run, described: dict[str, Any], target: dict[str, Any], report: dict[str, Any]
) -> dict[str, Any]:
    """Return how the scores were made; `target` describes the labels, `report` the fit."""
    return {
        **described,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **target,
        "timings": run.clock.seconds,
        "fit": report,
        **run.notes,
    }


def describe_run(name: str, run: Run, method: Method, data: dict[str, Any]) -> dict[str, Any]:
    """Return the task's name, versions, settings and data of a run, as JSON values."""
    return {
        "task": name,
        "versions": versions(),
        "config": {
            "probe": run.probe.describe(),
            "posterior": run.posterior,
            "method": method.describe(),
            "prior_precision": run.prior_precision,
            "seed": run.seed,
            "device": str(run.device),
        },
        "data": data,
    }


def describe_data(problem: Problem) -> dict[str, Any]:
    """Return sizes and fingerprint of the data, as JSON values."""
    return {
        "n_samples": problem.n_samples,
        "n_features": problem.n_features,
        "n_classes": problem.n_classes,
        "n_outputs": len(problem.outputs) or problem.n_classes,
        "n_scored": len(problem.subset),
        "fingerprint": fingerprint(problem),
    }


def fingerprint(problem: Problem) -> str:
    """Return the SHA-256 of features and labels."""
    digest = hashlib.sha256()
    add_matrix(digest, problem.features)
    digest.update(problem.target.tobytes())
    return digest.hexdigest()
