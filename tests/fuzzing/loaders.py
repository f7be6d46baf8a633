"""Targets: every loader, on files that start as small valid ones."""

import contextlib
import gzip
import hashlib
import io
import json
import pickle
import shutil
import struct
import tarfile
import warnings
import wave
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from PIL import Image
from tests.fuzzing.engine import Target
from tests.fuzzing.mutate import mutate_json

from lsi.cli.inputs.options import ProbeOptions
from lsi.cli.inputs.settings import build_probe
from lsi.data import SourceOptions, load_samples, read_transition
from lsi.data.corruption.human import human_labels
from lsi.data.decode import BrokenItem, decode
from lsi.data.pairs import holds_pairs, load_pairs
from lsi.data.subsets import drop_unlabelled
from lsi.data.targets import choose_task, with_targets
from lsi.data.writers.dataset import Changes, write_cleaned
from lsi.decisions.files import MEANINGS, read_decisions
from lsi.decisions.receipt import read_receipt, receipt_of, undo, write_receipt
from lsi.decisions.rows import by_row
from lsi.errors import InputError
from lsi.execution.checkpoint import Checkpoint
from lsi.features.cache import Entry, FeatureCache
from lsi.results.marks import SELECTION, Mark
from lsi.tasks import task_of

N = 6
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
Y = np.array(["a", "b"] * 3)
CODES = np.arange(N) % 2
IDS = np.array([f"id-{k}" for k in range(N)])


def use_samples(samples):
    """Do with samples what a run does before the first computation; items are decoded."""
    samples = drop_unlabelled(samples, allowed=True)
    task = choose_task(None, samples)
    samples = with_targets(samples, task)
    if samples.features is not None:
        labels = samples.targets if samples.targets is not None else samples.labels
        task_of(build_probe(ProbeOptions(), task)).problem(samples.features, labels, sample_id=samples.ids)
    if samples.items is not None:
        for payload in samples.items.iterate(np.arange(len(samples))):
            try:
                decode(samples.items.kind, payload)
            except BrokenItem:
                continue
    if samples.images is not None and len(samples):
        np.asarray(samples.images[0])


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zip_bytes(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def table():
    return pa.table(
        {
            "label": Y, "x": X[:, 0], "z": np.arange(N), "v": pa.array(X.tolist(), pa.list_(pa.float32())),
            "id": IDS, "kind": pa.array(Y).dictionary_encode(),
        }
    )  # fmt: skip


def items_table():
    picture = image_bytes("PNG")
    return pa.table({"label": Y, "image": [{"bytes": picture, "path": None}] * N, "text": ["good film"] * N})


def image_bytes(kind, mode="RGB", side=5):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def table_bytes(kind, content):
    buffer = io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(content, buffer, row_group_size=4)
    elif kind == "feather":
        pyarrow.feather.write_feather(content, buffer, compression="uncompressed")
    else:
        make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with make(buffer, content.schema) as writer:
            writer.write_table(content, max_chunksize=4)
    return buffer.getvalue()


def wav_bytes():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(200))
    return buffer.getvalue()


CSV = ("label,x,z,id\n" + "".join(f'{y},{k}.5,{k},"i,{k}"\n' for k, y in enumerate(Y))).encode()
TARGETS_CSV = ("a,b,x\n" + "".join(f"{k % 2},{1 - k % 2},{k}.5\n" for k in range(N))).encode()
JSONL = b"".join(
    json.dumps({"label": str(y), "x": k, "id": f"i{k}"}).encode() + b"\n" for k, y in enumerate(Y)
)
TEXTS = b"".join(json.dumps({"label": str(y), "text": "a film"}).encode() + b"\n" for y in Y)
BATCH = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1], b"filenames": [b"x.png"] * 2}


def loader_targets(folder):
    """Return a target for every loader; files are written below `folder`, best in memory."""
    return [*_arrays(folder), *_tables(folder), *_archives(folder), *_pictures(folder), *_others(folder)]


def _load(path, content, options=None):
    path.write_bytes(content)
    use_samples(load_samples(str(path), options))


