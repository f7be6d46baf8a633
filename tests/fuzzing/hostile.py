"""Targets: what is no file, what leaves its folder, what fills the memory, names that are no text, and our own
files in the wrong place."""

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import shutil
import socket
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from tests.fuzzing.engine import Target
from tests.fuzzing.loaders import (
    CSV,
    JSONL,
    X,
    Y,
    image_bytes,
    items_table,
    npy_bytes,
    npz_bytes,
    table,
    table_bytes,
    use_samples,
    wav_bytes,
    zip_bytes,
)
from tests.fuzzing.mutate import mutate_bytes

import lsi
from lsi.data import SourceOptions, load_samples, read_transition
from lsi.data.pairs import holds_pairs, load_pairs
from lsi.decisions.files import read_decisions
from lsi.errors import LsiError
from lsi.execution.checkpoint import Checkpoint, is_checkpoint
from lsi.features.cache import FeatureCache
from lsi.report.html import write_report

_SUFFIXES = (
    ".npz",
    ".npy",
    ".safetensors",
    ".parquet",
    ".arrow",
    ".feather",
    ".csv",
    ".jsonl",
    ".json",
    ".txt",
    "",
)
_THINGS = ("pipe", "socket", "zero", "random", "full", "tty", "mem", "kmsg", "loop", "dangling", "out", "folder",
           "sparse", "locked", "empty")  # fmt: skip
_PLACES = ("file", "labels", "pictures", "class", "tables", "archive", "idx", "scores", "decisions", "transition",
           "pairs", "cache", "blocks", "encoder")  # fmt: skip


def hostile_targets(folder):
    """Return the targets; files are written below `folder`."""
    yield Target("no files", [b"plain file .npz"], lambda c: _no_file(folder / "things", c), _another_thing)
    yield Target("names", [b"good"], lambda c: _names(folder / "names", c), _number)
    bombs = _bombs()
    place = folder / "bombs"
    place.mkdir(parents=True)
    yield Target(
        "bombs", [b"0 jsonl 0"], lambda c: _bomb(place, c, bombs), lambda *a: _another_bomb(*a, bombs)
    )
    yield from _own(folder / "own")
    yield from _encoders(folder / "encoders")


def _number(random, content, others):
    return str(random.getrandbits(60)).encode()


# What is no file


def _another_thing(random, content, others):
    return f"{random.choice(_THINGS)} {random.choice(_PLACES)} {random.choice(_SUFFIXES)}".encode()


