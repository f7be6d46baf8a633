"""Pickles that try to run code, to read other files, or to fill the memory."""

import builtins
import io
import os
import pickle
import resource
import struct
import subprocess

import numpy as np
import pytest
from tests.fuzzing.loaders import zip_bytes
from tests.makers import cifar_archive

from lsi.data import SourceOptions, load_samples
from lsi.data.archives.unpickle import load_arrays
from lsi.data.corruption.human import read_human_labels
from lsi.errors import InputError

MARK = "ran-by-pickle"


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


CALLS = {
    "os.system": Call(os.system, f"touch {MARK}"),
    "subprocess.run": Call(subprocess.run, ["touch", MARK]),
    "builtins.eval": Call(eval, f"open('{MARK}', 'w')"),
    "builtins.exec": Call(exec, f"open('{MARK}', 'w')"),
    "builtins.__import__": Call(builtins.__import__, "antigravity"),
    "builtins.open": Call(open, MARK, "w"),
    "getattr": Call(getattr, "text", "upper"),
    "os.unlink": Call(os.unlink, "keep"),
    "nested in a list": [[{"a": (Call(open, MARK, "w"),)}]],
    "as a key": {Call(open, MARK, "w"): 1},
    "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(open, MARK, "w"))),
    "an array of objects": np.array([Call(open, MARK, "w")], dtype=object),
    "numpy.load": Call(np.load, "keep", None, True),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "keep").write_text("keep")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / MARK).exists()
    assert (tmp_path / "keep").exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", CALLS)
def test_a_pickle_that_calls(here, name, protocol):
    with pytest.raises(InputError):
        load_arrays(io.BytesIO(pickle.dumps({b"data": CALLS[name]}, protocol=protocol)), "x")


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(Vtouch ran-by-pickle\ntR.",  # protocol 0
        b"(Vtouch ran-by-pickle\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nVtouch ran-by-pickle\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x13touch ran-by-pickle\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.view\x93.",  # a dotted name behind an allowed one
        b"\x80\x02\x82\x01.",  # the extension registry
        b"\x80\x02Vpath\nQ.",  # a persistent id, as torch.save writes tensors
    ],
)
def test_every_way_to_name_a_function(here, content):
    with pytest.raises(InputError, match="could run code"):
        load_arrays(io.BytesIO(content), "x")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # puts one value at place 2³¹−1 of the memo
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # says that a terabyte follows
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        b"\x80\x02]"
        + b"q\x00](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00e" * 40
        + b".",  # 8⁴⁰ when written out
    ],
)
def test_small_pickles_that_would_fill_the_memory(content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_arrays(io.BytesIO(content), "x")
    except InputError:
        pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # in KiB


@pytest.mark.parametrize(
    "state",
    [
        (1, (1 << 40,), "u1", False, b"x"),
        (1, (-1, -1), "u1", False, b"xx"),
        (1, (2,), "O8", False, [1, 2]),
        (1, (2,), "O8", False, b"\x00" * 16),
        (1, (1,), "V99999999999", False, b"x"),
    ],
)
def test_arrays_that_lie_about_themselves(state):
    version, shape, kind, fortran, content = state
    array = np.zeros(1, np.uint8)
    reduced = array.__reduce__()

    class Lying:
        def __reduce__(self):
            return (*reduced[:2], (version, shape, Kind(kind), fortran, content))

    class Kind:
        def __init__(self, code):
            self.code = code

        def __reduce__(self):
            return (np.dtype, (self.code, False, True))

    with pytest.raises(InputError):
        load_arrays(io.BytesIO(pickle.dumps(Lying(), protocol=2)), "x")


def test_fields_with_offsets_outside_of_the_array():
    kind = np.dtype([("a", "u1")])
    content = pickle.dumps(np.zeros(1, kind), protocol=2)
    with pytest.raises(InputError):
        load_arrays(io.BytesIO(content), "x")


def test_a_file_of_human_labels_that_calls(here):
    (here / "CIFAR-10_human.pt").write_bytes(zip_bytes({"a/data.pkl": pickle.dumps(CALLS["builtins.open"])}))
    with pytest.raises(InputError, match="could run code"):
        read_human_labels(here / "CIFAR-10_human.pt")


def test_a_legacy_torch_file_is_no_zip_and_is_not_unpickled(here):
    (here / "CIFAR-10_human.pt").write_bytes(
        pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(CALLS["os.system"])
    )
    with pytest.raises(InputError, match="cannot be read"):
        read_human_labels(here / "CIFAR-10_human.pt")


def test_a_file_of_human_labels_with_stored_tensors(here):
    torch = pytest.importorskip("torch")
    torch.save({"clean_label": torch.zeros(3)}, here / "CIFAR-10_human.pt")
    with pytest.raises(InputError, match="could run code"):
        read_human_labels(here / "CIFAR-10_human.pt")


@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"])
def test_a_cifar_archive_that_calls(here, name):
    cifar_archive(here, **{name: pickle.dumps(CALLS["builtins.eval"])})
    with pytest.raises(InputError, match="could run code"):
        load_samples("cifar10", SourceOptions(data_dir=here, cache_dir=here / "cache"))


@pytest.mark.parametrize("key", ["X", "y", "ids"])
def test_an_npz_with_objects_in_any_array(here, key):
    arrays = {"X": np.zeros((3, 2)), "y": np.arange(3), "ids": np.arange(3)}
    np.savez(
        "d.npz", **(arrays | {key: np.array([Call(open, MARK, "w")] * 3, dtype=object)}), allow_pickle=True
    )
    with pytest.raises(InputError, match="could run code"):
        load_samples(str(here / "d.npz"))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_pickle_under_the_name_of_an_array(here, suffix):
    (here / f"d{suffix}").write_bytes(pickle.dumps(CALLS["builtins.open"]))
    np.save("d_labels.npy", np.arange(3))
    with pytest.raises(InputError):
        load_samples(str(here / f"d{suffix}"))


def test_the_list_of_allowed_names_is_short():
    from lsi.data.archives import unpickle

    assert {f"{module}.{name}" for module, name in unpickle._ALLOWED} == {
        "numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict",
        "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    }  # fmt: skip
