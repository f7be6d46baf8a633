"""Cleaned datasets: what is kept is exactly what it was, in the format that it came in."""

import csv
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lsi.data import SourceOptions, load_samples
from lsi.data.writers.dataset import Changes, write_cleaned
from lsi.errors import InputError, OutputError
from lsi.system.files import new_file, new_folder

KEEP = np.array([True, False, True, True, False, True])
LABELS = {2: "new class"}


def clean(source, output, keep=KEEP, labels=LABELS, link=False, labels_file=None, **options):
    options = SourceOptions(labels=labels_file, **options)
    write_cleaned(load_samples(str(source), options), Changes(keep, labels), output, options, link)
    return output


def frame():
    return pd.DataFrame(
        {
            "id": [f"s{i}" for i in range(6)],
            "x": [0.1, 1e-20, 3.0, 4.0, 5.0, np.pi],
            "text": ["plain", 'quo"ted', "line\nbreak", "=1+1", "", "ü,;"],
            "label": list("abcabc"),
        }
    )


def expected():
    rows = frame()
    rows.loc[2, "label"] = "new class"
    return rows[KEEP].reset_index(drop=True)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "feather"])
def test_tables_keep_every_cell(tmp_path, suffix):
    source, out = tmp_path / f"data.{suffix}", tmp_path / f"out.{suffix}"
    writers = {"parquet": frame().to_parquet, "csv": frame().to_csv, "feather": frame().to_feather}
    if suffix == "jsonl":
        frame().to_json(source, orient="records", lines=True, double_precision=15)
    else:
        writers[suffix](source, **({"index": False} if suffix == "csv" else {}))
    clean(source, out, id_column="id", text_column="text")
    readers = {"parquet": pd.read_parquet, "csv": pd.read_csv, "feather": pd.read_feather}
    found = pd.read_json(out, lines=True) if suffix == "jsonl" else readers[suffix](out)
    if suffix == "csv":
        found["text"] = found["text"].fillna("")
    pd.testing.assert_frame_equal(found, expected(), check_dtype=False, check_exact=suffix != "jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, out.name])


def test_csv_keeps_the_text_of_numbers_and_its_line_ends(tmp_path):
    source = tmp_path / "data.csv"
    source.write_bytes(b'x,label\r\n1.50,a\r\n\r\n007,b\r\n"1e-3",a\r\n')
    out = clean(source, tmp_path / "out.csv", np.array([True, True, True]), {1: "c"})
    assert out.read_bytes() == b"x,label\r\n1.50,a\r\n007,c\r\n1e-3,a\r\n"


def test_parquet_keeps_schema_and_metadata(tmp_path):
    schema = pa.schema(
        [pa.field("label", pa.dictionary(pa.int8(), pa.string())), pa.field("x", pa.float16())],
        metadata={b"mine": b"yes"},
    )
    labels = pa.array(list("abcabc")).dictionary_encode().cast(schema.field("label").type)
    table = pa.table([labels, pa.array(np.arange(6, dtype=np.float16))], schema=schema)
    pq.write_table(table, tmp_path / "data.parquet", compression="zstd")
    out = clean(tmp_path / "data.parquet", tmp_path / "out.parquet", feature_columns=("x",))
    found = pq.read_table(out)
    assert found.schema.equals(schema, check_metadata=False)
    assert found.schema.metadata[b"mine"] == b"yes"
    assert found["label"].to_pylist() == ["a", "new class", "a", "c"]
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_folder_of_tables_stays_one(tmp_path):
    (tmp_path / "data").mkdir()
    for part in range(2):
        frame()[3 * part : 3 * part + 3].to_parquet(tmp_path / "data" / f"part{part}.parquet")
    out = clean(tmp_path / "data", tmp_path / "out", id_column="id", text_column="text")
    assert sorted(path.name for path in out.iterdir()) == ["part0.parquet", "part1.parquet"]
    found = pd.concat([pd.read_parquet(out / f"part{part}.parquet") for part in range(2)], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected())


def test_npz_keeps_other_arrays_types_and_ids(tmp_path):
    X = np.arange(12, dtype=np.float16).reshape(6, 2)
    y = np.array(list("abcabc"))
    np.savez(tmp_path / "data.npz", X=X, y=y, row=np.arange(6), other=np.arange(5), scalar=np.float32(3))
    with np.load(clean(tmp_path / "data.npz", tmp_path / "out.npz")) as found:
        np.testing.assert_array_equal(found["X"], X[KEEP])
        assert found["X"].dtype == np.float16
        assert found["y"].tolist() == ["a", "new class", "a", "c"]
        np.testing.assert_array_equal(found["row"], np.flatnonzero(KEEP))
        np.testing.assert_array_equal(found["other"], np.arange(5))
        assert found["scalar"] == 3
        np.testing.assert_array_equal(found["ids"], np.flatnonzero(KEEP))  # row numbers were the ids


def test_integer_labels_stay_integers(tmp_path):
    np.savez(tmp_path / "data.npz", X=np.ones((6, 1)), y=np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8))
    with np.load(clean(tmp_path / "data.npz", tmp_path / "out.npz", labels={0: 2})) as found:
        assert found["y"].dtype == np.uint8
        assert found["y"].tolist() == [2, 2, 0, 2]
    for label in ("cat", 300):
        with pytest.raises(InputError, match="does not fit"):
            clean(tmp_path / "data.npz", tmp_path / "bad.npz", labels={0: label})
    assert not (tmp_path / "bad.npz").exists()


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_npy_with_its_labels(tmp_path, suffix):
    np.save(tmp_path / "data.npy", np.arange(12.0).reshape(6, 2))
    labels = tmp_path / f"data_labels{suffix}"
    if suffix == ".npy":
        np.save(labels, np.array(list("abcabc")))
    else:
        labels.write_text("a\nb\nc\na\nb\nc\n")
    out = clean(tmp_path / "data.npy", tmp_path / "out.npy", labels_file=labels)
    np.testing.assert_array_equal(np.load(out), np.arange(12.0).reshape(6, 2)[KEEP])
    again = load_samples(str(out), SourceOptions(labels=tmp_path / f"out_labels{suffix}"))
    assert again.labels.tolist() == ["a", "new class", "a", "c"]


