"""Folders of encoders from others: no code is run, no pickle is read, and damage ends in a clear error."""

import dataclasses
import json
import os
import shutil
import struct

import numpy as np
import pytest
from tests import makers

from lsi.errors import InputError, LsiError
from lsi.features import build_encoder
from lsi.system import door

pytest.importorskip("transformers", reason="needs the extra `encoders`")


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    place = tmp_path_factory.mktemp("nets")
    return {"image": makers.tiny_resnet(place / "image"), "text": makers.tiny_bert(place / "text")}


@pytest.fixture
def copy(nets, tmp_path):
    return lambda kind="image": shutil.copytree(nets[kind], tmp_path / kind)


def edit(folder, name="config.json", **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def use(kind, folder):
    from PIL import Image

    encoder = build_encoder(kind, str(folder))
    items = ["good film", "bad"] if kind == "text" else [Image.new("RGB", (40, 30))] * 2
    return [encoder.forward(inputs) for _, inputs in encoder.prepare(items)]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_code_in_a_folder_is_never_run_and_nobody_is_asked(copy, name, monkeypatch):
    folder = copy()
    proof = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    names = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoImageProcessor": "evil.P"}
    edit(folder, name, auto_map=names, model_type="evil", image_processor_type="Evil")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks"))
    with pytest.raises(InputError, match="code of its own"):
        build_encoder("image", str(folder))
    assert not proof.exists()


def test_code_for_a_tokenizer(copy):
    folder = copy("text")
    edit(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    with pytest.raises(InputError, match="code of its own"):
        build_encoder("text", str(folder))


def test_weights_in_a_pickle_are_never_read(copy):
    import torch

    folder = copy()
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin is a pickle, which may run code"):
        build_encoder("image", str(folder))
    (folder / "other.safetensors").write_bytes(b"")  # it is there, but not what the network is loaded from
    with pytest.raises(InputError, match=r"could not be loaded"):
        build_encoder("image", str(folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of Unix")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "added_tokens.json", "sub/x.json"])
def test_pipes_and_links_in_a_folder(copy, name, tmp_path):
    folder = copy()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match="plain file"):
        build_encoder("image", str(folder))
    (folder / name).unlink()
    (tmp_path / "outside").write_text("{}")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="leads out of its folder"):
        build_encoder("image", str(folder))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("image", {"depths": [1_000_000, 1]}),
        ("text", {"num_hidden_layers": 1_000_000}),
        ("text", {"vocab_size": 10**12}),
        ("text", {"max_position_embeddings": 10**12}),
        ("text", {"hidden_size": 10**7, "intermediate_size": 10**7}),
    ],
)
def test_a_line_that_asks_for_a_million_layers(copy, kind, changes, monkeypatch):
    monkeypatch.setenv("LSI_MEMORY", "1GiB")
    few = dataclasses.replace(door.LIMITS["modules"], value=500)  # each takes a tenth of a millisecond
    monkeypatch.setitem(door.LIMITS, "modules", few)
    folder = copy(kind)
    edit(folder, **changes)
    with pytest.raises(InputError):
        build_encoder(kind, str(folder))


DAMAGE = [
    ("image", "config.json", b""),
    ("image", "config.json", b"[]"),
    ("image", "config.json", b"{}"),
    ("image", "config.json", b"null"),
    ("image", "config.json", b"\xff\xfe"),
    ("image", "config.json", b"[" * 100_000),
    ("image", "config.json", b'{"model_type": 7}'),
    ("image", "config.json", b'{"model_type": "resnet", "depths": "x"}'),
    ("image", "config.json", b'{"model_type": "resnet", "hidden_sizes": []}'),
    ("image", "config.json", b'{"model_type": "resnet", "embedding_size": -1}'),
    ("image", "config.json", b'{"model_type": "resnet", "hidden_act": "evil"}'),
    ("image", "config.json", b'{"model_type": "../x"}'),
    ("image", "preprocessor_config.json", b"{}"),
    ("image", "preprocessor_config.json", b"[]"),
    ("image", "preprocessor_config.json", b'{"image_processor_type": "os.system"}'),
    ("image", "model.safetensors", b""),
    ("image", "model.safetensors", b"\x00" * 100),
    ("image", "model.safetensors", struct.pack("<Q", 1 << 60) + b"{}"),
    ("image", "model.safetensors.index.json", b"{"),
    ("image", "model.safetensors.index.json", b'{"weight_map": 7}'),
    ("image", "model.safetensors.index.json", b'{"weight_map": {"a": "../../x.safetensors"}}'),
    ("text", "tokenizer.json", b"{}"),
    ("text", "tokenizer.json", b"\xff"),
    ("text", "tokenizer.json", b'{"model": {"type": "BPE", "vocab": 7}}'),
    ("text", "tokenizer_config.json", b"[]"),
    ("text", "tokenizer_config.json", b'{"model_max_length": -3}'),
    ("text", "sentence_bert_config.json", b"{}"),
    ("text", "sentence_bert_config.json", b"[1]"),
    ("text", "sentence_bert_config.json", b'{"max_seq_length": "x"}'),
    ("text", "sentence_bert_config.json", b'{"max_seq_length": -5}'),
]


@pytest.mark.parametrize(("kind", "name", "content"), DAMAGE)
def test_a_damaged_folder_ends_in_a_clear_error_or_works(copy, kind, name, content):
    folder = copy(kind)
    (folder / name).write_bytes(content)
    if name.endswith("index.json"):
        (folder / "model.safetensors").rename(folder / "part.safetensors")
    try:
        for rows in use(kind, folder):
            assert np.isfinite(rows.numpy()).all()
    except LsiError as error:
        assert str(folder) in str(error)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_weights_that_were_cut_short(copy, share):
    folder = copy()
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="could not be loaded"):
        build_encoder("image", str(folder))


def test_weights_of_another_network(copy, tmp_path):
    folder = copy("text")
    shutil.copy(makers.tiny_vit(tmp_path / "vit") / "model.safetensors", folder)
    with pytest.raises(InputError, match="do not belong to its config.json"):
        build_encoder("text", str(folder))


@pytest.mark.parametrize("name", ["a/b/c", "../x", "/nowhere", "~nobody-has-this-name/x", ".", "x\ny"])
def test_a_name_that_is_neither_a_folder_nor_on_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError):
        build_encoder("image", name)
