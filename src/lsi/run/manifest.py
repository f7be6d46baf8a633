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
from lsi.system.versions import versions
from lsi.tasks.base import Task
from lsi.validation.problem import Problem


def build_table(task: Task, problem: Problem, result: LooResult) -> pd.DataFrame:
    """Return one row a scored sample, in the order asked for."""
    where, told = problem.subset, task.columns(problem, result)
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


def build_manifest(task: Task, run: Run, described: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """Return how the scores were made."""
    return {
        **described,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **task.manifest(run.problem),
        "timings": run.clock.seconds,
        "fit": report,
        **run.notes,
    }


def describe_run(task: Task, run: Run, method: Method) -> dict[str, Any]:
    """Return versions, settings and data of a run, as JSON values.

    Args:
        task: What is scored.
        run: Data and settings.
        method: The engine's settings.
    """
    problem = run.problem
    return {
        "task": task.name,
        "versions": versions(),
        "config": {
            "probe": run.probe.describe(),
            "posterior": run.posterior,
            "method": method.describe(),
            "prior_precision": run.prior_precision,
            "seed": run.seed,
            "device": str(run.device),
        },
        "data": {
            "n_samples": problem.n_samples,
            "n_features": problem.n_features,
            "n_classes": problem.n_classes,
            "n_outputs": len(problem.outputs) or problem.n_classes,
            "n_scored": len(problem.subset),
            "fingerprint": fingerprint(problem),
        },
    }


def fingerprint(problem: Problem) -> str:
    """Return the SHA-256 of features and labels, read block by block."""
    digest = hashlib.sha256(str((problem.features.shape, problem.features.dtype.str)).encode())
    for start in range(0, problem.n_samples, 8192):
        digest.update(np.ascontiguousarray(problem.features[start : start + 8192]).tobytes())
    digest.update(problem.target.tobytes())
    return digest.hexdigest()