def _arrays(folder):
    from safetensors.numpy import save

    tensors = save({"X": X, "y": CODES.astype(np.int64), "ids": np.arange(N)})
    members = {"X.npy": npy_bytes(X), "y.npy": npy_bytes(Y), "ids.npy": npy_bytes(IDS)}
    np.save(folder / "n_labels.npy", Y)
    np.save(folder / "m.npy", X)
    yield Target(
        "npz", [npz_bytes(X=X, y=Y), npz_bytes(X=X, y=CODES, ids=IDS)], lambda c: _load(folder / "a.npz", c)
    )
    for name, array in (("X", X), ("y", Y), ("ids", IDS)):
        seeds = [
            npy_bytes(array),
            npy_bytes(np.asfortranarray(X)),
            npy_bytes(CODES),
            npy_bytes(array.astype("S9")),
        ]
        yield Target(
            f"npz, {name} inside",
            seeds,
            lambda c, name=name: _load(folder / "b.npz", zip_bytes({**members, f"{name}.npy": c})),
        )
    yield Target("npy", [npy_bytes(X)], lambda c: _load(folder / "n.npy", c))
    labels = SourceOptions(labels=folder / "given.npy")
    yield Target(
        "npy, labels", [npy_bytes(Y), npy_bytes(CODES)], lambda c: _labels(folder, "given.npy", c, labels)
    )
    text = SourceOptions(labels=folder / "given.txt")
    yield Target(
        "npy, labels as text", ["\n".join(Y).encode()], lambda c: _labels(folder, "given.txt", c, text)
    )
    yield Target("safetensors", [tensors], lambda c: _load(folder / "s.safetensors", c))
    pairs = [npz_bytes(left=X, right=X), npz_bytes(left=X, right=X, ids=IDS)]
    yield Target("npz of pairs", pairs, lambda c: _pairs(folder / "p.npz", c))
    inside = {"left.npy": npy_bytes(X), "right.npy": npy_bytes(X)}
    yield Target(
        "npz of pairs, inside", [npy_bytes(X)],
        lambda c: _pairs(folder / "q.npz", zip_bytes({**inside, "right.npy": c})),
    )  # fmt: skip


def _labels(folder, name, content, options):
    (folder / name).write_bytes(content)
    use_samples(load_samples(str(folder / "m.npy"), options))


def _pairs(path, content):
    path.write_bytes(content)
    if holds_pairs(str(path)):
        load_pairs(str(path), SourceOptions())


def _tables(folder):
    ids = SourceOptions(id_column="id", clean_label_column="label")
    for kind, suffix in (
        ("parquet", "parquet"),
        ("arrow", "arrow"),
        ("stream", "arrow"),
        ("feather", "feather"),
    ):
        path = folder / f"t-{kind}.{suffix}"
        seeds = [table_bytes(kind, table())]
        yield Target(kind, seeds, lambda c, path=path: _load(path, c, ids))
        place = folder / f"i-{kind}.{suffix}"
        yield Target(
            f"{kind} of items", [table_bytes(kind, items_table())], lambda c, place=place: _load(place, c)
        )
    several = SourceOptions(label_columns=("a", "b"))
    yield Target("csv", [CSV], lambda c: _load(folder / "c.csv", c, ids))
    yield Target("csv, several labels", [TARGETS_CSV], lambda c: _load(folder / "d.csv", c, several))
    yield Target("jsonl", [JSONL], lambda c: _load(folder / "j.jsonl", c, SourceOptions(id_column="id")))
    yield Target("jsonl of texts", [TEXTS], lambda c: _load(folder / "k.jsonl", c))


def _archives(folder):
    yield from _cifar(folder)
    yield from _fashion(folder)
    place = folder / "imagenette"
    place.mkdir()
    small = SourceOptions(data_dir=place, cache_dir=place / "cache")
    picture = image_bytes("PNG")
    names = [f"imagenette2-160/train/n0{k % 2}/{k}.png" for k in range(4)]

    def unpacked(content):
        shutil.rmtree(place / "cache", ignore_errors=True)
        (place / "imagenette2-160.tgz").write_bytes(content)
        use_samples(load_samples("imagenette", small))

    yield Target("archive of images", [tar_bytes(dict.fromkeys(names, picture))], unpacked)


