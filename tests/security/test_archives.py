"""Archives, arrays, tables and pictures that lie about where they belong or how large they are."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pytest
from tests.fuzzing.loaders import image_bytes, npy_bytes, table, table_bytes, zip_bytes
from tests.makers import write_tar

from lsi.data import SourceOptions, load_samples
from lsi.data.archives.fetch import Found, unpack
from lsi.data.decode import BrokenItem, decode
from lsi.data.readers import table_files as tables_module
from lsi.errors import InputError

PICTURES = {f"imagenette2-160/train/n0{k % 2}/{k}.png": image_bytes("PNG") for k in range(4)}


@pytest.fixture
def options(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    return SourceOptions(data_dir=data, cache_dir=tmp_path / "cache")


def refused(options, message):
    with pytest.raises(InputError, match=message):
        load_samples("imagenette", options)
    assert list((options.cache_dir / "unpacked").iterdir()) == []  # nothing half-unpacked stays


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "a/../../evil.txt",
        "imagenette2-160/train/../../../../evil.txt",
        "./../evil.txt",
    ],
)
def test_a_path_that_climbs_out(options, tmp_path, name):
    write_tar(options.data_dir / "imagenette2-160.tgz", PICTURES | {name: b"x"})
    refused(options, "out of its folder|leave the folder")
    assert not list(tmp_path.rglob("evil.txt"))


def test_an_absolute_path_stays_inside(options, tmp_path):
    evil = tmp_path / "evil.txt"
    write_tar(options.data_dir / "imagenette2-160.tgz", PICTURES | {str(evil): b"x"})
    assert len(load_samples("imagenette", options)) == 4  # the root is taken off
    assert not evil.exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "../../.."),
        (tarfile.SYMTYPE, "train"),  # inside, but no dataset needs it
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "../../../keep"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices(options, kind, target):
    with tarfile.open(options.data_dir / "imagenette2-160.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("imagenette2-160/train/n00")
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
    refused(options, "out of its folder|leave the folder")


def test_writing_through_a_link_of_the_archive(options, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(options.data_dir / "imagenette2-160.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("imagenette2-160/train")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        file = tarfile.TarInfo("imagenette2-160/train/evil.txt")
        file.size = 1
        archive.addfile(file, io.BytesIO(b"x"))
    refused(options, "out of its folder|leave the folder")
    assert list(outside.iterdir()) == []


def test_a_name_with_nul(options):
    with tarfile.open(options.data_dir / "imagenette2-160.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        file = tarfile.TarInfo("imagenette2-160/train/x")
        file.pax_headers = {"path": "imagenette2-160/train/a\0b"}
        archive.addfile(file)
    with pytest.raises(InputError):
        load_samples("imagenette", options)


def test_a_bomb_of_zeros(options):
    with tarfile.open(options.data_dir / "imagenette2-160.tgz", "w:gz") as archive:
        file = tarfile.TarInfo("imagenette2-160/train/n00/0.png")
        file.size = 70 << 20
        archive.addfile(file, io.BytesIO(bytes(70 << 20)))
    assert (options.data_dir / "imagenette2-160.tgz").stat().st_size < 1 << 20
    refused(options, "a bomb")


def test_a_bomb_of_many_members(tmp_path):
    path = write_tar(tmp_path / "many.tgz", {f"many/{k}": b"" for k in range(60)})
    with pytest.raises(InputError, match="a bomb"):
        unpack(Found(path, ""), tmp_path / "out" / "many", most_members=59)
    assert list((tmp_path / "out").iterdir()) == []
    whole = unpack(Found(path, ""), tmp_path / "out" / "many", most_members=60)
    assert len(list((whole / "many").iterdir())) == 60


def test_a_cifar_member_of_terabytes(options):
    with tarfile.open(options.data_dir / "cifar-10-python.tar.gz", "w") as archive:
        file = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        file.size = 1 << 40
        archive.fileobj.write(file.tobuf())
    with pytest.raises(InputError, match="a bomb|damaged"):
        load_samples("cifar10", options)


def test_an_idx_bomb_is_not_unpacked(options):
    header = struct.pack(">4I", 0x803, 2, 2, 2)
    bomb = gzip.compress(header + bytes(200 << 20), compresslevel=9, mtime=0)
    (options.data_dir / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    with pytest.raises(InputError, match="shorter or longer"):
        load_samples("fashion_mnist", options)


def test_an_idx_header_of_terabytes(options):
    header = struct.pack(">4I", 0x803, 1 << 31, 1 << 10, 1 << 10)
    (options.data_dir / "train-images-idx3-ubyte").write_bytes(header)
    with pytest.raises(InputError, match="would take .* are allowed.*LSI_MEMORY"):
        load_samples("fashion_mnist", options)


def test_an_npz_that_unpacks_to_more_than_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LSI_MEMORY", "1MiB")
    np.savez_compressed(tmp_path / "d.npz", X=np.zeros((1000, 300)), y=np.arange(1000))
    with pytest.raises(InputError, match="would take 2.4 MB"):
        load_samples(str(tmp_path / "d.npz"))


@pytest.mark.parametrize(
    "shape", ["(9999999999999,)", "(-1,)", "(2, 1" + "0" * 40 + ")", "(" * 200 + ")" * 200]
)
def test_an_array_with_a_lying_header(tmp_path, shape):
    good = npy_bytes(np.zeros((4, 2)))
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + ", }"
    header = text.encode().ljust(500) + b"\n"
    bad = good[:8] + struct.pack("<H", len(header)) + header
    (tmp_path / "d.npz").write_bytes(zip_bytes({"X.npy": bad, "y.npy": npy_bytes(np.arange(4))}))
    with pytest.raises(InputError):
        load_samples(str(tmp_path / "d.npz"))
    (tmp_path / "e.npy").write_bytes(bad)
    np.save(tmp_path / "e_labels.npy", np.arange(4))
    with pytest.raises(InputError):
        load_samples(str(tmp_path / "e.npy"))


def test_text_with_numbers_that_are_no_characters(tmp_path):
    labels = np.array([0x7FFFFFFF, 65, 66], dtype=np.uint32).view("<U1")
    np.savez(tmp_path / "d.npz", X=np.zeros((3, 1)), y=labels)
    with pytest.raises(InputError, match="damaged"):
        load_samples(str(tmp_path / "d.npz"))


def test_an_encrypted_npz(tmp_path):
    content = bytearray(zip_bytes({"X.npy": npy_bytes(np.zeros((3, 1))), "y.npy": npy_bytes(np.arange(3))}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"readable \.npz"):
        load_samples(str(tmp_path / "d.npz"))


def test_an_arrow_file_whose_offsets_point_into_memory(tmp_path):
    # A text column of 6 short strings: offsets 0, 1, …, 6 as int32.
    content = table_bytes("arrow", pa.table({"label": ["a", "b"] * 3, "x": [0.5] * 6}))
    offsets = struct.pack("<5i", 0, 1, 2, 3, 4)
    assert offsets in content
    bad = content.replace(offsets, struct.pack("<5i", 0, 1, 1 << 30, 1 << 30, 4))
    (tmp_path / "t.arrow").write_bytes(bad)
    with pytest.raises(InputError, match="cannot be read"):
        load_samples(str(tmp_path / "t.arrow"))


def test_a_dictionary_with_indices_outside_of_it(tmp_path):
    kind = pa.DictionaryArray.from_arrays(pa.array([0, 1, 99, 0], pa.int32()), ["a", "b"], safe=False)
    content = table_bytes("arrow", pa.table({"label": kind, "x": [0.5] * 4}))
    (tmp_path / "t.arrow").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        load_samples(str(tmp_path / "t.arrow"))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather"])
def test_a_table_whose_metadata_are_cut_or_lie(tmp_path, kind):
    content = table_bytes(kind, table())
    for bad in (content[:-9], content[:-8] + b"\xff\xff\xff\x7f" + content[-4:], content[-8:], b"PAR1" * 4):
        (tmp_path / f"t.{kind}").write_bytes(bad)
        with pytest.raises(InputError):
            load_samples(str(tmp_path / f"t.{kind}"))


def test_class_names_in_a_schema_that_are_no_names(tmp_path):
    lying = table().replace_schema_metadata(
        {b"huggingface": b'{"info": {"features": {"label": {"names": 7}}}}'}
    )
    (tmp_path / "t.parquet").write_bytes(table_bytes("parquet", lying))
    assert load_samples(str(tmp_path / "t.parquet")).class_names is None


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "-1e999"])
def test_numbers_too_large_for_any_type(tmp_path, number):
    (tmp_path / "t.jsonl").write_text(f'{{"label": "a", "x": {number}}}\n' * 4)
    with pytest.raises(InputError):
        samples = load_samples(str(tmp_path / "t.jsonl"))
        from lsi.validation.problem import check_problem

        check_problem(samples.features, samples.labels)


def test_json_nested_ten_thousand_deep(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"label": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(InputError, match="not JSON"):
        load_samples(str(tmp_path / "t.jsonl"))


def png_header(width, height):
    body = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def png_data(width, height):
    rows = zlib.compress(bytes(1000))
    part = b"IDAT" + rows
    return (
        png_header(width, height) + struct.pack(">I", len(rows)) + part + struct.pack(">I", zlib.crc32(part))
    )


GIF = b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(6)
GIF += b",\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;"
TIFF_TAGS = struct.pack("<HHIIHHIIHHII", 256, 4, 1, 100_000, 257, 4, 1, 100_000, 262, 3, 1, 1)
BMP_HEADER = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6)
ABSURD = {
    "PNG": png_data(100_000, 100_000),
    "PNG, 2³¹": png_data(2**31 - 1, 2**31 - 1),
    "PNG, half a gigabyte of pixels": png_data(20_000, 8_000),
    "GIF": GIF,
    "TIFF": b"II*\x00\x08\x00\x00\x00\x03\x00" + TIFF_TAGS + bytes(4),
    "BMP": b"BM" + BMP_HEADER,
    "PPM": b"P6 99999 99999 255\n",
}


@pytest.mark.parametrize("name", ABSURD)
def test_pictures_with_absurd_dimensions(name):
    with pytest.raises(BrokenItem):
        decode("image", ABSURD[name])


def test_png_text_that_inflates(tmp_path):
    bomb = b"zTXta\x00\x00" + zlib.compress(bytes(80 << 20), 9)
    chunk = struct.pack(">I", len(bomb) - 4) + bomb + struct.pack(">I", zlib.crc32(bomb))
    good = image_bytes("PNG")
    try:
        decode("image", good[:33] + chunk + good[33:])
    except BrokenItem:
        pass  # either way, the text is not kept


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_table_that_names_a_device_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "t.csv").write_text("label,image\na,/dev/zero\nb,pipe.png\n")
    samples = load_samples(str(tmp_path / "t.csv"))
    for payload in samples.items.take([0, 1]):
        with pytest.raises(BrokenItem, match="no plain file"):
            decode("image", payload)
    assert samples.items.fingerprint() == samples.items.fingerprint()


def test_two_members_of_one_name(tmp_path):
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(tmp_path / "d.npz", "w") as archive,
    ):
        for rows in (3, 3):
            archive.writestr("X.npy", npy_bytes(np.zeros((rows, 1))))
        archive.writestr("y.npy", npy_bytes(np.arange(3)))
    assert len(load_samples(str(tmp_path / "d.npz"))) == 3


@pytest.mark.parametrize("stated", [0, 2, 50])
def test_a_parquet_file_with_other_rows_than_it_states(tmp_path, monkeypatch, stated):
    from lsi.data.readers.table_files import ParquetFile

    class Lying(ParquetFile):
        def __init__(self, path):
            super().__init__(path)
            self.n_rows = stated  # as in a footer that was changed

    monkeypatch.setitem(tables_module.FORMATS, ".parquet", Lying)
    (tmp_path / "t.parquet").write_bytes(table_bytes("parquet", table()))
    with pytest.raises(InputError, match="rows"):
        load_samples(str(tmp_path / "t.parquet"))
