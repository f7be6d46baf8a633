"""A target of small files that become large, as they are and changed."""

import gzip
import io
import pickle
import random
import struct
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from tests.fuzzing.engine import Target
from tests.fuzzing.loaders import JSONL, X, npy_bytes, use_samples, wav_bytes, zip_bytes
from tests.fuzzing.mutate import mutate_bytes

from lsi.data import SourceOptions, load_samples


def bomb_target(place):
    """Return the target; files are written to the folder `place`."""
    place.mkdir(parents=True)
    bombs = _bombs()
    return Target(
        "bombs", [b"0 jsonl 0"], lambda c: _bomb(place, c, bombs), lambda *a: _another_bomb(*a, bombs)
    )


def _bombs():
    """Return small files that become large, by the suffix of their names."""
    zeros = np.zeros(12 << 20, np.int8)
    packed = io.BytesIO()
    np.savez_compressed(packed, X=np.zeros((4, 1 << 20)), y=np.arange(4) % 2)
    found = {"npz": [packed.getvalue()]}
    headers = [
        ("|V0", (10**9,)),
        ("<U0", (10**11,)),
        ("<f8", (10**12,)),
        ("<i8", (10**12, 0)),
        ("|S0", (9,)),
        ("<U999999", (6,)),
        ([("a", "<i8")], (6,)),
    ]
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
    found["jsonl"] = [
        JSONL,
        b"[" * 50_000,
        b'{"label": ' + b"[" * 900 + b"]" * 900 + b"}\n" * 3,
        b"".join(b'{"c%d": 1}\n' % k for k in range(1000)),
    ]
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
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(70 << 20), 1, mtime=0)


def _tar_of_zeros():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in ("cifar-10-batches-py/data_batch_1", "x"):
            entry = tarfile.TarInfo(name)
            entry.size = 34 << 20
            archive.addfile(entry, io.BytesIO(bytes(34 << 20)))
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
