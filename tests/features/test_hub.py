"""Encoders from a hub: a server on this machine speaks its protocol, and really sends the files."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from tests import makers
from tests.hub_server import COMMIT, Hub, serving

import lsi
from lsi.errors import InputError
from lsi.features import build_encoder

pytest.importorskip("transformers", reason="needs the extra `encoders`")
hub_constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra `encoders`")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return makers.tiny_vit(tmp_path_factory.mktemp("hub") / "tiny")


def use(patch, address):
    """Do in this process what HF_ENDPOINT does in a new one."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(hub_constants, "ENDPOINT", address)
    patch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    """A hub with one model, and a cache of its own."""
    hub = Hub()
    hub.add("models", "org/tiny", tiny)
    with serving(hub) as address:
        use(monkeypatch, address)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what is kept of a cut connection
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        hub.address, hub.cache = address, tmp_path / "cache"
        yield hub


def photos(folder, n=8):
    for k, pixels in enumerate(makers.pictures(n, side=20)[0]):
        place = folder / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k}.png").write_bytes(makers.encoded_image(pixels))
    return folder


def command(*words, **environment):
    """Run the command line in a process of its own, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "lsi", *map(str, words)],
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_one_command_from_the_hub_to_scores(hub, tmp_path):
    done = command(
        "compute", "--dataset", photos(tmp_path / "photos"), "--encoder", "org/tiny", "--no-audit",
        "--output", tmp_path / "scores", "--cache-dir", tmp_path / "features",
        HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = lsi.load(tmp_path / "scores").manifest["encoder"]
    assert (told["hub"], told["commit"]) == ("org/tiny", COMMIT)
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors", "preprocessor_config.json"}


def test_the_folder_and_the_hub_give_the_same_encoder(hub, tiny):
    assert build_encoder("image", "org/tiny").key() == build_encoder("image", str(tiny)).key()


def test_what_was_fetched_is_used_without_the_network(hub, monkeypatch):
    key = build_encoder("image", "org/tiny").key()
    use(monkeypatch, f"http://127.0.0.1:{closed_port()}")
    assert build_encoder("image", "org/tiny").key() == key
    hub.asked.clear()
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert build_encoder("image", "org/tiny").key() == key
    assert hub.asked == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_download_is_refused_and_not_kept(hub, name):
    hub.spoilt.add(name)
    with pytest.raises(InputError, match=f"{name} of the encoder org/tiny is damaged"):
        build_encoder("image", "org/tiny")
    assert not [path for path in hub.cache.rglob(name)]
    hub.spoilt.clear()
    build_encoder("image", "org/tiny")  # as the message says


def test_a_cut_connection_is_taken_up_where_it_ended(hub):
    hub.cuts["model.safetensors"] = 1000
    build_encoder("image", "org/tiny")
    ranges = [asked for _, path, asked in hub.asked if path.endswith("model.safetensors") and asked]
    assert ranges == ["bytes=1000-"]


def test_a_download_that_was_ended_leaves_nothing_half_written(hub, monkeypatch):
    def die(seconds):
        raise KeyboardInterrupt

    hub.cuts["model.safetensors"] = 1000
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", die)
        with pytest.raises(KeyboardInterrupt):
            build_encoder("image", "org/tiny")
    assert not list(hub.cache.rglob("model.safetensors"))
    build_encoder("image", "org/tiny")


def test_code_and_pickles_are_not_even_fetched(hub):
    hub.repos["models/org/tiny"] |= {
        "modeling.py": b"raise SystemExit",
        "pytorch_model.bin": b"x",
        "sub/a.json": b"{",
    }
    build_encoder("image", "org/tiny")
    assert not [path for _, path, _ in hub.asked if path.endswith((".py", ".bin", "a.json"))]


def test_code_that_a_model_of_the_hub_names_is_refused(hub):
    settings = json.loads(hub.repos["models/org/tiny"]["config.json"])
    content = json.dumps({**settings, "auto_map": {"AutoModel": "modeling.M"}}).encode()
    hub.repos["models/org/tiny"]["config.json"] = content
    with pytest.raises(InputError, match="code of its own"):
        build_encoder("image", "org/tiny")


def test_a_model_without_safetensors(hub):
    files = hub.repos["models/org/tiny"]
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    with pytest.raises(InputError, match="no weights in the format safetensors"):
        build_encoder("image", "org/tiny")


def closed_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_what_cannot_be_fetched_says_why_and_how_to_go_on(hub, monkeypatch):
    with pytest.raises(InputError, match=r"org/gone is not on the hub .* private.*--encoder path/to/folder"):
        build_encoder("image", "org/gone")
    hub.gated.add("models/org/tiny")
    with pytest.raises(InputError, match=r"is gated: accept its terms at .*/org/tiny.*hf auth login"):
        build_encoder("image", "org/tiny")
    with monkeypatch.context() as patch:
        use(patch, f"http://127.0.0.1:{closed_port()}")
        with pytest.raises(InputError, match=r"could not be fetched from the hub at .*Check the network"):
            build_encoder("image", "org/tiny")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*--encoder path/to/folder"):
        build_encoder("image", "org/tiny")


def test_without_encoder_the_message_says_which_one_was_taken(hub):
    with pytest.raises(InputError, match=r"the default for image items is taken.*facebook/dinov2-small"):
        build_encoder("image")


def test_the_default_for_images_gives_its_class_token(hub, tmp_path):
    """DINOv2 as its authors publish it: the class token is what their linear probes read."""
    import torch
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dino")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessorPil(**sizes).save_pretrained(tmp_path / "dino")
    hub.add("models", "facebook/dinov2-small", tmp_path / "dino")
    encoder = build_encoder("image")
    assert (encoder.pooling, encoder.origin["hub"]) == ("cls", "facebook/dinov2-small")
    from PIL import Image

    ((_, inputs),) = encoder.prepare([Image.fromarray(one) for one in makers.pictures(3, 40)[0]])
    assert inputs["pixel_values"].shape == (3, 3, 28, 28)
    with torch.no_grad():
        expected = model(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(encoder.forward(inputs).numpy(), expected, rtol=1e-4, atol=1e-5)
