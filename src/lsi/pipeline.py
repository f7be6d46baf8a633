"""The pipeline from features and labels to scores: a table of contents of the library."""

from __future__ import annotations

import datetime
import hashlib
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lsi.audit import Audit
from lsi.errors import InputError
from lsi.features.design import Design
from lsi.loo.audit import audit_newton, audit_retrain, default_count
from lsi.loo.newton import Newton
from lsi.loo.newton.engine import NewtonEngine
from lsi.loo.result import LooResult
from lsi.loo.retrain import Retrain, RetrainEngine
from lsi.plan import refuse_oversize, working_dtype
from lsi.posterior import POSTERIORS, Posterior
from lsi.probes.fit import fit
from lsi.probes.linear import LinearProbe
from lsi.probes.model import SoftmaxModel
from lsi.problem import Problem, check_choice, check_positive, check_problem
from lsi.progress import Progress
from lsi.scores import Scores

METHODS: dict[str, type[Newton] | type[Retrain]] = {"newton": Newton, "retrain": Retrain}


def score(
    X: Any,
    y: Any,
    *,
    probe: LinearProbe | None = None,
    posterior: str = "diag",
    method: str | Newton | Retrain = "newton",
    prior_precision: float = 1.0,
    subset: Any = None,
    sample_id: Any = None,
    audit: bool | int = True,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Scores:
    r"""Return the Laplace Sample Information of training samples, in nats.

    .. math:: \mathrm{LSI}(i) = \mathrm{KL}\bigl(N(\theta, P^{-1}) \,\|\, N(\theta_{-i}, P_{-i}^{-1})\bigr)

    with :math:`\theta` the trained weights, P the posterior precision in the chosen structure, and the
    subscript −i for the same without sample i. High: atypical, hard or mislabeled. Low: typical or redundant.

    Args:
        X: `(N, D)` features: numpy, torch or pandas.
        y: `(N,)` labels of any hashable type.
        probe: What is trained; None: ``LinearProbe()``.
        posterior: ``"diag"``, ``"kron"`` or ``"full"``.
        method: ``"newton"`` (the leave-one-out optimum), ``"retrain"`` (the paper's stopped training), or
            either with settings.
        prior_precision: τ > 0, precision of the Gaussian prior in the posterior.
        subset: Positions to score, or a boolean mask; None: all.
        sample_id: `(N,)` unique ids; None: the index of X if it is a DataFrame, else `0 … N−1`.
        audit: Whether a few samples are left out again by brute force, or how many.
        seed: Of the choice of audited samples.
        device: Torch device; None: a GPU where there is one, else the processor.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        One row a scored sample, in the order asked for, with audit and manifest.

    Raises:
        InputError: Data or settings cannot be used; the message names the cure. It is a ValueError too.
        ConvergenceError: The probe did not reach its optimum.

    Source:
        Kaiser, Schwethelm, Rueckert, Kaissis, *Laplace Sample Information*, ICLR 2025.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> scores = score(X, y, audit=4)
        >>> int(scores.top(1)["position"].iloc[0])
        83
    """
    probe = LinearProbe() if probe is None else probe
    settings = check_settings(probe, posterior, method, prior_precision, audit)
    problem = check_problem(X, y, subset=subset, sample_id=sample_id)
    where = check_device(device)
    refuse_oversize(problem.n_samples, problem.n_features, problem.n_classes, posterior, settings, where)
    run = Run(problem, probe, posterior, float(prior_precision), audit, int(seed), where, progress, Clock())
    if isinstance(settings, Newton):
        result, measured, report = _newton(run, settings)
    else:
        result, measured, report = _retrain(run, settings)
    return Scores(_table(problem, result), _manifest(run, settings, report), measured)


def check_settings(
    probe: Any,
    posterior: Any,
    method: Any,
    prior_precision: Any,
    audit: Any,
) -> Newton | Retrain:
    """Check everything that does not need the data.

    Args:
        probe: As in `score`.
        posterior: As in `score`.
        method: As in `score`.
        prior_precision: As in `score`.
        audit: As in `score`.

    Returns:
        The method with its settings.

    Raises:
        InputError: A setting that cannot be used.
    """
    if not isinstance(probe, LinearProbe):
        kind = type(probe).__name__
        raise InputError(f"probe must be a LinearProbe, got {kind}. Use lsi.LinearProbe(weight_decay=1e-4).")
    check_choice("posterior", posterior, POSTERIORS)
    check_positive("prior_precision", prior_precision)
    if not isinstance(audit, int) or audit < 0:
        raise InputError(f"audit must be True, False or a number of samples ≥ 0, got {audit!r}.")
    if isinstance(method, str):
        method = METHODS[check_choice("method", method, METHODS)]()
    if not isinstance(method, (Newton, Retrain)):
        known = "'newton', 'retrain', lsi.Newton(...) or lsi.Retrain(...)"
        raise InputError(f"method must be {known}, got {method!r}.")
    if isinstance(method, Newton) and probe.weight_decay + method.added_weight_decay == 0:
        raise InputError(
            "weight_decay=0 leaves the leave-one-out optimum undefined where classes can be separated. "
            "Use a small positive weight_decay such as 1e-6, or method='retrain'."
        )
    return method


def check_device(device: str | torch.device | None) -> torch.device:
    """Return the torch device to run on: the one named, else a GPU where there is one.

    Args:
        device: As in `score`.

    Returns:
        The device.

    Raises:
        InputError: If torch does not know it, or it is not there.
    """
    try:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device={device!r} cannot be used ({reason}). Use 'cpu', or 'cuda' with a GPU."
        ) from error
    return where


