"""Targets: no files, links, bombs, names that are no text, our own files in the wrong place, and encoders."""

import contextlib
import io
import json
import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
from tests.fuzzing.bombs import bomb_target
from tests.fuzzing.engine import Target
from tests.fuzzing.loaders import (
    CSV,
    JSONL,
    X,
    Y,
    image_bytes,
    items_table,
    npz_bytes,
    table,
    table_bytes,
    use_samples,
)
from tests.fuzzing.mutate import mutate_bytes

import lsi
from lsi.data import SourceOptions, load_samples, read_transition
from lsi.data.pairs import holds_pairs, load_pairs
from lsi.decisions.files import read_decisions
from lsi.errors import InputError
from lsi.execution.checkpoint import Checkpoint, is_checkpoint
from lsi.features.cache import FeatureCache
from lsi.features.chunks import ChunkEncoder
from lsi.report.html import write_report

_SUFFIXES = (*".npz .npy .safetensors .parquet .arrow .feather .csv .jsonl .json .txt".split(), "")
_THINGS = """
    pipe socket zero random full tty mem kmsg loop dangling out folder sparse locked empty plain
""".split()
_PLACES = """
    file labels pictures class tables archive idx scores decisions transition pairs cache blocks encoder onnx
    weights
""".split()
_LETTERS = (
    b"a",
    b"\xff",
    b"\xe9",
    b"\xed\xb3\xbf",
    b"\n",
    b"\x1b[31m",
    b" ",
    b".",
    b"-",
    b"\xc3\xa9",
    b"%",
    b"<b>",
    b"=1",
)


def hostile_targets(folder):
    """Return the targets; files are written below `folder`."""
    yield Target("no files", [b"plain file .npz"], lambda c: _no_file(folder / "things", c), _another_thing)
    yield Target("names", [b"good"], lambda c: _names(folder / "names", c), _number)
    yield bomb_target(folder / "bombs")
    yield from _own(folder / "own")
    yield from _encoders(folder / "encoders")
    yield from _weights(folder / "weights")
    yield from _onnx(folder / "onnx")
    yield from _timm(folder / "timm")


def _number(random, content, others):
    return str(random.getrandbits(60)).encode()


# What is no file


def _another_thing(random, content, others):
    return f"{random.choice(_THINGS)} {random.choice(_PLACES)} {random.choice(_SUFFIXES)}".encode()


