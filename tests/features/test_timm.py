"""Networks of timm: folders that it wrote, and weights with the name of their architecture."""

import json
import sys

import numpy as np
import pytest
import torch
from tests import makers
from tests.features.test_encoders import features, images

from lsi.errors import InputError
from lsi.features import build_encoder
from lsi.features.encoders.pictures import Pictures
from lsi.features.encoders.timm_models import _timm

try:
    timm = _timm("the tests")  # which needs no torchvision
except InputError:
    pytest.skip("needs timm", allow_module_level=True)

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as timm publishes networks, a file of its state dict, and the network."""
    place = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    model = timm.create_model(NAME, pretrained=False).eval()
    timm.models.save_for_hf(model, place / "folder", safe_serialization=True)
    torch.save(model.state_dict(), place / "weights.pth")
    model.reset_classifier(0)
    return place, model


def test_a_folder_and_a_file_give_what_the_network_gives(saved):
    place, model = saved
    encoder = build_encoder("image", f"{NAME}:{place / 'weights.pth'}")
    ((_, inputs),) = encoder.prepare(images(3))
    with torch.no_grad():
        expected = model(inputs["pixel_values"]).numpy()
    np.testing.assert_allclose(encoder.forward(inputs).numpy(), expected, rtol=1e-4, atol=1e-5)
    folder = build_encoder("image", str(place / "folder"))
    np.testing.assert_allclose(features(folder, images(3)), expected, rtol=1e-4, atol=1e-5)
    assert encoder.key()["weights"] == folder.key()["weights"]
    with torch.no_grad():
        maps = model.forward_features(inputs["pixel_values"])
    found = features(build_encoder("image", str(place / "folder"), pooling="max"), images(3))
    np.testing.assert_allclose(found, maps.amax((2, 3)).numpy(), rtol=1e-4, atol=1e-5)


def test_the_name_of_a_training_decides_how_pictures_are_prepared(saved, tmp_path):
    """torchvision's own weights of a ResNet-18 go by `resnet18.tv_in1k`: its keys and its preprocessing."""
    torch.save(
        timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet18-f37072fd.pth"
    )
    encoder = build_encoder("image", f"resnet18.tv_in1k:{tmp_path / 'resnet18-f37072fd.pth'}")
    assert encoder.processor == Pictures(crop=0.875, interpolation="bilinear")
    assert features(encoder, images(2)).shape == (2, 512)


def test_weights_under_their_author_s_names_are_renamed(tmp_path):
    model = timm.create_model("densenet121", pretrained=False)
    state = model.state_dict().items()
    old = {name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): value for name, value in state}
    torch.save(old, tmp_path / "w.pth")
    assert build_encoder("image", f"densenet121:{tmp_path / 'w.pth'}").pooling == "pooler"


def test_what_does_not_fit(saved):
    place, _ = saved
    weights = place / "weights.pth"
    for name, message in (
        (
            f"mobilenetv3_small_075:{weights}",
            r"does not fit the architecture mobilenetv3_small_075: \d+ tensors",
        ),
        (
            f"mobilnetv3_small_050:{weights}",
            "no architecture 'mobilnetv3_small_050'. Alike are 'mobilenetv3_small_050'",
        ),
        (f"{NAME}.nobody:{weights}", "Invalid pretrained tag"),
        (f"{NAME}:{place / 'gone.pth'}", "gone.pth cannot be opened"),
        (str(weights), f"which network.*resnet18:{weights}"),
    ):
        with pytest.raises(InputError, match=message):
            build_encoder("image", name)
    for kind, items in (("text", "texts"), ("audio", "recordings")):
        for name in (f"{NAME}:{weights}", str(place / "folder")):
            with pytest.raises(InputError, match=f"encodes images, but these items are {items}"):
                build_encoder(kind, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "hf-hub:evil/net"}, "no architecture"),
        ({"architecture": "local-dir:/etc"}, "no architecture"),
        ({"model_args": {"block_size": 10**9, "no_such_argument": 1}}, "could not be built"),
        ({"model_args": {"stem_size": 10**9}}, "LSI_MEMORY|could not be built"),
        ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "cannot prepare them"),
        ({"pretrained_cfg": {"input_size": "large"}}, "could not be built"),
        ({"pretrained_cfg": {"std": [0, 0, 0]}}, "cannot prepare them"),
        ({"pretrained_cfg": {"crop_mode": "evil"}}, "crop_mode 'evil' is not known"),
        ({"pretrained_cfg": {"classifier": 1e308}}, "could not be built"),
        ({"auto_map": {"AutoModel": "evil.M"}}, "code of its own"),
    ],
)
def test_settings_of_others_are_data(saved, tmp_path, changes, message, monkeypatch):
    monkeypatch.setenv("LSI_MEMORY", "1GiB")
    place, _ = saved
    settings = json.loads((place / "folder" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, **changes}))
    (tmp_path / "model.safetensors").write_bytes((place / "folder" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=message):
        build_encoder("image", str(tmp_path))


def test_a_folder_cannot_have_other_weights_fetched(saved, tmp_path, monkeypatch):
    """Arguments by which timm would load weights from elsewhere are dropped."""
    place, _ = saved
    settings = json.loads((place / "folder" / "config.json").read_text())
    settings["model_args"] = {
        "pretrained": True, "checkpoint_path": "/etc/passwd", "cache_dir": "/", "pretrained_cfg": {},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes((place / "folder" / "model.safetensors").read_bytes())
    found = features(build_encoder("image", str(tmp_path)), images(2))
    np.testing.assert_array_equal(found, features(build_encoder("image", str(place / "folder")), images(2)))


def test_timm_is_imported_without_torchvision_and_leaves_nothing_behind():
    assert not any(name.partition(".")[0] == "torchvision" for name in sys.modules)
    assert not any(type(finder).__name__ == "_StandIns" for finder in sys.meta_path)


def test_pictures_are_prepared_as_torchvision_does():
    from PIL import Image

    (wide,) = makers.pictures(1, 40)[0]
    picture = Image.fromarray(wide[:20])  # 40 wide, 20 high
    found = Pictures(size=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, crop=0.8)([picture])["pixel_values"]
    resized = np.asarray(picture.resize((40, 20), Image.Resampling.BICUBIC))  # its short side: 16 / 0.8
    expected = (resized[2:18, 12:28] / 255 - 0.5) / 0.25
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    squashed = Pictures(size=(16, 16), mean=(), std=(), squash=True)([picture])["pixel_values"]
    np.testing.assert_array_equal(
        squashed[0].permute(1, 2, 0).numpy(), np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))
    )
    strip = Image.new("RGB", (100_000, 2), (9, 9, 9))
    assert Pictures()([strip])["pixel_values"].shape == (1, 3, 224, 224)


def test_without_timm_the_error_says_what_to_install(saved, monkeypatch):
    place, _ = saved
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="needs timm. Install it: python -m pip install --no-deps timm"):
        build_encoder("image", str(place / "folder"))