@dataclass(frozen=True)
class Run:
    """What every stage of one run needs."""

    problem: Problem
    probe: LinearProbe
    posterior: str
    prior_precision: float
    audit: bool | int
    seed: int
    device: torch.device
    progress: Progress | None
    clock: Clock

    @property
    def index(self) -> Tensor:
        """Positions to score, on the device."""
        return torch.from_numpy(self.problem.subset).to(self.device)

    def design(self, dtype: torch.dtype) -> Design:
        """Return the design matrix in the original coordinates."""
        return Design(self.problem.features, self.probe.fit_intercept, dtype, self.device)

    def untrained(self, design: Design) -> SoftmaxModel:
        """Return the model before training."""
        problem = self.problem
        target = torch.from_numpy(problem.target).to(design.device)
        weight = torch.from_numpy(self.probe.sample_weights(problem.target, problem.classes)).to(
            design.device
        )
        return SoftmaxModel.start(design, target, weight, self.probe.weight_decay, problem.n_classes)

    def audit_count(self, model: SoftmaxModel) -> int:
        """Return how many samples the audit leaves out."""
        if isinstance(self.audit, bool):
            return default_count(model.theta.numel(), self.posterior) if self.audit else 0
        return min(int(self.audit), len(self.problem.subset))


Outcome = tuple[LooResult, Audit | None, dict[str, Any]]


def _newton(run: Run, settings: Newton) -> Outcome:
    """Score by leave-one-out optima: fit → posterior → leave-one-out → audit."""
    problem, clock, kind = run.problem, run.clock, POSTERIORS[run.posterior]
    dtype = working_dtype(
        problem.n_samples, problem.n_features + int(run.probe.fit_intercept), problem.n_classes
    )
    with clock("fit"):
        design = run.design(dtype)
        basis = kind.coordinates(design)
        design = design if basis is None else design.rotated(basis)
        untrained = run.untrained(design)
        untrained.weight_decay += settings.added_weight_decay
        model, curvature, report = fit(untrained, run.progress)
    with clock("posterior"):
        posterior = kind(model, run.prior_precision, basis)
    with clock("factor"):
        engine = NewtonEngine(model, curvature, posterior, settings)
    with clock("leave-one-out"):
        result = engine.run(run.index, run.progress)
    with clock("audit"):
        count = run.audit_count(model)
        audit = audit_newton(engine, run.index, result, count, run.seed, run.progress) if count else None
    return result, audit, {**asdict(report), "dtype": str(dtype).removeprefix("torch.")}


def _retrain(run: Run, settings: Retrain) -> Outcome:
    """Score by the published protocol: train all heads → posterior → divergence → audit."""
    kind = POSTERIORS[run.posterior]

    def build(trained: SoftmaxModel) -> tuple[Posterior, Tensor | None]:
        trained = replace(trained, design=trained.design.astype(torch.float64))
        basis = kind.coordinates(trained.design)
        if basis is not None:
            trained = replace(trained, design=trained.design.rotated(basis), theta=trained.theta @ basis)
        return kind(trained, run.prior_precision, basis), basis

    model = run.untrained(run.design(torch.float32))
    engine = RetrainEngine(model, build, settings, run.probe.fit_intercept)
    with run.clock("leave-one-out"):
        result = engine.run(run.index, run.progress)
    with run.clock("audit"):
        # One head trained plainly costs as much as a whole block of them, so that a few must do.
        count = min(4, run.audit_count(model)) if run.audit is True else run.audit_count(model)
        audit = audit_retrain(engine, run.index, result, count, run.seed, run.progress) if count else None
    return result, audit, {"dtype": "float32"}


def _manifest(run: Run, settings: Newton | Retrain, report: dict[str, Any]) -> dict[str, Any]:
    problem = run.problem
    return {
        "versions": _versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": {
            "probe": run.probe.describe(),
            "posterior": run.posterior,
            "method": settings.describe(),
            "prior_precision": run.prior_precision,
            "seed": run.seed,
            "device": str(run.device),
        },
        "data": {
            "n_samples": problem.n_samples,
            "n_features": problem.n_features,
            "n_classes": problem.n_classes,
            "n_scored": len(problem.subset),
            "fingerprint": fingerprint(problem),
        },
        "classes": problem.classes.tolist(),
        "class_counts": np.bincount(problem.target, minlength=problem.n_classes).tolist(),
        "timings": run.clock.seconds,
        "fit": report,
    }


def _table(problem: Problem, result: LooResult) -> pd.DataFrame:
    labels = pd.Series(problem.classes).infer_objects().to_numpy()
    where = problem.subset
    return pd.DataFrame(
        {
            "sample_id": problem.sample_id[where],
            "position": where,
            "label": labels[problem.target[where]],
            "lsi": result.lsi,
            "mean_term": result.mean_term,
            "covariance_term": result.covariance_term,
            "loo_probability": result.loo_probability,
            "loo_prediction": labels[result.loo_prediction],
            "leverage": result.leverage,
            "relative_error": result.relative_error,
        }
    )


def fingerprint(problem: Problem) -> str:
    """Return the SHA-256 of features and labels, read block by block."""
    digest = hashlib.sha256(str((problem.features.shape, problem.features.dtype.str)).encode())
    for start in range(0, problem.n_samples, 8192):
        digest.update(np.ascontiguousarray(problem.features[start : start + 8192]).tobytes())
    digest.update(problem.target.tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    try:
        own = version("laplace-sample-information")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "lsi": own,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


class Clock:
    """Wall-clock seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
