import numpy as np
import pytest

from lsi.data import SourceOptions, load_samples
from lsi.errors import InputError

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_npy_is_mapped_with_labels_beside_it(tmp_path):
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(InputError, match=r"--labels.*d_labels\.npy"):
        load_samples(tmp_path / "d.npy")
    np.save(tmp_path / "d_labels.npy", np.array([0, 1, 0, 1]))
    samples = load_samples(tmp_path / "d.npy")
    assert isinstance(samples.features, np.memmap)
    np.testing.assert_array_equal(samples.features, X)
    (tmp_path / "words.txt").write_text("cat\ndog\ncat\ndog\n")
    words = load_samples(tmp_path / "d.npy", SourceOptions(labels=tmp_path / "words.txt"))
    assert words.labels.tolist() == ["cat", "dog", "cat", "dog"]


def test_npy_with_objects_or_damage_is_refused(tmp_path):
    np.save(tmp_path / "d_labels.npy", np.array([0, 1]))
    np.save(tmp_path / "d.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(InputError, match="plain numbers"):
        load_samples(tmp_path / "d.npy")
    (tmp_path / "d.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be read as a \.npy file"):
        load_samples(tmp_path / "d.npy")


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy", reason="needs the extra `encoders`").save_file
    y = np.array([0, 1, 0, 1])
    save_file({"X": X, "y": y, "other": y}, tmp_path / "d.safetensors")
    samples = load_samples(tmp_path / "d.safetensors")
    np.testing.assert_array_equal(samples.features, X)
    assert (
        load_samples(tmp_path / "d.safetensors", SourceOptions(label_column="other")).labels.tolist()
        == y.tolist()
    )
    save_file({"X": X}, tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="lacks 'y'"):
        load_samples(tmp_path / "d.safetensors")
    (tmp_path / "d.safetensors").write_bytes(b"junk")
    with pytest.raises(InputError, match="not a readable"):
        load_samples(tmp_path / "d.safetensors")


def test_npz_labels_by_name(tmp_path):
    np.savez(tmp_path / "d.npz", X=X, given=[0, 1, 1, 1], clean=[0, 1, 0, 1])
    samples = load_samples(
        tmp_path / "d.npz", SourceOptions(label_column="given", clean_label_column="clean")
    )
    assert samples.labels.tolist() == [0, 1, 1, 1]
    assert samples.clean_labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(InputError, match=r"lacks 'y'.*--label-column"):
        load_samples(tmp_path / "d.npz")


def test_regression_data_say_so():
    samples = load_samples("diabetes")
    assert samples.task == "regression"
    assert samples.labels.dtype == np.float64
    np.testing.assert_allclose([samples.labels.mean(), samples.labels.std()], [0.0, 1.0], atol=1e-12)


def test_several_targets_in_an_array_file(tmp_path):
    targets = np.array([[1.0, 0.5], [2.0, np.nan], [3.0, 1.5]])
    np.savez(tmp_path / "d.npz", X=np.zeros((3, 2)), y=targets)
    samples = load_samples(tmp_path / "d.npz").select(np.array([1, 2]))
    np.testing.assert_array_equal(samples.targets, targets[1:])
    assert samples.labels.tolist() == [None, "3, 1.5"]
    assert samples.target_names == ("0", "1")
