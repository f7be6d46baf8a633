"""The plan of a run before it starts: its solver, time and memory, the alternatives, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from lsi.errors import InputError
from lsi.methods import Newton, Retrain, as_method
from lsi.planning.cost import Estimate, cost, counted, product_rate
from lsi.planning.groups import with_groups
from lsi.planning.label_noise import noise_cost, worthwhile
from lsi.posterior import POSTERIORS
from lsi.system.machine import Machine, available_memory
from lsi.system.text import size_text
from lsi.validation.problem import Shape
from lsi.validation.settings import check_choice

WORKER_START = 5.0  # seconds until the workers of a cluster have loaded the library
# What `solver="auto"` gives the dense solver where `memory` does not say: the same on every machine.
DENSE_BYTES = 8 << 30


@dataclass(frozen=True)
class Way:
    """One way to score a dataset, and what it costs.

    Attributes:
        method: ``"newton"`` or ``"retrain"``.
        solver: ``"dense"`` or ``"blocks"`` for Newton, else empty.
        posterior: Name of the structure.
        seconds: Predicted wall-clock time, without loading the data.
        bytes: Predicted peak memory beyond the interpreter and its libraries.
        fits: Whether that much memory is available.
        separable: Seconds if the probe separates the classes, where that is not known; else None.
    """

    method: str
    solver: str
    posterior: str
    seconds: float
    bytes: int
    fits: bool
    separable: float | None = None

    @property
    def name(self) -> str:
        """The way in words, such as ``"newton, dense solver, posterior diag"``."""
        solver = f", {self.solver} solver" if self.solver else ""
        return f"{self.method}{solver}, posterior {self.posterior}"

    def __str__(self) -> str:
        """Return the way and its cost in one line."""
        line = f"{self.name}: {Estimate(self.seconds, self.bytes, self.separable).text}"
        return line if self.fits else f"{line} (does not fit)"


@dataclass(frozen=True)
class Plan:
    """The way that a run would take, and the others.

    Attributes:
        chosen: What `lsi.score` would do with the same settings.
        alternatives: Other ways to score the same samples.
        memory: Bytes that a run may use, None if that is not known.
    """

    chosen: Way
    alternatives: tuple[Way, ...]
    memory: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "chosen": vars(self.chosen),
            "alternatives": [vars(way) for way in self.alternatives],
            "memory": self.memory,
        }

    def __str__(self) -> str:
        """Return the plan as a few lines."""
        have = "" if self.memory is None else f" ({size_text(self.memory)} available)"
        lines = [f"{self.chosen}{have}", "alternatives:", *(f"  {way}" for way in self.alternatives)]
        return "\n".join(lines)


def make_plan(
    n_samples: int,
    n_features: int,
    n_classes: int,
    *,
    posterior: str = "diag",
    method: str | Newton | Retrain = "newton",
    n_scored: int | None = None,
    n_groups: int = 0,
    memory: int | None = None,
    workers: int = 1,
    separable: bool | None = None,
) -> Plan:
    """Predict what `lsi.score` would do with a linear probe, from a quick calibration of this machine.

    Times and memory are right to about a factor of two on an idle machine.

    Args:
        n_samples: N.
        n_features: D, without the intercept.
        n_classes: C.
        posterior: ``"diag"``, ``"kron"`` or ``"full"``.
        method: As in `lsi.score`.
        n_scored: Samples to score; None: all.
        n_groups: Groups of about equal size that are left out as well, each as a whole; 0: none.
        memory: Bytes that a run may use; None: what the machine has left.
        workers: Workers of a cluster, each with the threads of this process.
        separable: Whether the probe separates the classes, which makes samples harder to leave out; None: not
            known, and assumed up to two samples for each feature.

    Returns:
        The chosen way and the alternatives.

    Raises:
        InputError: Sizes that no dataset can have, or an unknown posterior or method.

    Examples:
        >>> make_plan(1000, 64, 10).chosen.solver
        'dense'
    """
    if not 0 <= n_groups <= n_samples:
        raise InputError(f"n_groups={n_groups}: a plan takes 0 to {n_samples:,} groups, as many as samples.")
    if min(n_samples, n_classes) < 2 or n_features < 1 or (n_scored or 1) < 1 or workers < 1:
        raise InputError(
            "A plan needs at least 2 samples, 2 classes, 1 feature, 1 scored sample and 1 worker."
        )
    check_choice("posterior", posterior, POSTERIORS)
    method = as_method(method)
    have = budget(memory)
    shape = Shape(n_samples, n_features + 1, n_classes, n_scored or n_samples)
    ways = [each for each in _ways(shape, posterior, method, memory) if _exists(each[0], each[2])]
    if n_groups:
        if ways[0][2] != "dense":
            raise InputError(
                "groups need method='newton' and its dense solver: more memory, fewer features (a "
                "projection) or fewer classes."
            )
        ways = [each for each in ways if each[2] == "dense"]
    first, *others = [
        _way(shape, structure, way, solver, have, workers, memory, separable, n_groups)
        for structure, way, solver in ways
    ]
    return Plan(first, tuple(others), have)


def _ways(
    shape: Shape, posterior: str, method: Newton | Retrain, memory: int | None
) -> list[tuple[str, Newton | Retrain, str]]:
    """Return posterior, method and solver of every way: what was asked for first, then the alternatives."""
    newton = method if isinstance(method, Newton) else Newton()
    retrain = method if isinstance(method, Retrain) else Retrain()
    chosen = choose_solver(shape, posterior, newton, memory)
    other = "blocks" if chosen == "dense" else "dense"
    first, second = (posterior, newton, chosen), (posterior, newton, other)
    if isinstance(method, Retrain):
        return [(posterior, retrain, ""), first, second]
    structures = [
        (name, newton, choose_solver(shape, name, newton, memory)) for name in POSTERIORS if name != posterior
    ]
    return [first, second, (posterior, retrain, ""), *structures]


def _exists(posterior: str, solver: str) -> bool:
    """Return whether a posterior goes with a solver: "full" needs the Hessian, which "blocks" never forms."""
    return (posterior, solver) != ("full", "blocks")


def _way(
    shape: Shape,
    posterior: str,
    method: Newton | Retrain,
    solver: str,
    have: int | None,
    workers: int,
    memory: int | None,
    separable: bool | None,
    n_groups: int,
) -> Way:
    found = with_label_noise(cost(shape, posterior, method, solver, separable=separable), shape, memory)
    found = with_groups(found, shape, posterior, n_groups)
    name = "retrain" if isinstance(method, Retrain) else "newton"
    seconds = found.seconds
    if workers > 1:
        # Workers share only what grows with the number of scored samples.
        alone = cost(replace(shape, n_scored=0), posterior, method, solver, separable=separable)
        fixed = with_label_noise(alone, shape, memory).seconds
        shared = (seconds - fixed) / workers + fixed + WORKER_START
        slower, seconds = shared / seconds, shared
        found = replace(found, separable=found.separable and slower * found.separable)
    need = counted(shape, posterior, method, solver)[1]  # a run without room for label noise leaves it out
    return Way(name, solver, posterior, seconds, found.bytes, have is None or need <= have, found.separable)


def estimate(
    shape: Shape,
    posterior: str,
    method: Newton | Retrain,
    memory: int | None = None,
    *,
    separable: bool | None = None,
    label_noise: bool = True,
) -> Estimate:
    """Predict time and memory of a run, with the estimate of label noise where a run makes it unasked."""
    solver = choose_solver(shape, posterior, method, memory) if isinstance(method, Newton) else ""
    found = cost(shape, posterior, method, solver, separable=separable)
    return with_label_noise(found, shape, memory) if label_noise else found


def with_label_noise(found: Estimate, shape: Shape, memory: int | None) -> Estimate:
    """Return what a run takes with the estimate of label noise, where it makes it unasked."""
    if not worthwhile(shape, memory):
        return found
    operations, count = noise_cost(shape)
    seconds = operations / product_rate(torch.float32)
    worst = None if found.separable is None else found.separable + seconds
    return Estimate(found.seconds + seconds, max(found.bytes, count), worst)


def budget(memory: int | None) -> int | None:
    """Return the bytes that a run may use: what was allowed, at most what the machine has left."""
    have = available_memory()
    return memory if have is None else have if memory is None else min(memory, have)


def room_on(device: torch.device, memory: int | None) -> int | None:
    """Return the bytes that a run may use where its large matrices live."""
    if device.type != "cuda":
        return budget(memory)
    free = int(torch.cuda.mem_get_info(device)[0])
    return free if memory is None else min(memory, free)


def choose_solver(shape: Shape, posterior: str, method: Newton, memory: int | None = None) -> str:
    """Return the solver asked for, else dense where its matrices fit `memory` or `DENSE_BYTES`, else blocks.

    Never by what the machine happens to have free: the two solvers give different values.
    """
    if method.solver != "auto":
        return method.solver
    _, need = counted(shape, posterior, method, "dense")
    return "dense" if need <= (memory or DENSE_BYTES) or posterior == "full" else "blocks"


def grade(solver: str, method: Newton) -> str:
    """Return what the values of a run are good for: ``"certified"`` or ``"ranking"``."""
    return "certified" if solver == "dense" and method.tol is not None else "ranking"


def refuse_oversize(shape: Shape, posterior: str, method: Newton | Retrain, machine: Machine) -> None:
    """Refuse, before any work, a run that cannot fit in memory, and say what would fit."""
    if isinstance(method, Retrain):
        return
    if not _exists(posterior, method.solver):
        raise InputError(
            "The full posterior needs the whole Hessian, which solver='blocks' never forms. "
            "Use posterior='kron' or 'diag', or solver='dense'."
        )
    have = room_on(machine.device, machine.memory)
    solver = choose_solver(shape, posterior, method, machine.memory)
    _, need = counted(shape, posterior, method, solver)
    if have is None or need <= have:
        return
    cure = "choose solver='blocks', which needs less and whose values rank rather than measure"
    if posterior == "full":
        cure = "use posterior='kron' or 'diag' with solver='auto'"
    if solver == "blocks":
        cure = "score fewer classes at a time"
    fitting = int((have / (8.0 * 3.5)) ** 0.5 / max(1, shape.n_classes - 1))
    raise InputError(
        f"{shape.n_features - 1} features × {shape.n_classes} classes need a curvature matrix of about "
        f"{size_text(need)}, but {size_text(have)} are available. Reduce the features to about "
        f"{max(1, fitting)} (for example with sklearn.decomposition.PCA), {cure}, or use method='retrain' "
        "with a subset."
    )