def _put(kind, path, outside):
    """Put something that is no plain file at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    links = {
        "zero": "/dev/zero", "random": "/dev/urandom", "full": "/dev/full", "tty": "/dev/tty", "mem": "/proc/self/mem",
        "kmsg": "/proc/kmsg", "loop": path.name, "dangling": "nowhere", "out": str(outside),
    }  # fmt: skip
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
        "file": f"d{suffix}", "labels": f"l{suffix}", "pictures": "a/x.png", "class": "a", "tables": f"t{suffix}",
        "archive": "cifar-10-python.tar.gz", "idx": "train-images-idx3-ubyte", "decisions": f"k{suffix}",
        "scores": "manifest.json" if len(suffix) % 2 else "scores.parquet", "transition": f"m{suffix}",
        "pairs": "p.npz", "cache": f"features/{'ab' * 20}/manifest.json", "blocks": "run.json",
        "encoder": "config.json" if len(suffix) % 2 else "model.safetensors",
    }  # fmt: skip
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
    bad = (b"/", b"\0")
    parts = [draw.choice((b"a", b"\xff", b"\xe9", b"\xed\xb3\xbf", b"\n", b"\x1b[31m", b" ", b".", b"-", b"\xc3\xa9",
                          b"%", b"<b>", b"=1", bytes([draw.randrange(1, 256)]))) for _ in range(draw.randrange(1, 6))]  # fmt: skip
    name = b"".join(part for part in parts if part not in bad)
    return name if name.strip(b".") else b"x"


# Bombs


def _bombs():
    """Return small files that become large, by the suffix of their names."""
    zeros = np.zeros(24 << 20, np.int8)
    packed = io.BytesIO()
    np.savez_compressed(packed, X=np.zeros((8, 1 << 20)), y=np.arange(8) % 2)
    found = {"npz": [packed.getvalue()]}
    headers = [("|V0", (10**9,)), ("<U0", (10**11,)), ("<f8", (10**12,)), ("<i8", (10**12, 0)), ("|S0", (9,)),
               ("<U999999", (6,)), ([("a", "<i8")], (6,))]  # fmt: skip
    for descr, shape in headers:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
        found["npz"].append(zip_bytes({"X.npy": npy_bytes(X), "y.npy": buffer.getvalue() + bytes(48)}))
    found["parquet"] = [_parquet(*bomb) for bomb in _tables(zeros)]
    batch = io.BytesIO()
    pyarrow.feather.write_feather(
        pa.table({"label": ["a", "b"], "text": ["x" * (24 << 20)] * 2}), batch, compression="zstd"
    )
    found["arrow"] = [batch.getvalue()]
    found["png"] = [_png(side, side) for side in (3000, 30000)] + [_png(1 << 30, 1), _png(65535, 1300)]
    found["wav"] = [_flac(), wav_bytes()]
    found["tar"] = [_long_name(), _tar_of_zeros()]
    found["idx"] = [gzip.compress(struct.pack(">4I", 0x803, 60000, 28, 28) + bytes(60000 * 784), 1, mtime=0)]
    nested = [0] * 10
    for _ in range(20):
        nested = [nested] * 10
    found["batch"] = [pickle.dumps({b"data": np.zeros((10, 3072), np.uint8), b"labels": nested}, protocol=2)]
    found["csv"] = [b"label," + b"," * (1 << 18), b'label,x\n"' + b"a" * (2 << 20)]
    found["jsonl"] = [JSONL, b"[" * 50_000, b'{"label": ' + b"[" * 900 + b"]" * 900 + b"}\n" * 3,
                      b"".join(b'{"c%d": 1}\n' % k for k in range(1000))]  # fmt: skip
    return found


def _tables(zeros):
    text = "x" * (1 << 20)
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), [text])
    vector = pa.ListArray.from_arrays(pa.array([0, len(zeros), len(zeros)]), zeros)
    yield pa.table({"label": one, "x": np.arange(3000.0)}), {}
    yield pa.table({"label": zeros, "x": zeros}), {}
    yield pa.table({"label": ["a", "b"], "x": vector}), {}
    yield pa.table({"label": ["a", "b"] * 4, "image": [bytes(8 << 20)] * 8}), {"use_dictionary": False}
    prefixes = pa.table({"label": ["a", "b"] * 20, "text": [f"{text}{k}" for k in range(40)]})
    yield (
        prefixes,
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"}},
    )


def _parquet(content, options):
    buffer = io.BytesIO()
    pq.write_table(content, buffer, compression="zstd", **options)
    return buffer.getvalue()


def _png(width, height):
    """Return a picture of zeros; of very large ones only the beginning."""
    rows = zlib.compress(bytes(min((width + 1) * height, 10 << 20)), 1)
    parts = [(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _flac():
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((1 << 20, 2), np.float32), 44100, format="FLAC")
    return buffer.getvalue()


def _long_name():
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(90 << 20), 1, mtime=0)


def _tar_of_zeros():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in ("cifar-10-batches-py/data_batch_1", "x"):
            entry = tarfile.TarInfo(name)
            entry.size = 48 << 20
            archive.addfile(entry, io.BytesIO(bytes(48 << 20)))
    return buffer.getvalue()


def _another_bomb(random, content, others, bombs):
    """Return the number of a bomb and of a seed for changes to it, in one case of three none."""
    kinds = list(bombs)
    weights = [4 if kind in ("npz", "parquet", "arrow", "jsonl", "batch") else 1 for kind in kinds]
    kind = random.choices(kinds, weights)[0]
    changes = random.getrandbits(40) if random.random() < 0.67 else 0
    return f"{random.randrange(len(bombs[kind]))} {kind} {changes}".encode()


def _bomb(place, content, bombs):
    number, kind, *changes = content.decode().split(" ")
    made = bombs[kind][int(number)]
    if changes and changes != ["0"]:
        made = mutate_bytes(random.Random(changes[0]), made, [made])
    options = SourceOptions(data_dir=place, cache_dir=place / "cache")
    if kind == "png":
        (place / "pictures" / "a").mkdir(parents=True, exist_ok=True)
        (place / "pictures" / "a" / "x.png").write_bytes(made)
        use_samples(load_samples(str(place / "pictures")))
    elif kind == "wav":
        from lsi.data.decode import decode

        decode("audio", made)
    elif kind == "tar":
        (place / "cifar-10-python.tar.gz").write_bytes(made)
        use_samples(load_samples("cifar10", options))
    elif kind == "idx":
        (place / "train-images-idx3-ubyte.gz").write_bytes(made)
        use_samples(load_samples("fashion_mnist", options))
    elif kind == "batch":
        (place / "u" / "cifar-10-batches-py").mkdir(parents=True, exist_ok=True)
        (place / "u" / "cifar-10-batches-py" / "data_batch_1").write_bytes(made)
        use_samples(load_samples("cifar10", SourceOptions(data_dir=place / "u", cache_dir=place / "cache")))
    else:
        (place / f"d.{kind}").write_bytes(made)
        use_samples(load_samples(str(place / f"d.{kind}")))


# Our own files in the wrong place


def _own(folder):
    """Yield a target that gives files that this library wrote to readers of other ones."""
    files = _own_files(folder)
    names = sorted(files)
    readers = {
        "samples": lambda path: use_samples(load_samples(str(path))), "decisions": read_decisions,
        "transition": read_transition, "scores": lsi.load, "pairs": lambda path: load_pairs(str(path), SourceOptions()),
        "labels": lambda path: load_samples(str(folder / "f.npy"), labels=path),
        "merge": lambda path: lsi.merge([path, files["scores"]]),
        "blocks": lambda path: Checkpoint(path).open({"data": {}, "threads": 1}),
    }  # fmt: skip

    def draw(random, content, others):
        changes = random.getrandbits(40) if random.random() < 0.5 else 0
        return f"{random.choice(names)} {random.choice(list(readers))} {random.choice(_SUFFIXES)} {changes}".encode()

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
    kept = scores.to_frame().head(5)
    for suffix, write in WRITERS.items():
        files[f"kept{suffix}"] = folder / f"kept{suffix}"
        with contextlib.suppress(LsiError):
            write(folder / f"kept{suffix}", kept, scores.manifest, {})
    suspects = scores.mislabeled(fdr=0.9)
    suspects.to_csv(folder / "suspects.csv", index=False)
    write_report(folder / "page.html", scores)
    files |= {name: folder / name for name in ("suspects.csv", "page.html", "f.npy")}
    store = Checkpoint(folder / "blocks")
    store.open({"data": {"fingerprint": "x"}, "threads": 1})
    store.put("fit", {"theta": X})
    store.close() if hasattr(store, "close") else None
    files |= {"blocks": folder / "blocks", "run.json": folder / "blocks" / "run.json"}
    for name, content in (("d.npz", npz_bytes(X=X, y=Y)), ("t.parquet", table_bytes("parquet", table())),
                          ("i.arrow", table_bytes("arrow", items_table()))):  # fmt: skip
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
