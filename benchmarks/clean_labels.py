"""Right labels of classes that models do not fit, a part of `benchmarks.detection`: none is to be accused."""

import numpy as np


def shapes(seed=50):
    """Yield name, features and right labels: heavy tails, clusters, rings, unlike and uneven classes."""
    from sklearn import datasets

    random = np.random.default_rng(seed)
    z, centres = random.integers(0, 4, 900), random.normal(size=(4, 8))
    for freedom in (5, 3):
        tails = random.standard_t(freedom, size=(900, 8))
        yield f"Student t{freedom}", centres[z] + tails, z
    spread = np.sqrt(4.0 / random.chisquare(4, 900))[:, None]
    yield "joint Student t4", centres[z] + spread * random.normal(size=(900, 8)), z
    turned = random.normal(size=(4, 8, 8)) / 8**0.5
    yield (
        "unlike covariance",
        centres[z] + np.einsum("nij,nj->ni", turned[z], random.normal(size=(900, 8))),
        z,
    )
    places = 2.0 * random.normal(size=(4, 3, 8))
    yield "three clusters", places[z, random.integers(0, 3, 900)] + random.normal(size=(900, 8)), z
    uneven = random.choice(4, 1500, p=[0.85, 0.09, 0.04, 0.02])
    yield "uneven classes", centres[uneven] + random.normal(size=(1500, 8)), uneven
    X = random.normal(size=(1500, 2))
    yield "exclusive or", X, ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(np.int64)
    yield "rings", *datasets.make_circles(800, noise=0.1, factor=0.5, random_state=seed)
    yield "moons", *datasets.make_moons(800, noise=0.25, random_state=seed)
    yield (
        "shells",
        *datasets.make_gaussian_quantiles(n_samples=1500, n_features=6, n_classes=3, random_state=seed),
    )


def shape_cases():
    """Yield each shape with right labels, and with one label in ten wrong."""
    from lsi.data.corruption.labels import corrupt_labels

    for name, X, z in shapes():
        yield f"{name} clean", X, z, z
        yield f"{name} symmetric 10%", X, np.asarray(corrupt_labels(z, 0.1, 0).labels, dtype=np.int64), z
