"""ONNX files as encoders."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from tests import makers, onnx_maker
from tests.features.test_encoders import TEXTS, features, images

from lsi.data.items import ArrayItems
from lsi.errors import InputError
from lsi.features import FeatureCache, build_encoder, encode_items
from lsi.features.encoders import protobuf
from lsi.features.encoders.pictures import IMAGENET_MEAN, IMAGENET_STD

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")


@pytest.fixture
def written(tmp_path):
    def write(content, name="net.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


def channel_means(pictures, side):
    """What the test's encoder sees, by hand: pictures of one size, resized, scaled and normalised."""
    resized = [np.asarray(one.resize((side, side), Image.Resampling.BICUBIC)) for one in pictures]
    return ((np.stack(resized) / 255 - IMAGENET_MEAN) / IMAGENET_STD).mean((1, 2))


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        (("batch", 3, 8, 8), 8),
        (("batch", 3, "h", "w"), 224),
        ((1, 3, 8, 8), 8),
        (("batch", 8, 8, 3), 8),
    ],
)
def test_images_of_the_size_that_the_file_says(written, shape, side):
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    encoder = build_encoder("image", written(onnx_maker.image_encoder(shape)), batch_size=5)
    found = features(encoder, images(7))
    np.testing.assert_allclose(found, channel_means(images(7), side) @ weights, atol=1e-4)
    assert encoder.batch_size == (1 if shape[0] == 1 else 5)


def test_whole_numbers_are_taken_as_they_are(written):
    content = onnx_maker.image_encoder(
        ("batch", 8, 8, 3), kind=onnx_maker.UINT8, weights=np.eye(3, dtype="f4")
    )
    found = features(build_encoder("image", written(content)), [Image.new("RGB", (8, 8), (1, 128, 255))])
    np.testing.assert_allclose(found, [[1, 128, 255]])


def test_the_settings_beside_the_file_go_before_its_shape(written, tmp_path):
    from transformers import ViTImageProcessorPil

    name = written(onnx_maker.image_encoder(weights=np.eye(3, dtype="f4")), "onnx/net.onnx")
    plain = features(build_encoder("image", name), images(2))
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, do_normalize=False)
    processor.save_pretrained(tmp_path)  # as optimum exports: the file in a folder of its own
    encoder = build_encoder("image", name)
    expected = processor(images=images(2), return_tensors="np")["pixel_values"].mean((2, 3))
    np.testing.assert_allclose(features(encoder, images(2)), expected, atol=1e-5)
    assert np.abs(expected - plain).max() > 0.1


def test_texts_with_the_tokenizer_beside_the_file(written, tmp_path):
    makers.tiny_bert(tmp_path)
    content, table = onnx_maker.text_encoder(len(makers.WORDS))
    encoder = build_encoder("text", written(content))
    ids = encoder.processor(TEXTS[0])["input_ids"]
    np.testing.assert_allclose(features(encoder, TEXTS)[0], table[ids].mean(0), atol=1e-5)


def test_the_key_follows_the_file_and_what_it_takes_in(written, tmp_path):
    content = onnx_maker.image_encoder(elsewhere="w.bin")
    (tmp_path / "w.bin").write_bytes(np.arange(12, dtype=np.float32).tobytes())
    encoder = build_encoder("image", written(content))
    key, before = encoder.key(), features(encoder, images(2))
    np.testing.assert_allclose(before, channel_means(images(2), 8) @ np.arange(12).reshape(3, 4), atol=1e-4)
    (tmp_path / "w.bin").write_bytes(np.zeros(12, dtype=np.float32).tobytes())
    assert build_encoder("image", written(content)).key() != key
    assert build_encoder("image", written(onnx_maker.image_encoder())).key() != key


@pytest.mark.parametrize(
    "place", ["../w.bin", "{outside}", "link.bin", "", "gone.bin", "*/_ORT_MEM_ADDR_/*", "w\0.bin"]
)
def test_tensors_from_outside_of_the_folder(tmp_path, place):
    outside, folder = tmp_path / "w.bin", tmp_path / "net"
    folder.mkdir()
    outside.write_bytes(np.zeros(12, dtype=np.float32).tobytes())
    os.symlink(outside, folder / "link.bin")
    content = onnx_maker.image_encoder(elsewhere=place.format(outside=outside))
    (folder / "net.onnx").write_bytes(content)
    with pytest.raises(
        InputError, match="not in its folder|leads out of its folder|cannot be opened|no plain"
    ):
        build_encoder("image", str(folder / "net.onnx"))