def test_safetensors(tmp_path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {"X": torch.arange(6, dtype=torch.bfloat16)[:, None], "y": torch.tensor([0, 1, 2, 0, 1, 2])}
    save_file(tensors, tmp_path / "data.safetensors", {"mine": "yes"})
    out = clean(tmp_path / "data.safetensors", tmp_path / "out.safetensors", labels={0: 1})
    with safe_open(out, framework="pt") as found:
        assert found.metadata() == {"mine": "yes"}
        assert found.get_tensor("X").dtype == torch.bfloat16
        assert found.get_tensor("y").tolist() == [1, 2, 0, 2]


@pytest.fixture
def pictures(tmp_path):
    for row, label in enumerate("aabbcc"):
        place = tmp_path / "data" / label / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (row, 0, 0)).save(place)
    return tmp_path / "data"


@pytest.mark.parametrize("link", [False, True])
def test_image_folders(pictures, tmp_path, link):
    out = clean(pictures, tmp_path / "out", labels={2: "c"}, link=link)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == [
        "a/0.png", "b/3.png", "c/2.png", "c/5.png",
    ]  # fmt: skip
    assert (out / "c/2.png").read_bytes() == (pictures / "b/2.png").read_bytes()
    assert os.path.samefile(out / "c/2.png", pictures / "b/2.png") == link


@pytest.mark.parametrize("label", ["../up", "", ".hidden", "a\\b"])
def test_a_label_cannot_lead_out_of_the_folder(pictures, tmp_path, label):
    with pytest.raises(InputError, match="name of a folder"):
        clean(pictures, tmp_path / "out", labels={0: label})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_two_images_never_get_one_name(pictures, tmp_path):
    (pictures / "c" / "0.png").write_bytes((pictures / "c" / "4.png").read_bytes())
    with pytest.raises(InputError, match="would both become"):
        clean(pictures, tmp_path / "out", np.ones(7, bool), {0: "c"})


def test_nothing_is_overwritten_and_the_type_stays(tmp_path):
    source = tmp_path / "data.csv"
    frame().to_csv(source, index=False)
    (tmp_path / "there.csv").write_text("precious")
    with pytest.raises(OutputError, match="never overwritten"):
        clean(source, tmp_path / "there.csv", text_column="text")
    assert (tmp_path / "there.csv").read_text() == "precious"
    with pytest.raises(InputError, match="suffix '.csv'"):
        clean(source, tmp_path / "out.parquet", text_column="text")
    with pytest.raises(InputError, match="no sample would be left"):
        clean(source, tmp_path / "out.csv", np.zeros(6, bool), text_column="text")
    with pytest.raises(InputError, match="known by name"):
        clean("wine", tmp_path / "out.npz", np.ones(178, bool), {})


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), new_file(tmp_path / "x.txt") as staging:
        staging.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), new_folder(tmp_path / "y") as staging:
        (staging / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(OutputError, match="never overwritten"), new_file(tmp_path / "x") as staging:
        staging.write_text("mine")
        (tmp_path / "x").write_text("theirs")
    assert (tmp_path / "x").read_text() == "theirs"
    with pytest.raises(OutputError, match="never overwritten"), new_folder(tmp_path / "y") as staging:
        (tmp_path / "y").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_csv_rows_that_readers_count_differently_are_refused(tmp_path):
    from lsi.data.writers.tables import write_table_file

    source = tmp_path / "data.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["x", "label"], [1, "a"], [2, "b"]])
    for count in (1, 3):
        with pytest.raises(InputError, match="quotes are broken"):
            write_table_file(source, tmp_path / f"{count}.csv", None, np.ones(count, bool), {})
