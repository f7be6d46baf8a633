"""Counted operations and bytes of `Retrain`."""

from __future__ import annotations

from lsi.loo.retrain.engine import TENSORS
from lsi.loo.retrain.strides.choice import PILOTS, grids_to_try
from lsi.methods.retrain import Retrain
from lsi.validation.problem import Shape

TOGETHER = 256  # heads in a block at most
# Measured by `python -m benchmarks.estimates`, in operations of a product: one probability of a row and
# epoch, of heads in a batch and of those of the audit, which are trained one at a time.
ELEMENT, PLAIN_ELEMENT = 500.0, 5000.0
AUDITED = 4  # that the audit trains again: one plainly costs as much as a whole block of copies


def retrain_cost(shape: Shape, method: Retrain) -> tuple[float, int]:
    """Return operations and bytes of training one head for every scored sample, and one for all data."""
    n, d, c, n_scored = shape.n_samples, shape.n_features, shape.n_classes, shape.n_scored
    grids = grids_to_try(method, n, d, c, n_scored) if method.is_plain else []
    # In strides, only the pilots see every epoch; the other heads see the data at the nodes of the grid.
    trained, strides = (PILOTS + 1, n_scored * len(grids[0])) if grids else (n_scored + 1, 0)
    operations = (4.0 * d + ELEMENT) * n * c * (trained * method.epochs + strides) * method.n_seeds
    operations += (12.0 * d + PLAIN_ELEMENT) * n * c * (AUDITED + 1) * method.epochs * method.n_seeds

    tensors = TENSORS * min(n, d) if grids else 4 * d
    heads = 4 * min(TOGETHER, n_scored) * c * (tensors + 2 * n)
    return operations, 4 * n * d * (3 if grids else 2) + heads + (48 << 20)
