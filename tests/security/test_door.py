"""The door for bytes from outside: what hangs, leaves its folder or fills the memory is refused at once."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lsi.cli import main
from lsi.data import SourceOptions, load_samples, read_transition
from lsi.data.decode import BrokenItem, decode
from lsi.data.pairs import holds_pairs
from lsi.decisions.files import read_decisions
from lsi.errors import InputError, LsiError, OutputError
from lsi.report import check_report
from lsi.system import door

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
linux = pytest.mark.skipif(sys.platform != "linux", reason="pipes and devices of Linux")


def png(side=4, mode="RGB"):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def peak_of(code, folder, budget="256MiB"):
    """Run code in a process of its own; return its output and what it took beyond the imports, in MiB."""
    program = f"""
        import resource, os
        import lsi, pyarrow.parquet, pyarrow.csv, sklearn
        from lsi.data import load_samples, SourceOptions
        from lsi.errors import LsiError
        def taken():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        before = taken()
        try:
            {code}
            print("used")
        except LsiError as error:
            print("refused", error)
        print(taken() - before)
    """
    environment = {**os.environ, "LSI_MEMORY": budget, "LSI_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=folder,
        env=environment, timeout=60, check=True,
    )  # fmt: skip
    *said, mebibytes = done.stdout.strip().split("\n")
    return " ".join(said), int(mebibytes)


# The table of limits


def test_the_page_shows_the_limits_that_the_code_reads():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    shown = [row for row in rows if row[1] in {limit.text() for limit in door.LIMITS.values()}]
    assert shown == [(limit.what, limit.text(), limit.why) for limit in door.LIMITS.values()]


def test_the_budget_is_named_and_may_be_raised(monkeypatch):
    monkeypatch.setenv("LSI_MEMORY", "1GiB")
    assert door.budget() == 1 << 30
    door.charge(1 << 30, "x")
    with pytest.raises(InputError, match=r"x would take 1.1 GB, and 1.1 GB are allowed.*LSI_MEMORY=8GiB"):
        door.charge((1 << 30) + 1, "x")
    monkeypatch.setenv("LSI_MEMORY", "2GiB")
    door.charge((1 << 30) + 1, "x")
    monkeypatch.setenv("LSI_MEMORY", "lots")
    with pytest.raises(InputError, match="LSI_MEMORY='lots' is no size"):
        door.budget()


# Pipes, sockets, devices


@linux
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "/proc/self/mem", "/proc/kmsg"])
@pytest.mark.parametrize(
    "name", ["d.npz", "d.npy", "d.safetensors", "d.parquet", "d.arrow", "d.csv", "d.jsonl"]
)
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, name, kind):
    odd(tmp_path / name, kind)
    np.save(tmp_path / "d_labels.npy", np.arange(3))
    with pytest.raises(InputError, match=r"plain file|is a folder|holds no images"):
        load_samples(str(tmp_path / name))


def odd(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the names of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "device" or kind.startswith("/"):
        path.symlink_to("/dev/zero" if kind == "device" else kind)
    else:
        path.mkdir()


@linux
def test_pipes_in_every_other_place(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    for use in (
        lambda: load_samples(str(tmp_path / "x.npy"), labels=pipe),
        lambda: read_transition(pipe),
        lambda: holds_pairs(str(pipe)),
        lambda: read_decisions(pipe),
    ):
        with pytest.raises(InputError, match=r"plain file|not a file"):
            use()
    (tmp_path / "tables").mkdir()
    os.mkfifo(tmp_path / "tables" / "t.parquet")
    with pytest.raises(InputError, match="plain file"):
        load_samples(str(tmp_path / "tables"))
    with pytest.raises(InputError, match="plain file"):
        door.open_regular(pipe)
    with pytest.raises(OutputError, match="is not a report"):
        check_report(pipe)


@pytest.mark.parametrize("place", [0, 1, 2, 5, 30])
@pytest.mark.parametrize("value", [0, 0x15, 0xFF, 0x1C])
def test_headers_of_pages_that_are_damaged(tmp_path, place, value):
    pq.write_table(pa.table({"label": ["a", "b"] * 4, "x": np.arange(8.0)}), tmp_path / "d.parquet")
    content = bytearray((tmp_path / "d.parquet").read_bytes())
    content[4 + place] = value
    (tmp_path / "d.parquet").write_bytes(content)
    try:
        load_samples(str(tmp_path / "d.parquet"))
    except InputError as error:
        assert "d.parquet" in str(error)


@linux
def test_a_pipe_among_pictures_is_one_broken_item(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").write_bytes(png())
    os.mkfifo(tmp_path / "cats" / "b.png")
    samples = load_samples(str(tmp_path))
    with pytest.raises(BrokenItem, match="plain file"):
        decode("image", samples.items.take([1])[0])


# Links


def test_a_link_out_of_a_folder_of_pictures(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    folder = tmp_path / "d"
    for label in ("cats", "dogs"):
        (folder / label).mkdir(parents=True)
        (folder / label / "a.png").write_bytes(png())
    (folder / "dogs" / "same.png").symlink_to(folder / "cats" / "a.png")
    assert len(load_samples(str(folder))) == 3
    (folder / "cats" / "b.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match=r"b.png leads out of its folder.*cp -rL"):
        load_samples(str(folder))
    (tmp_path / "link").symlink_to(folder)
    (folder / "cats" / "b.png").unlink()
    assert len(load_samples(str(tmp_path / "link"))) == 3  # the folder itself may be one


def test_a_link_out_of_a_folder_of_tables(tmp_path):
    (tmp_path / "o.csv").write_text("label,x\na,1\nb,2\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "t.csv").symlink_to(tmp_path / "o.csv")
    with pytest.raises(InputError, match="leads out of its folder"):
        load_samples(str(tmp_path / "d"))


def test_the_hub_s_cache_is_made_of_links(tmp_path):
    home = tmp_path / "datasets--o--n"
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / "abc").write_text("label,x\na,1\nb,2\n")
    place = home / "snapshots" / "1234"
    place.mkdir(parents=True)
    (place / "t.csv").symlink_to("../../blobs/abc")
    assert len(load_samples(str(place))) == 2


# Bombs: what would fill the memory


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(descr, shape, content=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + content


FEATURES = npy("<f8", (3, 2), bytes(48))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (npy("|V0", (10**9,)), "type 'V'|type '.V0'|plain numbers"),
        (npy("<U0", (10**11,)), "plain numbers"),
        (npy("|S0", (10**9,)), "plain numbers"),
        (npy([("a", "<i8"), ("b", "<i8")], (3,), bytes(48)), "plain numbers"),
        (npy("<i8", (10**12,)), "shorter than its shape"),
        (npy("<i8", (10**12, 0)), "rows without any values"),
        (npy("|i1", (3 << 28,)), "shorter"),
    ],
)
def test_labels_of_no_size_or_of_more_than_there_is(tmp_path, labels, said):
    (tmp_path / "d.npz").write_bytes(zipped(X=FEATURES, y=labels))
    with pytest.raises(InputError, match=said):
        load_samples(str(tmp_path / "d.npz"))
    np.save(tmp_path / "n.npy", np.eye(3))
    (tmp_path / "n_labels.npy").write_bytes(labels)
    with pytest.raises(InputError, match=said):
        load_samples(str(tmp_path / "n.npy"))


def test_zeros_that_shrank_a_thousandfold(tmp_path, monkeypatch):
    (tmp_path / "d.npz").write_bytes(zipped(X=FEATURES, y=npy("|i1", (100 << 20,), bytes(100 << 20))))
    monkeypatch.setenv("LSI_MEMORY", "512MiB")
    with pytest.raises(InputError, match="would take .* are allowed"):
        load_samples(str(tmp_path / "d.npz"))


def small_bombs(folder):
    """Write tables of a few kilobytes that become gigabytes, or at least more than the tests allow."""
    options = {"compression": "zstd", "use_dictionary": False}
    table = pa.table({"label": ["a", "b"] * 6, "image": [bytes(8 << 20)] * 12})
    pq.write_table(table, folder / "pages.parquet", **options)
    first = "x" * (2 << 20)
    table = pa.table({"label": ["a", "b"] * 25, "text": [f"{first}{k}" for k in range(50)]})
    encodings = {"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"}
    pq.write_table(table, folder / "prefixes.parquet", **options, column_encoding=encodings)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int32)), ["x" * (1 << 20)])
    pq.write_table(pa.table({"label": column, "x": np.arange(1000.0)}), folder / "dictionary.parquet")
    rows = pa.table({"label": np.zeros(8_000_000, np.int8), "x": np.zeros(8_000_000, np.int8)})
    pq.write_table(rows, folder / "rows.parquet")
    vector = pa.ListArray.from_arrays(pa.array([0, 8_000_000, 8_000_000]), np.zeros(8_000_000, np.int8))
    pq.write_table(pa.table({"label": ["a", "b"], "x": vector}), folder / "vector.parquet")
    table = pa.table({"label": ["a", "b"], "image": [bytes(25 << 20)] * 2})
    pyarrow.feather.write_feather(table, folder / "batch.arrow", compression="zstd")
    return [path.name for path in sorted(folder.iterdir())]


@linux
def test_small_tables_that_become_gigabytes(tmp_path):
    names = small_bombs(tmp_path)
    assert all((tmp_path / name).stat().st_size < 200_000 for name in names)
    code = f"""
            said = []
            for name in {names}:
                try:
                    samples = load_samples(name)
                    said.append(("used", name, samples.items and len(samples.items.take(range(12)))))
                except LsiError as error:
                    said.append(("refused", name))
                    del error
            print(said)"""
    said, peak = peak_of(code.strip(), tmp_path, budget="64MiB")
    assert said.count("refused") == 5 and "('used', 'prefixes.parquet', 12)" in said, said
    assert peak < 150


def test_a_dictionary_in_an_arrow_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LSI_MEMORY", "256MiB")
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), ["x" * (1 << 20)])
    with pa.ipc.new_file(
        str(tmp_path / "d.arrow"), pa.schema([("label", column.type), ("x", pa.int64())])
    ) as file:
        file.write_table(pa.table({"label": column, "x": np.arange(2000)}))
    with pytest.raises(InputError, match="would take"):
        load_samples(str(tmp_path / "d.arrow"))


def test_one_long_label_among_many_short_ones_is_no_bomb(tmp_path):
    table = pa.table({"label": ["a", "b" * 100_000] + ["a"] * 5000, "x": np.arange(5002.0)})
    pq.write_table(table, tmp_path / "d.parquet")
    samples = load_samples(str(tmp_path / "d.parquet"))
    assert samples.labels.dtype == object
    assert samples.labels[1] == "b" * 100_000


def test_large_pictures_become_inputs_a_few_at_a_time(monkeypatch):
    from PIL import Image

    from lsi.data.items import ArrayItems
    from lsi.features.chunks import ChunkEncoder
    from lsi.features.encoders.raw import RawEncoder

    taken = []

    class Small(RawEncoder):
        def prepare(self, items):
            taken.append(len(items))
            return super().prepare([item.resize((4, 4)) for item in items])

    pictures = [png(side) for side in (1500, 1500, 1500, 4, 4, 1500, 4)]
    items = ArrayItems("image", pictures)
    (whole,) = ChunkEncoder("image", Small("image")).here(items, 0)
    assert taken == [7]
    monkeypatch.setenv("LSI_MEMORY", "1GiB")  # 16 MiB for a chunk: two pictures of 9 MB
    taken.clear()
    (parts,) = ChunkEncoder("image", Small("image")).here(items, 0)
    assert taken == [2, 4, 1]
    np.testing.assert_array_equal(whole.rows, parts.rows)
    picture = Image.open(io.BytesIO(pictures[0]))
    assert picture.size == (1500, 1500)
    monkeypatch.setenv("LSI_MEMORY", "64MiB")
    with pytest.raises(BrokenItem, match=r"decoded, it would take 22.5 MB, and 16.8 MB are allowed"):
        decode("image", pictures[0])


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "RGBX"]
)
def test_pictures_in_bands_are_the_same(mode, monkeypatch):
    from PIL import Image

    from lsi.data import decode as module

    values = np.random.default_rng(0).integers(0, 255, (37, 11, 4), dtype=np.uint8)
    if mode in ("I", "F"):
        picture = Image.fromarray(values[..., 0].astype({"I": np.int32, "F": np.float32}[mode]) * 3 - 100)
    elif mode == "I;16":
        picture = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    else:
        picture = (
            Image.fromarray(values, "RGBA")
            .convert("RGB" if mode == "P" else "RGBA")
            .convert({"RGBX": "RGB"}.get(mode, mode))
        )
    if mode == "P":
        picture.info["transparency"] = 3
    whole = np.asarray(module.to_rgb(picture))
    monkeypatch.setattr(module, "_BAND", 50)
    np.testing.assert_array_equal(np.asarray(module.to_rgb(picture)), whole)
    assert whole.shape == (37, 11, 3)


def test_a_recording_that_states_hours(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile", reason="needs the extra `encoders`")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((2_000_000, 2), np.float32), 44100, format="FLAC")
    assert len(buffer.getvalue()) < 100_000
    decode("audio", buffer.getvalue())
    monkeypatch.setenv("LSI_MEMORY", "128MiB")
    with pytest.raises(BrokenItem, match="decoded, it would take 64.0 MB"):
        decode("audio", buffer.getvalue())


def test_a_picture_in_a_format_that_starts_a_program():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
    with pytest.raises(BrokenItem, match="not a readable image"):
        decode("image", content)


def test_an_archive_whose_header_is_gigabytes(tmp_path):
    import gzip

    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    with gzip.open(tmp_path / "cifar-10-python.tar.gz", "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(120 << 20))
    options = SourceOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="a bomb"):
        load_samples("cifar10", options)


def test_lists_that_hold_one_another_are_no_labels(tmp_path):
    import pickle

    labels = [0] * 20
    for _ in range(12):
        labels = [labels] * 20
    (tmp_path / "cifar-10-batches-py").mkdir()
    batch = {b"data": np.zeros((20, 3072), np.uint8), b"labels": labels}
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InputError, match="labels"):
        load_samples("cifar10", SourceOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache"))


def test_a_table_of_more_columns_than_anyone_has(tmp_path):
    names = ",".join(f"c{k}" for k in range(200_001))
    (tmp_path / "d.csv").write_text(f"{names}\n{','.join('1' for _ in range(200_001))}\n")
    with pytest.raises(InputError, match="more than 100,000 columns"):
        load_samples(str(tmp_path / "d.csv"))
    lines = [json.dumps({"label": "a", f"c{k}": 1}) for k in range(3000)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    os.environ["LSI_MEMORY"] = "256MiB"
    try:
        with pytest.raises(InputError, match="would take"):
            load_samples(str(tmp_path / "d.jsonl"))
    finally:
        del os.environ["LSI_MEMORY"]


# Names


def test_a_name_that_is_not_utf8_goes_all_the_way(tmp_path, capsys):
    folder = os.fsencode(tmp_path) + b"/d\xff"
    for k, label in enumerate((b"caf\xe9", b"th\xe9")):
        os.makedirs(folder + b"/" + label)
        for n in range(4):
            with open(folder + b"/" + label + b"/p\xe9%d.png" % n, "wb") as file:
                file.write(makers_png(k * 100 + n))
    samples = load_samples(os.fsdecode(folder))
    assert samples.ids[0] == "caf\\udce9/p\\udce90.png"
    output, page = str(tmp_path / "s"), str(tmp_path / "r.html")
    words = [
        "compute",
        "-d",
        os.fsdecode(folder),
        "--encoder",
        "raw",
        "-o",
        output,
        "--report",
        page,
        "--quiet",
    ]
    assert main([*words, "--no-audit", "--cache-dir", str(tmp_path / "c")]) == 0, capsys.readouterr().err
    assert "caf\\\\udce9" in Path(page).read_text(encoding="utf-8")
    assert main(["show", output]) == 0
    assert main(["report", output, "-o", str(tmp_path / "again.html")]) == 0, capsys.readouterr().err


def makers_png(value):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (3, 3), value).save(buffer, "PNG")
    return buffer.getvalue()


def test_ids_and_labels_of_half_characters_are_written_out(tmp_path):
    import lsi

    X, y = np.random.default_rng(0).normal(size=(8, 2)), np.array(["a", "\ud800"] * 4, dtype=object)
    ids = [f"{k}\udcff" for k in range(8)]
    lsi.score(X, y, sample_id=ids, audit=False).save(tmp_path / "s")
    assert lsi.load(tmp_path / "s").to_frame()["sample_id"][0] == "0\\udcff"


# Smaller ones


def test_a_home_that_nobody_has(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LSI_CACHE", "~nobody-has-this-name")
    assert main(["cache", "ls"]) == 2
    assert "LSI_CACHE" in capsys.readouterr().err
    monkeypatch.delenv("LSI_CACHE")
    assert main(["compute", "-d", "~nobody-has-this-name/d.npz"]) == 2
    assert main(["compute", "-d", "digits", "--first", "50", "--report", "~nobody-has-this-name/r.html"]) == 2


@pytest.mark.parametrize(
    "name", ["hf:../x", "hf:/etc", "hf:.", "hf:~/d", "hf:a/../b", "hf:json", "hf:", "hf:a/b/c", "hf:a//b"]
)
def test_the_hub_takes_names_not_paths(name):
    with pytest.raises(InputError, match="no name of a dataset"):
        load_samples(name)


def test_a_folder_is_never_read_in_place_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="in the current folder"):
        load_samples("hf:owner/name")


def test_a_nested_manifest_at_the_output(tmp_path, capsys):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "manifest.json").write_text("[" * 100_000)
    assert main(["compute", "-d", "wine", "-o", str(tmp_path / "s"), "--overwrite"]) == 2
    assert "no scores" in capsys.readouterr().err


def test_runs_whose_ids_are_times_are_compared(tmp_path, capsys):
    import pandas as pd

    import lsi

    X, y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
    hours = pd.date_range("2024-01-01", periods=12, freq="h")
    zoned = hours.tz_localize("UTC")
    for name, ids in {
        "a": hours, "later": hours + pd.Timedelta(hours=2), "zoned": zoned,
        "elsewhere": zoned.tz_convert("Europe/Berlin"), "text": [f"i{k}" for k in range(12)],
    }.items():  # fmt: skip
        lsi.score(X, y, sample_id=ids, audit=False).save(tmp_path / name)
    words = ("times", "times", "times with a zone", "times with a zone", "text")
    names = dict(zip(("a", "later", "zoned", "elsewhere", "text"), words, strict=True))
    for old, one in names.items():
        for new, other in names.items():
            code = main(["compare", str(tmp_path / old), str(tmp_path / new), "--json"])
            assert code == (0 if one == other else 2)


def test_no_reader_opens_a_file_by_itself():
    """Only the door opens foreign files; the exceptions are named with what guards them."""
    source = Path(door.__file__).parents[1]
    opened = re.compile(
        r"\.read_(bytes|text)\(|\.open\(\"r|\bnp\.load\(|(?<![\w.])open\(|Image\.open|zipfile\.ZipFile\("
    )
    guarded = {
        "system/door.py", "system/npy.py",  # the door itself
        "system/machine.py", "system/files.py", "system/drafts.py",  # the system's own files; drafts
        "run/key.py", "report/assets.py", "__init__.py",  # files of this package
        "execution/checkpoint.py",  # opened after is_checkpoint; blocks carry their sum
        "data/corruption/human.py",  # a zip on what the door opened
        "data/decode.py",  # pictures from bytes that are there, counted by their header
        "cli/app.py",  # written, not read
            "cli/unscored.py",  # probabilities of one's own, mapped
        "decisions/files.py", "decisions/selection_file.py", "data/writers/arrays.py",  # written
        "features/growing.py", "features/cache.py",  # its own cache, opened for writing
        "data/archives/cifar.py",  # its own cache
        "data/archives/fetch.py",  # downloads
        "features/encoders/weights.py",  # a zip on what the door opened
    }  # fmt: skip
    found = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if opened.search(path.read_text(encoding="utf-8"))
    }
    assert found <= guarded


def test_errors_of_the_door_are_the_library_s_own(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path / ("x" * 300), Path("a\0b")):
        for use in (door.open_regular, door.require_regular, door.read_bytes):
            with pytest.raises(LsiError):
                use(path)
