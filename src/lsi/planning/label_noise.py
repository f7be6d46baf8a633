"""What the estimate of label noise costs, and whether a run makes it unasked."""

from __future__ import annotations

from lsi.validation.problem import Shape

RANDOM_FEATURES, ROWS_A_FEATURE = 1500, 10  # one random feature per ten samples, 1,500 at most
TRIAL_ROWS = 5000  # on which random features are tried
MOST_WORK = 1e13  # operations: about a minute on a processor
MOST_BYTES = 6e9
LITTLE_WORK = 2e10  # operations that a run that scores few samples may spend on all of them
PASSES = 200  # products with all rows, forwards and backwards, over all fits
# Measured by `python -m benchmarks.estimates`: products take PRODUCTS times as long as counted, and the noise
# layer as long as CELL operations for each sample and class.
PRODUCTS, CELL = 3.0, 3.6e6


def random_count(n_samples: int) -> int:
    """Return how many random features N samples may get."""
    return max(1, min(RANDOM_FEATURES, n_samples // ROWS_A_FEATURE))


def needed_bytes(shape: Shape) -> int:
    """Return the peak memory of the estimate."""
    n, d, width = shape.n_samples, shape.n_features, shape.n_features + random_count(shape.n_samples)
    return 4 * n * (width + d - 1) + 96 * n * shape.n_classes + 24 * width**2 + (64 << 20)


def products(shape: Shape) -> float:
    """Return the counted operations of the estimate's matrix products."""
    n, width = shape.n_samples, shape.n_features - 1 + random_count(shape.n_samples)
    return 4.0 * n * width**2 + width**3 + PASSES * n * width * shape.n_classes


def worthwhile(shape: Shape, memory: int | None = None) -> bool:
    """Return whether the estimate costs little compared with the scoring, so that it is made unasked."""
    most = MOST_WORK if 2 * shape.n_scored >= shape.n_samples else LITTLE_WORK
    room = MOST_BYTES if memory is None else min(MOST_BYTES, memory)
    return products(shape) <= most and needed_bytes(shape) <= room


def noise_cost(shape: Shape) -> tuple[float, int]:
    """Return operations (as many as products would have in that time) and likely bytes.

    Random features are tried on some rows and taken for all only where they predict clearly better, so that
    the likely peak is below `needed_bytes`.
    """
    n, d, width = shape.n_samples, shape.n_features, shape.n_features + random_count(shape.n_samples)
    count = 4 * min(n, TRIAL_ROWS) * (width + d) + 8 * n * d + 24 * width**2 + (32 << 20)
    return PRODUCTS * products(shape) + CELL * n * shape.n_classes, count
