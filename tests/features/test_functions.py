"""Functions of the user's own as encoders: ``--encoder module:function``."""

import sys

import numpy as np
import pytest
from PIL import Image
from tests import makers
from tests.features.test_encoders import TEXTS, features, images

from lsi.data.items import ArrayItems
from lsi.errors import InputError
from lsi.features import FeatureCache, build_encoder, encode_items

MODULE = """
import numpy as np
import torch
from helper import SCALE

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3, 2), SCALE))

    def forward(self, pixels):
        return pixels.mean((2, 3)) @ self.weight

def module():
    return Net()

def pictures():
    return lambda items: np.stack([np.asarray(item).mean((0, 1)) for item in items]) * SCALE

def texts():
    return lambda items: [[len(item), item.count("a"), SCALE] for item in items]

def rows():
    return lambda items: [torch.ones(3) for item in items]

def needs(path):
    return path

def fails():
    raise KeyError("no weights")

def fails_later():
    def encode(items):
        raise RuntimeError("no room")
    return encode

def nothing():
    pass

def few():
    return lambda items: np.ones((2, 3))

def flat():
    return lambda items: np.ones(len(items))

def words():
    return lambda items: ["x"] * len(items)

def holes():
    return lambda items: np.full((len(items), 2), np.nan)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with the user's modules, which is the current one; they are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(scale="0.5", text=MODULE):
        for name in ("mine", "helper"):
            sys.modules.pop(name, None)
        (tmp_path / "mine.py").write_text(text)
        (tmp_path / "helper.py").write_text(f"SCALE = {scale}\n")

    write()
    yield write
    for name in ("mine", "helper"):
        sys.modules.pop(name, None)


def test_a_function_from_pictures_or_texts_to_features(own):
    pictures = [Image.fromarray(one) for one in makers.pictures(3, 8)[0]]
    expected = [np.asarray(one).mean((0, 1)) / 2 for one in pictures]
    np.testing.assert_allclose(
        features(build_encoder("image", "mine:pictures"), pictures), expected, rtol=1e-6
    )
    found = features(build_encoder("text", "mine:texts"), TEXTS)
    np.testing.assert_allclose(found, [[len(text), text.count("a"), 0.5] for text in TEXTS])
    assert features(build_encoder("text", "mine:rows"), TEXTS).shape == (4, 3)


def test_a_module_gets_pictures_as_networks_take_them(own):
    encoder = build_encoder("image", "mine:module")
    ((_, inputs),) = encoder.prepare(images(2))
    assert inputs["pixel_values"].shape == (2, 3, 224, 224)
    expected = inputs["pixel_values"].mean((2, 3)).sum(1, keepdim=True).expand(2, 2) / 2
    np.testing.assert_allclose(encoder.forward(inputs).numpy(), expected.numpy(), atol=1e-5)
    with pytest.raises(InputError, match="takes pictures.*return a function"):
        build_encoder("text", "mine:module")


def test_the_key_follows_the_code_and_what_it_imports(own):
    keys = [build_encoder("image", "mine:pictures").key()]
    own(scale="0.25")
    keys.append(build_encoder("image", "mine:pictures").key())
    own(text=MODULE.replace("mean((0, 1))", "max((0, 1))"))
    keys.append(build_encoder("image", "mine:pictures").key())
    own()
    assert build_encoder("image", "mine:pictures").key() == keys[0]
    assert len({str(key) for key in keys}) == 3


CHANGING = """
import numpy as np
from pathlib import Path

def build():
    scale = float(Path("scale.txt").read_text())
    return lambda items: np.stack([np.asarray(item).mean((0, 1)) for item in items]) * scale
"""


def test_features_of_a_file_that_changed_are_made_again(own, tmp_path):
    """What a function reads is in no key: its first items are encoded again and compared."""
    own(text=CHANGING)
    items, cache = ArrayItems("image", list(makers.pictures(40, 6)[0])), FeatureCache(tmp_path / "cache")
    (tmp_path / "scale.txt").write_text("1")
    first = encode_items(items, build_encoder("image", "mine:build"), cache)
    again = encode_items(items, build_encoder("image", "mine:build"), cache)
    assert again.record["rows_already_there"] == 40
    (tmp_path / "scale.txt").write_text("3")
    changed = encode_items(items, build_encoder("image", "mine:build"), cache)
    assert changed.record["key"] == first.record["key"]
    assert changed.record["rows_already_there"] == 0
    np.testing.assert_allclose(changed.features, 3 * first.features, rtol=1e-6)


def test_a_run_that_was_interrupted_does_not_go_on_with_changed_features(own, tmp_path):
    own(text=CHANGING)
    items, cache = ArrayItems("image", list(makers.pictures(100, 6)[0])), FeatureCache(tmp_path / "cache")

    def interrupt(stage, done, total):
        if done > 60:
            raise KeyboardInterrupt

    for scale, there in (("1", 64), ("3", 0)):
        (tmp_path / "scale.txt").write_text("1")
        with pytest.raises(KeyboardInterrupt):
            encode_items(items, build_encoder("image", "mine:build"), cache, progress=interrupt, keep_every=0)
        (tmp_path / "scale.txt").write_text(scale)
        found = encode_items(items, build_encoder("image", "mine:build"), cache)
        assert found.record["rows_already_there"] == there
        expected = float(scale) * makers.pictures(100, 6)[0].mean((1, 2))
        np.testing.assert_allclose(found.features, expected, rtol=1e-5)
        cache.remove(found.record["key"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone:build", "there is no module gone in the current folder"),
        ("mine.inner:build", "there is no module mine.inner"),
        ("mine:modul", "Did you mean 'module'"),
        ("mine:SCALE", "has no function 'SCALE'"),
        ("mine:needs", r"needs arguments.*must take no arguments"),
        ("mine:fails", r"raised KeyError: 'no weights' \(line \d+ of .*mine.py\)"),
        ("mine:nothing", "returned nothing"),
        ("mine:np.ones", "no folder or file"),
    ],
)
def test_functions_that_cannot_be_used(own, name, message):
    with pytest.raises(InputError, match=message):
        build_encoder("image", name)


def test_a_module_that_cannot_be_imported(own):
    own(text="import not_installed_anywhere\n")
    with pytest.raises(
        InputError, match="raised ModuleNotFoundError: No module named 'not_installed_anywhere'"
    ):
        build_encoder("image", "mine:build")
    own(text="def build(:\n")
    with pytest.raises(InputError, match="raised SyntaxError"):
        build_encoder("image", "mine:build")
    own(text="raise SystemExit(3)\n")
    with pytest.raises(InputError, match="raised SystemExit: 3"):
        build_encoder("image", "mine:build")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:fails_later", "raised RuntimeError: no room"),
        ("mine:few", r"gives \(2, 3\) for 5 items"),
        ("mine:flat", r"features must be \(B, D\)"),
        ("mine:words", "no numbers of one length"),
        ("mine:holes", "not finite"),
    ],
)
def test_what_a_function_returns_is_checked(own, tmp_path, name, message):
    items = ArrayItems("image", list(makers.pictures(5, 6)[0]))
    with pytest.raises(InputError, match=message):
        encode_items(items, build_encoder("image", name), FeatureCache(tmp_path / "cache"))
