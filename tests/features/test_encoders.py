import numpy as np
import pytest
import torch
from tests import makers

from lsi.data.decode import Audio
from lsi.data.items import ArrayItems
from lsi.errors import InputError
from lsi.features import FeatureCache, build_encoder, encode_items
from lsi.features.encoders import pool

pytest.importorskip("transformers", reason="needs the extra `encoders`")


def features(encoder, items):
    """What an encoder makes of decoded items, without cache."""
    rows = {}
    for order, inputs in encoder.prepare(items):
        rows |= dict(zip(order, encoder.forward(inputs).numpy(), strict=True))
    return np.stack([rows[k] for k in range(len(items))])


def images(n=7, side=40):
    from PIL import Image

    return [Image.fromarray(one) for one in makers.pictures(n, side)[0]]


TEXTS = ["good film", "the very bad plot", "a", "bad film a good plot the very good film"]


def test_images_by_the_model_s_own_hand(tmp_path):
    from transformers import AutoImageProcessor, AutoModel

    folder = makers.tiny_resnet(tmp_path)
    encoder = build_encoder("image", str(folder), batch_size=3)
    model, processor = (
        AutoModel.from_pretrained(folder).eval(),
        AutoImageProcessor.from_pretrained(folder, backend="pil"),
    )
    with torch.no_grad():
        expected = model(**processor(images=images(), return_tensors="pt")).pooler_output.flatten(1)
    np.testing.assert_allclose(features(encoder, images()), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert encoder.pooling == "mean"


def test_grey_and_coloured_images_of_any_size_go_together(tmp_path):
    from PIL import Image

    encoder = build_encoder("image", str(makers.tiny_resnet(tmp_path)))
    mixed = [Image.new("L", (50, 20), 99), Image.new("RGB", (8, 64), (1, 2, 3))]
    assert features(encoder, mixed).shape == (2, 16)


def test_a_vision_transformer_gives_its_class_token(tmp_path):
    from transformers import AutoModel

    folder = makers.tiny_vit(tmp_path)
    encoder = build_encoder("image", str(folder))
    assert encoder.pooling == "cls"
    ((_, inputs),) = encoder.prepare(images(2))
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
    np.testing.assert_allclose(encoder.forward(inputs).numpy(), hidden[:, 0].numpy(), rtol=1e-4, atol=1e-6)


def test_texts_do_not_depend_on_their_neighbours(tmp_path):
    folder = makers.tiny_bert(tmp_path)
    encoder = build_encoder("text", str(folder), batch_size=4)
    together = features(encoder, TEXTS)
    alone = np.concatenate([features(encoder, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert encoder.max_length == 32
    assert features(encoder, ["good " * 500]).shape == (1, 16)


def test_recordings_of_any_length_and_rate(tmp_path):
    encoder = build_encoder("audio", str(makers.tiny_wav2vec(tmp_path)))
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=n).astype(np.float32) for n in (4000, 6000, 4000)]
    recordings = [Audio(wave, 8000) for wave in waves]
    together = features(encoder, recordings)
    alone = np.concatenate([features(encoder, [one]) for one in recordings])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 220 * time).astype(np.float32)
    both = features(encoder, [Audio(tone, 16000), Audio(tone[::2].copy(), 8000)])
    np.testing.assert_allclose(both[0], both[1], atol=0.05)


def test_wav_files_are_read(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="needs the extra `encoders`")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, size=(3000, 2))
    soundfile.write(tmp_path / "x.wav", wave, 8000)
    encoder = build_encoder("audio", str(makers.tiny_wav2vec(tmp_path / "m")))
    items = ArrayItems("audio", [tmp_path / "x.wav", (tmp_path / "x.wav").read_bytes()])
    found = encode_items(items, encoder, FeatureCache(tmp_path / "cache")).features
    np.testing.assert_allclose(found[0], found[1])
    with pytest.raises(InputError, match="not a readable recording"):
        encode_items(ArrayItems("audio", [b"RIFF junk"]), encoder, FeatureCache(tmp_path / "cache"))


def test_half_precision_is_near(tmp_path):
    folder = str(makers.tiny_resnet(tmp_path))
    exact = features(build_encoder("image", folder), images())
    half = features(build_encoder("image", folder, precision="bfloat16"), images())
    np.testing.assert_allclose(half, exact, atol=0.05 * np.abs(exact).max())
    assert not np.array_equal(half, exact)