def _put(kind, path, outside):
    """Put something that is no plain file at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    links = {
        "zero": "/dev/zero",
        "random": "/dev/urandom",
        "full": "/dev/full",
        "tty": "/dev/tty",
        "mem": "/proc/self/mem",
        "kmsg": "/proc/kmsg",
        "loop": path.name,
        "dangling": "nowhere",
        "out": str(outside),
    }
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        short = Path("/tmp") / f"s{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as bound:
            short.unlink(missing_ok=True)
            bound.bind(str(short))
            os.symlink(short, path)
    elif kind in links:
        path.symlink_to(links[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    else:
        path.write_bytes(b"" if kind == "empty" else npz_bytes(X=X, y=Y))
        if kind == "locked":
            path.chmod(0)


def _no_file(folder, content):
    kind, place, suffix = (content.decode().split(" ") + [""])[:3]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outside = folder.parent / f"outside{suffix}"
    outside.write_bytes(npz_bytes(X=X, y=Y) if suffix == ".npz" else CSV)
    place_of = {
        "file": f"d{suffix}",
        "labels": f"l{suffix}",
        "pictures": "a/x.png",
        "class": "a",
        "tables": f"t{suffix}",
        "archive": "cifar-10-python.tar.gz",
        "idx": "train-images-idx3-ubyte",
        "decisions": f"k{suffix}",
        "scores": "manifest.json" if len(suffix) % 2 else "scores.parquet",
        "transition": f"m{suffix}",
        "pairs": "p.npz",
        "cache": f"features/{'ab' * 20}/manifest.json",
        "blocks": "run.json",
        "onnx": "net.onnx",
        "weights": "w.safetensors" if len(suffix) % 2 else "w.pt",
        "encoder": "config.json" if len(suffix) % 2 else "model.safetensors",
    }
    path = folder / place_of[place]
    (folder / "b").mkdir()
    (folder / "b" / "y.png").write_bytes(image_bytes("PNG"))
    np.save(folder / "f.npy", X)
    if place == "encoder":
        (folder / "config.json").write_text('{"model_type": "resnet"}')
    path.unlink(missing_ok=True)
    _put(kind, path, outside)
    _used(folder, path, place)


def _used(folder, path, place):
    options = SourceOptions(data_dir=folder, cache_dir=folder / "c")
    if place in ("pictures", "class", "tables"):
        use_samples(load_samples(str(folder)))
    elif place in ("archive", "idx"):
        use_samples(load_samples("cifar10" if place == "archive" else "fashion_mnist", options))
    elif place == "labels":
        use_samples(load_samples(str(folder / "f.npy"), labels=path))
    elif place == "scores":
        lsi.load(folder)
    elif place == "decisions":
        read_decisions(path)
    elif place == "transition":
        read_transition(path)
    elif place == "pairs":
        if holds_pairs(str(path)):
            load_pairs(str(path), SourceOptions())
    elif place == "cache":
        FeatureCache(folder).entries()
    elif place == "blocks":
        if is_checkpoint(folder):
            Checkpoint(folder).open({"data": {}, "threads": 1})
    elif place == "encoder":
        from lsi.features import build_encoder

        build_encoder("image", str(folder))
    elif place == "onnx":
        from lsi.features import build_encoder

        build_encoder("image", str(path))
    elif place == "weights":
        from lsi.features.encoders.weights import read_weights

        read_weights(path)
    else:
        use_samples(load_samples(str(path)))


# Names that are no text


def _names(folder, content):
    """Use a folder of pictures or tables whose names are random bytes."""
    if content == b"good":
        return
    draw = random.Random(content)
    shutil.rmtree(folder, ignore_errors=True)
    root = os.fsencode(folder) + b"/" + _name(draw)
    os.makedirs(root)
    if draw.random() < 0.7:
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part := root + b"/" + _name(draw))
                for _ in range(2):
                    with open(part + b"/" + _name(draw) + b".png", "wb") as file:
                        file.write(image_bytes("PNG"))
        path = os.fsdecode(root)
    else:
        path = os.fsdecode(root + b"/" + _name(draw) + draw.choice((b".csv", b".jsonl")))
        with open(path, "wb") as file:
            file.write(CSV if path.endswith("csv") else JSONL)
    samples = load_samples(path)
    use_samples(samples)
    json.dumps(dict(samples.source))
    "".join(map(str, samples.ids.tolist())).encode()
    "".join(map(str, samples.labels.tolist())).encode()


def _name(draw):
    name = b"".join(
        draw.choice((*_LETTERS, bytes([draw.randrange(1, 256)]))) for _ in range(draw.randrange(1, 6))
    )
    name = name.replace(b"/", b"")
    return name if name.strip(b".") else b"x"


# Our own files in the wrong place


def _own(folder):
    """Yield a target that gives files that this library wrote to readers of other ones."""
    files = _own_files(folder)
    names = sorted(files)
    readers = {
        "samples": lambda path: use_samples(load_samples(str(path))),
        "decisions": read_decisions,
        "transition": read_transition,
        "scores": lsi.load,
        "pairs": lambda path: load_pairs(str(path), SourceOptions()),
        "labels": lambda path: load_samples(str(folder / "f.npy"), labels=path),
        "merge": lambda path: lsi.merge([path, files["scores"]]),
        "blocks": lambda path: Checkpoint(path).open({"data": {}, "threads": 1}),
    }

    def draw(random, content, others):
        changes = random.getrandbits(40) if random.random() < 0.5 else 0
        words = (random.choice(names), random.choice(list(readers)), random.choice(_SUFFIXES))
        return f"{' '.join(words)} {changes}".encode()

    def use(content):
        name, reader, suffix, changes = content.decode().split(" ")
        path = files[name]
        if path.is_file():
            made = path.read_bytes()
            if changes != "0":
                made = mutate_bytes(random.Random(changes), made, [made])
            path = folder / f"given{suffix or path.suffix}"
            path.write_bytes(made)
        readers[reader](path)

    yield Target("own files", [b"scores scores .npz 0"], use, draw)


def _own_files(folder):
    from lsi.decisions.selection_file import WRITERS

    folder.mkdir(parents=True)
    np.save(folder / "f.npy", X)
    rng = np.random.default_rng(0)
    y = np.arange(18) % 3
    scores = lsi.score(rng.normal(size=(18, 3)) + np.eye(3)[y], y, audit=False, label_noise=True)
    files = {"scores": scores.save(folder / "scores")}
    files |= {name: folder / "scores" / name for name in ("manifest.json", "scores.parquet")}
    from lsi.cli import main

    for suffix in WRITERS:
        files[f"kept{suffix}"] = folder / f"kept{suffix}"
        with contextlib.redirect_stdout(io.StringIO()):
            main(["select", str(folder / "scores"), "--keep", "5", "--output", str(folder / f"kept{suffix}")])
    suspects = scores.mislabeled(fdr=0.9)
    suspects.to_csv(folder / "suspects.csv", index=False)
    write_report(folder / "page.html", scores)
    files |= {name: folder / name for name in ("suspects.csv", "page.html", "f.npy")}
    store = Checkpoint(folder / "blocks")
    store.open({"data": {"fingerprint": "x"}, "threads": 1})
    store.put("fit", {"theta": X})
    store.close() if hasattr(store, "close") else None
    files |= {"blocks": folder / "blocks", "run.json": folder / "blocks" / "run.json"}
    for name, content in (
        ("d.npz", npz_bytes(X=X, y=Y)),
        ("t.parquet", table_bytes("parquet", table())),
        ("i.arrow", table_bytes("arrow", items_table())),
    ):
        (folder / name).write_bytes(content)
        files[name] = folder / name
    return {name: path for name, path in files.items() if path.exists()}


# Folders of encoders


def _encoders(folder):
    try:
        from tests import makers

        nets = {"image": makers.tiny_resnet(folder / "image"), "text": makers.tiny_bert(folder / "text")}
    except ImportError:
        return
    whole = {kind: {path.name: path.read_bytes() for path in net.iterdir()} for kind, net in nets.items()}

    def use(kind, name, content):
        from PIL import Image

        from lsi.features import build_encoder

        for file, good in whole[kind].items():
            (nets[kind] / file).write_bytes(content if file == name else good)
        encoder = build_encoder(kind, str(nets[kind]))
        items = ["good film"] if kind == "text" else [Image.new("RGB", (40, 30))]
        for _, inputs in encoder.prepare(items):
            encoder.forward(inputs)

    from tests.fuzzing.mutate import mutate_json

    for kind, files in whole.items():
        for name, content in files.items():
            if name.endswith((".json", ".safetensors")):
                changed = {"mutate": mutate_json} if name.endswith(".json") else {}
                yield Target(
                    f"encoder, {kind}, {name}", [content], lambda c, k=kind, n=name: use(k, n, c), **changed
                )


def _image(encoder):
    """Encode two pictures: what is wrong with an encoder may show only then."""
    from PIL import Image

    for order, inputs in encoder.prepare([Image.new("RGB", (40, 30))] * 2):
        ChunkEncoder("image", encoder).features(len(order), inputs)


def _weights(folder):
    import torch
    from safetensors.torch import save

    folder.mkdir()
    state = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2), "n": torch.tensor(3)}
    seeds = {"pt": [], "safetensors": [save(state)]}
    for kept, zipped in ((state, True), (state, False), ({"epoch": 1, "state_dict": state}, True)):
        buffer = io.BytesIO()
        torch.save(kept, buffer, _use_new_zipfile_serialization=zipped)
        seeds["pt"].append(buffer.getvalue())

    def use(suffix, content):
        from lsi.features.encoders.weights import put, read_weights

        (folder / f"w.{suffix}").write_bytes(content)
        module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2)})
        put(read_weights(folder / f"w.{suffix}"), module, "net", folder, ("n",))

    for suffix, contents in seeds.items():
        yield Target(f"encoder, weights, {suffix}", contents, lambda c, s=suffix: use(s, c))


def _onnx(folder):
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return
    from tests import onnx_maker

    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(48))

    def use(content):
        from lsi.features import build_encoder

        (folder / "net.onnx").write_bytes(content)
        _image(build_encoder("image", str(folder / "net.onnx")))

    seeds = [onnx_maker.image_encoder(), onnx_maker.image_encoder(elsewhere="w.bin")]
    seeds += [onnx_maker.image_encoder(("batch", 8, 8, 3), kind=onnx_maker.UINT8)]
    yield Target("encoder, onnx", seeds, use)


def _timm(folder):
    from lsi.features.encoders.timm_models import _timm

    try:
        timm = _timm("the fuzzer")
    except InputError:
        return
    timm.models.save_for_hf(
        timm.create_model("mobilenetv3_small_050", pretrained=False), folder, safe_serialization=True
    )

    def use(content):
        from lsi.features import build_encoder

        (folder / "config.json").write_bytes(content)
        _image(build_encoder("image", str(folder)))

    from tests.fuzzing.mutate import mutate_json

    content = (folder / "config.json").read_bytes()
    yield Target("encoder, timm, config.json", [content], use, mutate=mutate_json)
