"""What leaving out groups of rows costs, beside the single rows."""

from __future__ import annotations

from dataclasses import replace

from lsi.loo.newton.cost import ELEMENT, PLAIN_ELEMENT, REBUILT, working_dtype
from lsi.planning.cost import DENSE_SHARE, Estimate, product_rate
from lsi.validation.problem import Shape

# Sweeps over the data that a group takes, by its share of them. Measured on ten shapes from 600 × 20 × 3 to
# 5,000 × 200 × 2 with groups of 0.25 to 25 %: from 5 to 81, within a factor of two of this line.
FEWEST, BY_SHARE, MOST = 5.0, 600.0, 80.0


def with_groups(found: Estimate, shape: Shape, posterior: str, n_groups: int) -> Estimate:
    """Return what a run of the dense solver takes that leaves out groups of about equal size as well."""
    if not n_groups:
        return found
    n, k, c = shape.n_samples, min(shape.n_samples, shape.n_features) * (shape.n_classes - 1), shape.n_classes
    sweeps = min(MOST, FEWEST + BY_SHARE / n_groups)
    sweep = 4.0 * n * k + 2.0 * k**2 + ELEMENT.get(posterior, PLAIN_ELEMENT) * n * c
    if posterior == "full":
        sweep += REBUILT * (n * k**2 + 3.0 * k**3)
    seconds = n_groups * sweeps * sweep / (DENSE_SHARE * product_rate(working_dtype(shape)))
    worst = None if found.separable is None else found.separable + seconds
    return replace(found, seconds=found.seconds + seconds, separable=worst)
