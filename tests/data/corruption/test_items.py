import numpy as np
import pytest
from tests.makers import human_file, pictures

from lsi.data import Samples, corrupt_data, corrupt_labels, human_labels, known_truth, read_transition
from lsi.data.corruption.human import read_human_labels
from lsi.data.decode import decode
from lsi.data.items import ArrayItems
from lsi.errors import InputError

CODES = np.arange(200) % 10


def image_samples(n=200):
    pixels, codes = pictures(n)
    return Samples("x", np.arange(n), codes, items=ArrayItems("image", pixels), images=pixels), pixels


def test_pairwise_noise_goes_to_the_next_class():
    result = corrupt_labels(CODES, 0.25, seed=3, kind="pairwise")
    assert result.n_corrupted == 50
    np.testing.assert_array_equal(result.labels[result.mask], (CODES[result.mask] + 1) % 10)
    words = np.array(["b", "a", "c"] * 10)
    changed = corrupt_labels(words, 0.5, kind="pairwise")
    follow = {"a": "b", "b": "c", "c": "a"}
    assert changed.labels[changed.mask].tolist() == [follow[w] for w in words[changed.mask]]


def test_a_transition_matrix_gives_its_probabilities():
    labels = np.array(["cat", "dog", "eel"] * 4000)
    matrix = [[1, 0, 0], [0.3, 0.5, 0.2], [0, 0, 1]]
    result = corrupt_labels(labels, 0, seed=1, kind="transition", transition=matrix)
    assert not result.mask[labels != "dog"].any()
    dogs = result.labels[labels == "dog"]
    shares = [np.mean(dogs == name) for name in ("cat", "dog", "eel")]
    np.testing.assert_allclose(shares, [0.3, 0.5, 0.2], atol=0.03)
    assert result.rate == result.mask.mean()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "must be 10×10"),
        (np.full((10, 10), 0.2), "sum to 1"),
        (np.eye(10) * 2 - np.ones((10, 10)) / 10, "sum to 1"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(matrix, message):
    with pytest.raises(InputError, match=message):
        corrupt_labels(CODES, 0, kind="transition", transition=matrix)


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.csv", "0.5, 0.5\n0,1\n"), ("t.txt", "0.5 0.5\n\n0 1"), ("t.json", "[[0.5, 0.5], [0, 1]]")],
)
def test_transition_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    np.testing.assert_array_equal(read_transition(tmp_path / name), [[0.5, 0.5], [0, 1]])
    (tmp_path / name).write_text("a b")
    with pytest.raises(InputError, match="cannot be read"):
        read_transition(tmp_path / name)


def test_noise_on_images_of_given_classes_only():
    samples, pixels = image_samples()
    noisy, truth = corrupt_data(samples, samples.labels, 0.5, ["0", "3"], seed=1)
    np.testing.assert_array_equal(truth.mask, np.isin(samples.labels, [0, 3]))
    np.testing.assert_array_equal(truth.labels, samples.labels)
    difference = (
        np.stack([np.asarray(decode("image", p), float) for p in noisy.items.take(range(200))]) - pixels
    )
    assert not difference[~truth.mask].any()
    middle = (pixels > 90) & (pixels < 165) & truth.mask[:, None, None, None]
    np.testing.assert_allclose(difference[middle].std(), 0.5 * pixels.astype(float).std(), rtol=0.05)


def test_noise_does_not_depend_on_the_order_of_reading():
    samples, _ = image_samples()
    noisy, _ = corrupt_data(samples, samples.labels, 0.1, [], seed=1)
    one = noisy.items.take([7])[0]
    np.testing.assert_array_equal(list(noisy.items.iterate(np.arange(5, 9)))[2], one)
    np.testing.assert_array_equal(noisy.select(np.array([3, 7])).items.take([1])[0], one)
    again, _ = corrupt_data(samples, samples.labels, 0.1, [], seed=1)
    other, _ = corrupt_data(samples, samples.labels, 0.1, [], seed=2)
    assert again.items.fingerprint() == noisy.items.fingerprint()
    assert len({p.items.fingerprint() for p in (samples, noisy, other)}) == 3