def test_places_are_found_wherever_a_tensor_may_be():
    f, entry = onnx_maker.field, onnx_maker.field(1, "location") + onnx_maker.field(2, "x")
    there = f(13, entry)
    inside = {
        "initializer": f(7, f(5, there)),
        "attribute": f(7, f(1, f(5, f(5, there)))),
        "list": f(7, f(1, f(5, f(10, there)))),
        "branch": f(7, f(1, f(5, f(6, f(5, there))))),
        "branches": f(7, f(1, f(5, f(11, f(5, there))))),
        "sparse values": f(7, f(15, f(1, there))),
        "sparse indices": f(7, f(15, f(2, there))),
        "function": f(25, f(7, f(5, f(5, there)))),
        "training": f(20, f(1, f(5, there))),
    }
    found = {name: list(protobuf.external_files(content)) for name, content in inside.items()}
    assert found == dict.fromkeys(inside, ["x"])
    for damaged in (b"\x3b", b"\x3a\x05", b"\xff" * 11, onnx_maker.varint(7 << 3 | 2 | 1 << 40) + b"\x00"):
        with pytest.raises(protobuf.DamagedError):
            list(protobuf.external_files(damaged))


def two_inputs():
    return onnx_maker.model(
        [onnx_maker.node("Add", ["a", "b"], ["y"])],
        [onnx_maker.value_info(name, onnx_maker.FLOAT, ("n", 3, 8, 8)) for name in "ab"],
        [onnx_maker.value_info("y", onnx_maker.FLOAT, ("n", 3, 8, 8))],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (two_inputs(), r"has 2 inputs \('a', 'b'\).*mymodule:function"),
        (
            onnx_maker.image_encoder((3, 8, 8), nodes=[onnx_maker.node("Identity", ["x"], ["y"])]),
            "images are",
        ),
        (
            onnx_maker.image_encoder(("n", 1, 8, 8), nodes=[onnx_maker.node("Flatten", ["x"], ["y"])]),
            "images are",
        ),
        (onnx_maker.image_encoder((16, 3, 8, 8)), "exactly 16 samples at a time.*dynamic"),
        (b"", "cannot be opened as an ONNX file"),
        (b"\x00" * 64, "damaged|cannot be opened"),
        (onnx_maker.image_encoder()[:-40], "damaged|cannot be opened"),
        (onnx_maker.image_encoder((b"ba\xf4ch", 3, 8, 8)), "cannot be opened"),
    ],
)
def test_files_that_are_no_encoders_of_images(written, content, message, capfd):
    with pytest.raises(InputError, match=message):
        build_encoder("image", written(content))
    assert capfd.readouterr() == ("", "")  # onnxruntime would print what the file says


def test_what_an_onnx_file_cannot_say(written, tmp_path):
    name = written(onnx_maker.image_encoder())
    with pytest.raises(InputError, match="needs a tokenizer"):
        build_encoder("text", name)
    with pytest.raises(InputError, match="recordings.*mymodule:function"):
        build_encoder("audio", name)
    with pytest.raises(InputError, match="Drop --precision"):
        build_encoder("image", name, precision="bfloat16")
    makers.tiny_bert(tmp_path)
    with pytest.raises(InputError, match=r"inputs that its tokenizer does not make \('x'\)"):
        build_encoder("text", name)
    content, _ = onnx_maker.text_encoder(9, length=16)
    with pytest.raises(InputError, match="takes no texts of any length"):
        build_encoder("text", written(content))
    content, _ = onnx_maker.text_encoder(9)
    with pytest.raises(InputError, match="has 2 inputs"):
        build_encoder("image", written(content, "texts.onnx"))


def test_features_that_are_none_are_refused_before_long_work(written, tmp_path):
    items = ArrayItems("image", list(makers.pictures(5, 8)[0]))
    nan = build_encoder("image", written(onnx_maker.image_encoder(weights=np.full((3, 2), np.nan, "f4"))))
    with pytest.raises(InputError, match="not finite"):
        encode_items(items, nan, FeatureCache(tmp_path / "a"))
    nodes = [onnx_maker.node("ReduceMean", ["x"], ["y"], keepdims=0)]
    one = build_encoder("image", written(onnx_maker.image_encoder(nodes=nodes)))
    with pytest.raises(InputError, match=r"features must be \(B, D\)"):
        encode_items(items, one, FeatureCache(tmp_path / "b"))
    nodes = [onnx_maker.node("ReduceMean", ["x"], ["y"], axes=[0, 3], keepdims=0)]
    few = build_encoder("image", written(onnx_maker.image_encoder(nodes=nodes)))
    with pytest.raises(InputError, match=r"gives \(3, 8\) for 5 items"):
        encode_items(items, few, FeatureCache(tmp_path / "c"))


def test_an_open_file_can_be_sent_to_another_process_of_the_machine(written):
    import pickle

    encoder = build_encoder("image", written(onnx_maker.image_encoder()))
    module = pickle.loads(pickle.dumps(encoder.network.module))
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(module({"x": x}), encoder.network.module({"x": x}))


def test_without_onnxruntime_the_error_says_what_to_install(written, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install -c constraints.txt '\.\[onnx\]'"):
        build_encoder("image", written(onnx_maker.image_encoder()))