def _cifar(folder):
    place = folder / "cifar"
    place.mkdir()
    options = SourceOptions(data_dir=place, cache_dir=place / "cache")
    meta = pickle.dumps({b"label_names": [b"cat", b"dog"]}, protocol=2)
    batch = pickle.dumps(BATCH, protocol=2)
    names = ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"]

    def archive(content):
        (place / "cifar-10-python.tar.gz").write_bytes(content)
        use_samples(load_samples("cifar10", options))

    def inside(name):
        members = {names[0]: batch, names[1]: meta}
        return lambda content: archive(tar_bytes({**members, name: content}))

    modern = pickle.dumps(BATCH, protocol=4)
    yield Target("CIFAR archive", [tar_bytes({names[0]: batch, names[1]: meta})], archive)
    yield Target("CIFAR batch", [batch, modern], inside(names[0]))
    yield Target("CIFAR class names", [meta], inside(names[1]))
    human = {"clean_label": CODES.astype(np.int64), "aggre_label": 1 - CODES.astype(np.int64)}
    pt = folder / "CIFAR-10_human.pt"

    def noisy(content):
        pt.write_bytes(content)
        human_labels(CODES, "aggregate", pt)

    pickles = [pickle.dumps(human, protocol=2), pickle.dumps(human, protocol=4)]
    yield Target("human labels", [zip_bytes({"a/data.pkl": p, "a/version": b"3\n"}) for p in pickles], noisy)
    yield Target("human labels, inside", pickles, lambda c: noisy(zip_bytes({"a/data.pkl": c})))


def _fashion(folder):
    place = folder / "fashion"
    place.mkdir()
    options = SourceOptions(data_dir=place, cache_dir=place / "cache")
    images = struct.pack(">4I", 0x803, N, 2, 2) + bytes(4 * N)
    labels = struct.pack(">2I", 0x801, N) + bytes(CODES.astype(np.uint8))
    files = {"train-images-idx3-ubyte": images, "train-labels-idx1-ubyte": labels}

    def load(name, content):
        for file, good in files.items():
            (place / file).write_bytes(good)
        (place / f"{name}.gz").unlink(missing_ok=True)
        if content[:2] == b"\x1f\x8b":
            (place / name).unlink()
            (place / f"{name}.gz").write_bytes(content)
        else:
            (place / name).write_bytes(content)
        use_samples(load_samples("fashion_mnist", options))

    for name, content in files.items():
        seeds = [content, gzip.compress(content, mtime=0)]
        yield Target(f"idx, {name[6:12]}", seeds, lambda c, name=name: load(name, c))


def _pictures(folder):
    place = folder / "pictures"
    for label in ("cats", "dogs"):
        (place / label).mkdir(parents=True)
    (place / "dogs" / "a.png").write_bytes(image_bytes("PNG"))

    def load(content):
        (place / "cats" / "a.png").write_bytes(content)
        use_samples(load_samples(str(place)))

    kinds = {"PNG": "P", "JPEG": "RGB", "GIF": "P", "TIFF": "RGB", "BMP": "RGB", "WEBP": "RGB", "PPM": "RGB"}
    for kind, mode in kinds.items():
        yield Target(
            f"images, {kind}", [image_bytes(kind), image_bytes(kind, mode), image_bytes(kind, "L")], load
        )
    yield Target("recordings", [wav_bytes()], lambda content: decode("audio", content))


def _others(folder):
    matrix = folder / "transition.csv"

    def transition(content, suffix):
        matrix.with_suffix(suffix).write_bytes(content)
        read_transition(matrix.with_suffix(suffix))

    yield Target("transition, csv", [b"0.9,0.1\n0.2,0.8\n"], lambda c: transition(c, ".csv"))
    yield Target("transition, npy", [npy_bytes(np.eye(2))], lambda c: transition(c, ".npy"))
    yield from _cache(folder / "cache")
    yield from _blocks(folder / "blocks")
    yield from _decisions(folder)
    yield from _receipts(folder)


def _cache(folder):
    key, cache = "ab" * 20, FeatureCache(folder)
    entry = cache.folder / key
    files = {}
    with cache.open(key) as opened:
        growing = opened.resume(4)
        growing.append(X[:2], {1: "broken"})
        growing.keep()
        growing.close()
        files |= {"progress.json": (entry / "progress.json").read_bytes()}
        files |= {"features.npy.part": (entry / "features.npy.part").read_bytes()}
        growing = opened.resume(4)
        growing.append(X[2:4], {})
        growing.finish({"encoder": "e", "data": "d"})
        whole = {name: (entry / name).read_bytes() for name in ("manifest.json", "features.npy")}

    def read(content, name, good):
        shutil.rmtree(entry)
        entry.mkdir()
        for file, value in {**good, name: content}.items():
            (entry / file).write_bytes(value)
        cache.entries()
        opened = Entry(entry)
        found = opened.read()
        if found is not None:
            np.asarray(found[0]).sum()
            return
        growing = opened.resume(4)
        try:
            if growing.rows < 4:
                growing.append(np.zeros((4 - growing.rows, growing.dim or 3), np.float32), {})
            growing.finish({"encoder": "e"})
        finally:
            growing.close()

    for name, good in (("manifest.json", whole), ("features.npy", whole), ("progress.json", files),
                       ("features.npy.part", files)):  # fmt: skip
        changed = {"mutate": mutate_json} if name.endswith("json") else {}
        yield Target(f"cache, {name}", [good[name]], lambda c, n=name, g=good: read(c, n, g), **changed)