def test_noise_on_features_is_in_their_own_units():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2)) * [1, 100]
    y = np.arange(4000) % 2
    samples = Samples("x", np.arange(4000), y, features=X)
    noisy, truth = corrupt_data(samples, y, 0.3, [1])
    difference = noisy.features - X
    assert not difference[~truth.mask].any()
    np.testing.assert_allclose(difference[truth.mask].std(axis=0), 0.3 * X.std(axis=0), rtol=0.1)
    np.testing.assert_array_equal(samples.features, X)


def test_texts_without_meaning_are_added():
    labels = np.array([0, 1] * 20)
    samples = Samples("x", np.arange(40), labels, items=ArrayItems("text", [f"t{k}" for k in range(40)]))
    more, truth = corrupt_data(samples, labels, 0.25, [])
    assert len(more) == 50
    assert truth.mask.tolist() == [False] * 40 + [True] * 10
    assert more.items.take([0, 39]) == ["t0", "t39"]
    assert more.ids[[0, 49]].tolist() == ["0", "lorem-9"]
    assert set(truth.labels[40:].tolist()) <= {0, 1}
    assert all(len(text.split()) >= 15 for text in more.items.take(range(40, 50)))


@pytest.mark.parametrize(
    ("strength", "classes", "message"), [(0.0, [], "positive"), (0.1, ["dog"], "no sample has")]
)
def test_settings_of_data_noise(strength, classes, message):
    with pytest.raises(InputError, match=message):
        corrupt_data(image_samples()[0], CODES, strength, classes)


def test_changes_after_one_another_keep_the_first_labels():
    first = known_truth(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]))
    both = first.then(corrupt_labels(first.labels, 0.25, seed=0))
    assert both.original_labels.tolist() == [0, 1, 0, 1]
    assert both.mask[2]
    assert [step["kind"] for step in both.describe()["steps"]] == ["given clean labels", "symmetric"]


@pytest.fixture
def human(tmp_path):
    clean = np.arange(500) % 10
    worse = clean.copy()
    worse[::4] = (worse[::4] + 1) % 10
    aggre = clean.copy()
    aggre[:20] = 9 - clean[:20]
    human_file(tmp_path / "CIFAR-10_human.pt", clean, worse_label=worse, aggre_label=aggre)
    return tmp_path, clean, aggre, worse


def test_human_labels_by_name_and_by_the_original_s_true(human):
    folder, clean, aggre, worse = human
    for kind, expected in (("True", aggre), ("aggregate", aggre), ("aggre", aggre), ("worst", worse)):
        result = human_labels(clean, kind, folder)
        np.testing.assert_array_equal(result.labels, expected)
        np.testing.assert_array_equal(result.mask, expected != clean)
    np.testing.assert_array_equal(human_labels(clean[:100], "worst", folder).labels, worse[:100])


def test_human_labels_of_other_data_are_refused(human):
    folder, clean, *_ = human
    with pytest.raises(InputError, match="agree with"):
        human_labels(clean[::-1].copy(), "True", folder)
    with pytest.raises(InputError, match="Did you mean 'worst'"):
        human_labels(clean, "worsts", folder)
    with pytest.raises(InputError, match=r"holds no CIFAR-10_human\.pt"):
        human_labels(clean, "True", folder / "nowhere")


def test_cifar100_has_one_set(tmp_path):
    clean = np.arange(300) % 100
    noisy = (clean + 1) % 100
    human_file(tmp_path / "CIFAR-100_human.pt", clean, noisy_label=noisy)
    np.testing.assert_array_equal(human_labels(clean, "True", tmp_path).labels, noisy)


def test_a_human_file_cannot_run_code(tmp_path):
    import torch

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"clean_label": Bomb()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="could run code"):
        read_human_labels(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "x.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match="cannot be read"):
        read_human_labels(tmp_path / "x.pt")


def test_the_published_files(shared_data):
    ten = read_human_labels(shared_data / "data" / "CIFAR-10_human.pt")
    hundred = read_human_labels(shared_data / "data" / "CIFAR-100_human.pt")
    assert len(ten["clean_label"]) == len(hundred["clean_label"]) == 50_000
    assert round(float(np.mean(ten["worse_label"] != ten["clean_label"])), 2) == 0.40
