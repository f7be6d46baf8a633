import io
import os
import pickle

import numpy as np
import pytest

from lsi.data.archives.unpickle import load_arrays
from lsi.errors import InputError


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([[1, 2]], dtype=">i4"),
    ],
)
def test_numpy_arrays_come_back(protocol, value):
    loaded = load_arrays(io.BytesIO(pickle.dumps({b"data": value, b"n": 3}, protocol=protocol)), "x")
    np.testing.assert_array_equal(loaded[b"data"], value)
    assert loaded[b"n"] == 3


def test_numpy_scalars_come_back():
    assert load_arrays(io.BytesIO(pickle.dumps(np.int64(7), protocol=2)), "x") == 7


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, open, getattr])
def test_any_other_function_is_refused_and_not_run(tmp_path, function):
    mark = tmp_path / "ran"
    hostile = pickle.dumps({b"data": Call(function, str(mark), "w")})
    with pytest.raises(InputError, match="could run code"):
        load_arrays(io.BytesIO(hostile), "batch")
    assert not mark.exists()


def test_compressed_text_is_no_way_in():
    hostile = b"c_codecs\nencode\n(Vx\nVzlib\ntR."
    with pytest.raises(InputError, match="could run code"):
        load_arrays(io.BytesIO(hostile), "batch")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02}q\x00(U", b"not a pickle", b"\x80\x02cnumpy\nndarray\n)R."]
)
def test_damage_is_an_input_error(content):
    with pytest.raises(InputError):
        load_arrays(io.BytesIO(content), "batch")
