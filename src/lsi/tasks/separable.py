"""Does the probe separate the classes? Samples then take several sweeps each, and a run longer."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsi.loo.newton.cost import RANDOM_SEPARABLE
from lsi.probes.linear import LinearProbe
from lsi.probes.softmax.quick_fit import quick_fit
from lsi.validation.problem import Problem
from lsi.validation.settings import AUTO

ROWS = 3000  # that a quick fit takes a second for at most
WORK = 2e10  # operations of that fit, above which it is not worth its time
HITS = 0.999  # share of its own labels from which the probe separates them


def separates(problem: Problem, probe: Any) -> bool | None:
    """Return whether the probe, quickly trained on some rows, names all of their labels; None: not tried.

    On more rows classes are no easier to separate, so that "no" is certain, and "yes" likely. The penalty in
    sum form is that of all rows.
    """
    n, d = problem.features.shape
    if not isinstance(probe, LinearProbe) or probe.weight_decay == AUTO:
        return False if getattr(probe, "weight_decay", None) == AUTO else None
    step = -(-n // ROWS)
    rows = -(-n // step)
    if 400.0 * rows * d * problem.n_classes + 20.0 * d**3 > WORK:
        return True if n <= RANDOM_SEPARABLE * d else None
    target, features = problem.target[::step], np.asarray(problem.features[::step])
    if len(np.unique(target)) < problem.n_classes:
        return None
    decay = float(probe.weight_decay) * n / rows
    fitted = quick_fit(features, target, problem.classes, LinearProbe(decay, probe.fit_intercept))
    return bool(np.mean(fitted.predict(features) == target) >= HITS)