def _blocks(folder):
    store = Checkpoint(folder)
    store.open({"data": {"fingerprint": "x"}, "threads": 1})
    store.put("fit", {"theta": X, "name": Y})
    good = {name: (folder / name).read_bytes() for name in ("run.json", "fit.block")}
    payload = npz_bytes(theta=X, name=Y)

    def read(content, name):
        for file, value in {**good, name: content}.items():
            (folder / file).write_bytes(value)
        store.open({"data": {"fingerprint": "x"}, "threads": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.get("fit")

    def signed(content):
        """Read a block whose sum is right."""
        digest = hashlib.sha256(f"{store.run}/fit/".encode() + content).hexdigest()
        read(b"lsi-block 1 " + digest.encode() + b"\n" + content, "fit.block")

    yield Target("blocks, key", [good["run.json"]], lambda c: read(c, "run.json"), mutate=mutate_json)
    yield Target("blocks, one", [good["fit.block"]], lambda c: read(c, "fit.block"))
    yield Target("blocks, one with its sum", [payload], signed)


def _receipts(folder):
    np.savez(folder / "whole.npz", X=X, y=Y, ids=IDS)
    options = SourceOptions()
    samples, left = load_samples(folder / "whole.npz"), folder / "left.npz"
    changes = Changes(np.arange(N) > 1, {3: "b"})
    write_cleaned(
        samples,
        changes,
        left,
        options,
        seal=lambda drafts: write_receipt(samples, changes, left, options, drafts),
    )
    place = receipt_of(left)
    good = {path.name: path.read_bytes() for path in place.iterdir()}

    def use(content, name):
        for each, bytes_ in {**good, name: content}.items():
            (place / each).write_bytes(bytes_)
        target = folder / "undone.npz"
        try:
            undo(read_receipt(place), left, target)
            assert load_samples(target).fingerprint() == samples.fingerprint()
        finally:
            target.unlink(missing_ok=True)

    for name, content in good.items():
        changed = {"mutate": mutate_json} if name.endswith("json") else {}
        yield Target(f"receipt, {name}", [content], lambda c, name=name: use(c, name), **changed)


def _decisions(folder):
    records = [
        {"sample_id": "id-0", "decision": "accept", "label": "a", "suggested_label": "b"},
        {"sample_id": "id-1", "decision": "remove", "label": "b", "suggested_label": ""},
    ]
    decided = {"format": "lsi-decisions", "version": 1, "fingerprint": "x", "decisions": records}
    chosen = {
        "format": "lsi-selection",
        "version": 1,
        "fingerprint": "x",
        "kept": ["id-0", "id-2"],
        "positions": [0],
    }
    header = "sample_id,decision,label,suggested_label\n"
    rows = header + "".join(",".join(record.values()) + "\n" for record in records)
    ids = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"sample_id": IDS[:2]}), ids)
    seeds = {
        ".json": [json.dumps(decided).encode(), json.dumps(chosen).encode()],
        ".csv": [rows.encode(), b"sample_id,position\nid-0,0\n"],
        ".parquet": [ids.getvalue()],
        ".npy": [npy_bytes(np.array([0, 2]))],
        ".txt": [b"id-0\nid-3\n"],
    }

    def use(content, suffix):
        path = folder / f"decisions{suffix}"
        path.write_bytes(content)
        refused = []
        for meant in (None, *MEANINGS):
            try:
                found, _ = read_decisions(path, meant)
                with contextlib.suppress(InputError):
                    by_row(found, np.arange(N), CODES, None)  # other ids: mostly refused
                by_row(found, IDS, Y, {"a": "ant"})
            except InputError as error:
                refused.append(error)
        if len(refused) > len(MEANINGS):
            raise refused[0]

    marked = Mark(SELECTION, fingerprint="x").line().encode()
    seeds[".csv"].append(b"sample_id,position," + marked + b"\nid-0,0,\n")
    seeds[".txt"].append(marked + b"\nid-0\n")
    seeds[".npy"].append(npy_bytes(np.array([0, 2])) + b"\n" + marked + b"\n")
    for suffix, contents in seeds.items():
        changed = {"mutate": mutate_json} if suffix == ".json" else {}
        yield Target(f"decisions, {suffix[1:]}", contents, lambda c, s=suffix: use(c, s), **changed)
