import pickle
import zipfile

import numpy as np
import pytest

from lsi.data import load_samples, read_npz
from lsi.data.reload import reload_samples
from lsi.errors import InputError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array(["a", "b", "a", "b"])


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.npz"
    np.savez(path, X=X, y=Y, ids=np.array(["p", "q", "r", "s"]), unrelated=np.zeros(9))
    return path


def test_arrays_come_back_as_written(good):
    samples = read_npz(good)
    np.testing.assert_array_equal(samples.features, X)
    np.testing.assert_array_equal(samples.labels, Y)
    assert samples.ids.tolist() == ["p", "q", "r", "s"]
    assert samples.name == "good"


def test_ids_default_to_positions(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", X=X, y=Y)
    assert read_npz(tmp_path / "d.npz").ids.tolist() == [0, 1, 2, 3]


def test_a_source_entry_finds_the_same_data_again(good):
    again = reload_samples(load_samples(str(good)).source)
    np.testing.assert_array_equal(again.features, X)


def test_missing_keys_are_named_beside_those_present(tmp_path):
    np.savez(tmp_path / "d.npz", X=X, label=Y)
    with pytest.raises(InputError, match="lacks 'y'; it holds 'X', 'label'"):
        read_npz(tmp_path / "d.npz")


def test_python_objects_are_refused_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "d.npz", X=X, y=np.array([Bomb()] * 4, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="'y' holds Python objects.*astype"):
        read_npz(tmp_path / "d.npz")
    assert not (tmp_path / "exploded").exists()


def broken_files():
    def truncated(path):
        np.savez(path, X=np.zeros((500, 50)), y=np.arange(500))
        path.write_bytes(path.read_bytes()[:-300])

    def flipped(path):
        np.savez_compressed(path, X=np.random.default_rng(0).random((50, 50)), y=np.arange(50))
        content = bytearray(path.read_bytes())
        content[3000:3400] = b"\xff" * 400
        path.write_bytes(bytes(content))

    def not_an_array(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X", b"plain text")
            archive.writestr("y", b"plain text")

    return {
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("not an archive"),
        "pickle": lambda path: path.write_bytes(pickle.dumps([1, 2])),
        "truncated": truncated,
        "flipped": flipped,
        "not an array": not_an_array,
    }


@pytest.mark.parametrize("kind", broken_files())
def test_broken_files_say_how_to_write_them_again(tmp_path, kind):
    path = tmp_path / "d.npz"
    broken_files()[kind](path)
    with pytest.raises(InputError, match="numpy.savez"):
        read_npz(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X, "y": Y[:3]}, "4 and 3"),
        ({"X": X, "y": Y.reshape(2, 2)}, r"one-dimensional, got shape \(2, 2\)"),
        ({"X": X, "y": np.array("a")}, r"one-dimensional, got shape \(\)"),
        ({"X": X, "y": Y, "ids": np.arange(5)}, "ids"),
    ],
)
def test_arrays_that_do_not_fit_together(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "d.npz")


def test_a_missing_file_is_no_unknown_name(good):
    with pytest.raises(InputError, match=r"does not exist\. Did you mean 'good\.npz'"):
        load_samples(str(good.parent / "god.npz"))
    with pytest.raises(InputError, match="there is no folder"):
        load_samples(str(good.parent / "nowhere" / "good.npz"))
    with pytest.raises(InputError, match="holds no images in sub-folders"):
        load_samples(str(good.parent))


def test_an_unsupported_type_names_the_supported_ones(tmp_path):
    (tmp_path / "d.xls").write_text("a,b\n")
    with pytest.raises(InputError, match=r"not one of \.npz"):
        load_samples(str(tmp_path / "d.xls"))


def test_a_name_without_path_marks_is_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="unknown dataset 'wnie'. Did you mean 'wine'"):
        load_samples("wnie")
    (tmp_path / "wine").write_text("a file of the same name")
    assert len(load_samples("wine")) == 178


def test_scores_without_a_source_ask_for_one():
    with pytest.raises(InputError, match="--dataset"):
        reload_samples({})