def test_the_key_follows_everything_that_matters(tmp_path):
    import shutil

    folder = makers.tiny_resnet(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "copy")
    key = build_encoder("image", str(folder)).key()
    assert build_encoder("image", str(tmp_path / "copy"), batch_size=5).key() == key
    assert build_encoder("image", str(folder), pooling="max").key() != key
    assert build_encoder("image", str(folder), precision="bfloat16").key() != key
    assert build_encoder("image", str(makers.tiny_vit(tmp_path / "b"))).key() != key


def test_a_pooler_that_was_not_saved_changes_no_key_and_is_not_used(tmp_path):
    folder = str(makers.tiny_vit(tmp_path))  # as most transformers for images are published
    assert build_encoder("image", folder).key() == build_encoder("image", folder).key()
    with pytest.raises(InputError, match="saved without its pooler"):
        features(build_encoder("image", folder, pooling="pooler"), images(1))


def test_an_encoder_of_other_items(tmp_path):
    kinds = {"image": makers.tiny_vit, "text": makers.tiny_bert, "audio": makers.tiny_wav2vec}
    called = {"image": "images", "text": "texts", "audio": "recordings"}
    for kind, make in kinds.items():
        folder = str(make(tmp_path / kind))
        for other in set(kinds) - {kind}:
            message = f"encodes {called[kind]}, but these items are {called[other]}. Name an encoder of"
            with pytest.raises(InputError, match=message):
                build_encoder(other, folder)


def test_a_torchvision_that_does_not_fit_is_named(tmp_path, monkeypatch):
    folder = str(makers.tiny_resnet(tmp_path / "net"))
    (tmp_path / "broken" / "torchvision").mkdir(parents=True)
    (tmp_path / "broken" / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path / "broken")
    with pytest.raises(InputError, match="nms does not exist.*pip uninstall torchvision"):
        build_encoder("image", folder)


def test_settings_that_are_unknown(tmp_path):
    for settings, message in (
        ({"pooling": "men"}, "Did you mean 'mean'"),
        ({"precision": "float8"}, "--precision"),
        ({"batch_size": 0}, "--batch-size"),
    ):
        with pytest.raises(InputError, match=message):
            build_encoder("image", str(tmp_path), **settings)


def test_an_encoder_that_cannot_be_had_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"default for image items.*--encoder path/to/folder"):
        build_encoder("image")
    with pytest.raises(InputError, match="there is no folder"):
        build_encoder("image", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="save_pretrained"):
        build_encoder("image", str(tmp_path))


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install -c constraints.txt '\.\[encoders\]'"):
        build_encoder("image")


def test_raw_is_the_pixels():
    pixels, _ = makers.pictures(5, side=4)
    from PIL import Image

    colour = features(build_encoder("image", "raw"), [Image.fromarray(one) for one in pixels])
    np.testing.assert_allclose(colour, pixels.reshape(5, -1) / 255, rtol=1e-6)
    grey = features(build_encoder("image", "raw"), [Image.fromarray(one[..., 0]) for one in pixels])
    assert grey.shape == (5, 16)
    with pytest.raises(InputError, match="one size"):
        features(build_encoder("image", "raw"), [Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))])
    with pytest.raises(InputError, match="Name an encoder"):
        features(build_encoder("image", "raw"), [Image.new("RGB", (400, 400))])
    with pytest.raises(InputError, match="raw is for images"):
        build_encoder("text", "raw")


HIDDEN = torch.arange(24.0).reshape(2, 3, 4)
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("cls", HIDDEN[:, 0]),
        ("last", torch.stack([HIDDEN[0, 1], HIDDEN[1, 2]])),
        ("mean", torch.stack([HIDDEN[0, :2].mean(0), HIDDEN[1].mean(0)])),
        ("max", torch.stack([HIDDEN[0, 1], HIDDEN[1, 2]])),
    ],
)
def test_pooling_of_tokens(how, expected):
    torch.testing.assert_close(pool(HIDDEN, how, MASK), expected)


def test_pooling_of_maps_and_vectors():
    maps = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(pool(maps, "mean"), maps.mean((2, 3)))
    torch.testing.assert_close(pool(maps, "max"), maps.amax((2, 3)))
    torch.testing.assert_close(pool(maps[:, :, 0, 0], "cls"), maps[:, :, 0, 0])
    for value, how, message in (
        (maps, "cls", "needs tokens"),
        (maps, "pooler", "no pooler"),
        (maps[0, 0, 0], "mean", "must be"),
    ):
        with pytest.raises(InputError, match=message):
            pool(value, how)
    with pytest.raises(InputError, match="Wrap it"):
        pool({"x": 1}, "mean")
