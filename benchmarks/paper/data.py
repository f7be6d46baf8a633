"""Data of the experiments: CIFAR-10 and IMDB from a folder, or small stand-ins that need none."""

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.contrastive import gradients

CIFAR = "airplane automobile bird cat deer dog frog horse ship truck".split()
HUMAN = {"aggre": "aggregate of three people", "rand1": "one person", "worse": "worst of three people"}


@dataclass
class Images:
    """Images with frozen features; rows of training and test data are in the order of the source.

    Attributes:
        name: Where they come from.
        X: `(N, D)` features, principal components in falling order of variance.
        y: `(N,)` clean labels.
        X_test: `(T, D)`.
        y_test: `(T,)`.
        human: Labels that people gave, by name; empty where there are none.
        votes: `(N, 3)` labels of three people; None where there are none.
        classes: Names of the classes.
        pictures: Function of "train" or "test" and a number of rows that returns `(n, H, W, 3)` uint8.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    human: dict
    votes: np.ndarray | None
    classes: list
    pictures: object

    def part(self, start, stop):
        """Return positions `start … stop − 1`, as far as there are."""
        return np.arange(start, min(stop, len(self.y)))


@dataclass
class Texts:
    """Texts with two classes, and where known the stars that the writer gave."""

    name: str
    X: np.ndarray
    y: np.ndarray
    stars: np.ndarray | None
    texts: list


class Sources:
    """The data by folder; None: stand-ins.

    Args:
        folder: Holds `cifar10/` and `imdb/`.
        second: `.npy` of another network's features of the first training images; None: there are none.
    """

    def __init__(self, folder=None, second=None):
        self.folder, self.second = folder, second

    @cached_property
    def images(self):
        return _digits() if self.folder is None else _cifar(self.folder)

    @cached_property
    def texts(self):
        return _made_up_texts() if self.folder is None else _imdb(self.folder)

    @cached_property
    def _gradient_rows(self):
        return {}

    def gradient_view(self, split, n):
        """Return histograms of oriented gradients and colours of the first n pictures: a second encoder."""
        if (split, n) not in self._gradient_rows:
            self._gradient_rows[split, n] = gradients(self.images.pictures(split, n))
        return self._gradient_rows[split, n]

    def second_view(self, n, components):
        """Return the second network's components of the first n images and of all after them, or None."""
        if self.second is None:
            return None
        rows = np.load(self.second, allow_pickle=False)
        if rows.ndim != 2 or len(rows) <= n:
            raise SystemExit(
                f"{self.second} should hold features of over {n} images, got shape {rows.shape}."
            )
        return components_of(rows[:n], rows[n:], components)

    def views(self, n, n_test, components):
        """Return features of the same images under encoders that share nothing: `{name: (train, test)}`."""
        images = self.images
        pixels = [images.pictures(split, m).reshape(m, -1) / 255.0 for split, m in _sizes(n, n_test)]
        edges = [self.gradient_view(split, m) for split, m in _sizes(n, n_test)]
        pair = (images.X[:n], images.X_test[:n_test])
        network = tuple(np.ascontiguousarray(side[:, :components]) for side in pair)
        return {
            "network": network,
            "gradients": components_of(*edges, components),
            "pixels": components_of(*pixels, components),
        }


def components_of(train, test, n_components):
    """Return principal components of both, at the same mean square as a standardised column."""
    from sklearn.decomposition import PCA

    wanted = min(n_components, *train.shape)
    pca = PCA(wanted, random_state=0, svd_solver="randomized" if wanted < train.shape[1] // 2 else "full")
    left = pca.fit_transform(train)
    scale = np.sqrt((left**2).mean())
    return tuple((side / scale).astype(np.float32) for side in (left, pca.transform(test)))


def _sizes(n, n_test):
    return ("train", n), ("test", n_test)


def _cifar(folder):
    import pyarrow.parquet as pq

    with np.load(folder / "cifar10" / "features_effnetlite0_pca512.npz", allow_pickle=False) as arrays:
        X, X_test = arrays["X"].astype(np.float32), arrays["Xt"].astype(np.float32)
        y, y_test = arrays["clean"], arrays["ty"]
        human = {name: arrays[name] for name in HUMAN}
    names = [f"random_label{number}" for number in (1, 2, 3)]
    votes = pq.read_table(folder / "cifar10" / "train.parquet", columns=names)

    def pictures(split, n):
        from PIL import Image

        table = pq.read_table(folder / "cifar10" / f"{split}.parquet", columns=["image"]).slice(0, n)
        rows = [row["bytes"] for row in table["image"].to_pylist()]
        return np.stack([np.asarray(Image.open(io.BytesIO(row)).convert("RGB")) for row in rows])

    people = np.stack([votes[name].to_numpy() for name in names], 1)
    scale = np.sqrt((X[:, :256] ** 2).mean())
    name = "CIFAR-10, EfficientNet-Lite0"
    return Images(name, X / scale, y, X_test / scale, y_test, human, people, CIFAR, pictures)


def _digits():
    """Return scikit-learn's digits: a third is test data, and half of the labels of "worse" are random."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    test = np.arange(len(y)) % 3 == 0
    rows = {"train": X[~test], "test": X[test]}
    random = np.random.default_rng(0)
    votes = np.stack([_some_random(y[~test], 0.1, random) for _ in range(3)], 1)
    human = {
        name: _some_random(y[~test], rate, random) for name, rate in zip(HUMAN, (0.1, 0.2, 0.5), strict=True)
    }

    def pictures(split, n):
        grey = np.kron(rows[split][:n].reshape(-1, 8, 8), np.ones((4, 4))) * 15
        return np.repeat(grey[..., None], 3, -1).astype(np.uint8)

    train, other = components_of(rows["train"], rows["test"], 64)
    names = [str(digit) for digit in range(10)]
    return Images("digits", train, y[~test], other, y[test], human, votes, names, pictures)


def _some_random(y, rate, random):
    return np.where(random.random(len(y)) < rate, random.integers(0, 10, len(y)), y)


def _imdb(folder):
    import pyarrow.parquet as pq

    with np.load(folder / "imdb" / "minilm.npz", allow_pickle=False) as arrays:
        X, y, stars = arrays["X"].astype(np.float32), arrays["y"], arrays["rating"]
    table = pq.read_table(folder / "imdb" / "reviews.parquet")
    order = np.array([int(name.rsplit("_", 1)[1]) for name in table["id"].to_pylist()])
    if not np.array_equal(order, stars):
        raise ValueError("imdb/reviews.parquet and imdb/minilm.npz are not in the same order.")
    texts = table["review"].to_pylist()
    return Texts("IMDB, MiniLM", X / np.sqrt((X**2).mean()), y, stars, texts)


def _made_up_texts(n=300):
    """Return texts whose words depend on their class, as counts of their words."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, n)
    words = np.array([f"word{number}" for number in range(40)])
    weight = np.where(np.arange(40) % 2 == y[:, None], 3.0, 1.0)
    texts = [" ".join(random.choice(words, 30, p=row / row.sum())) for row in weight]
    X = np.array([[text.split().count(word) for word in words] for text in texts], dtype=np.float32)
    return Texts("made-up texts", X - X.mean(0), y, np.where(y == 1, 8, 3), texts)
