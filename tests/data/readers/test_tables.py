import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.makers import encoded_image, pictures

from lsi.data import SourceOptions, load_samples
from lsi.data.readers.table_files import ROWS
from lsi.data.readers.tables import read_table
from lsi.errors import InputError

N = 2 * ROWS + 37


def write(path, columns):
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()) + "\n\n")
    elif path.name.startswith("stream"):
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=90)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=90)
    return path


FILES = ["t.parquet", "t.csv", "t.jsonl", "t.arrow", "stream.arrow"]


@pytest.fixture(params=FILES)
def path(request, tmp_path):
    return tmp_path / request.param


def options(**more):
    return SourceOptions(**more)


def test_texts_come_by_position_from_every_format(path):
    texts = [f"text, {k}\nwith a line" for k in range(N)]
    write(path, {"review": texts, "sentiment": [k % 2 for k in range(N)], "key": [f"k{k}" for k in range(N)]})
    samples = load_samples(path, options(text_column="review", label_column="sentiment", id_column="key"))
    assert (len(samples), samples.items.kind, samples.features) == (N, "text", None)
    assert samples.labels.dtype.kind == "i"
    assert samples.ids[3] == "k3"
    assert samples.items.take([N - 1, 0, 260, 0]) == [texts[N - 1], texts[0], texts[260], texts[0]]
    assert list(samples.items.iterate(np.arange(300, N))) == texts[300:]
    assert "row 7" in samples.items.describe(7)


def test_numeric_columns_are_features_as_they_are_without_preparation(path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    columns = {
        "a": X[:, 0],
        "b": X[:, 1],
        "note": ["x"] * N,
        "c": X[:, 2],
        "label": [f"l{k % 3}" for k in range(N)],
    }
    samples = load_samples(write(path, columns), prepare=False)
    np.testing.assert_allclose(samples.features, X, rtol=1e-12)
    assert samples.feature_names == ("a", "b", "c")
    assert samples.labels[:4].tolist() == ["l0", "l1", "l2", "l0"]
    assert "'note'" in samples.notes[0]
    chosen = load_samples(path, options(feature_columns=("c", "a"), prepare=False))
    np.testing.assert_allclose(chosen.features, X[:, [2, 0]], rtol=1e-12)


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.arrow"])
def test_a_column_of_vectors_is_features(tmp_path, name):
    X = np.arange(12.0).reshape(4, 3)
    path = write(tmp_path / name, {"embedding": X.tolist(), "label": [0, 1, 0, 1]})
    samples = load_samples(path)
    np.testing.assert_array_equal(samples.features, X)
    write(path, {"embedding": [[1.0], [1.0, 2.0]], "label": [0, 1]})
    with pytest.raises(InputError, match="different lengths"):
        load_samples(path)


def test_images_as_bytes_as_paths_and_both(tmp_path):
    pixels, codes = pictures(5)
    content = [encoded_image(p) for p in pixels]
    (tmp_path / "img").mkdir()
    names = [f"img/{k}.png" for k in range(5)]
    for name, one in zip(names, content, strict=True):
        (tmp_path / name).write_bytes(one)
    both = [{"bytes": one, "path": None} for one in content[:3]]
    both += [{"bytes": None, "path": name} for name in names[3:]]
    path = write(tmp_path / "t.parquet", {"image": both, "raw": content, "file": names, "label": codes})
    for given in (None, "image", "raw", "file"):
        samples = load_samples(path, options(image_column=given))
        np.testing.assert_array_equal(samples.images[4], pixels[4])
        assert samples.items.kind == "image"


def test_parts_of_one_table_lie_in_a_folder(tmp_path):
    for k in range(3):
        write(tmp_path / f"part-{k}.parquet", {"text": [f"{k}.{j}" for j in range(4)], "label": [0, 1, 0, 1]})
    samples = load_samples(tmp_path)
    assert samples.items.take([0, 5, 11]) == ["0.0", "1.1", "2.3"]
    assert samples.items.describe(5).startswith("row 5")
    write(tmp_path / "other.parquet", {"x": [1.0], "label": [0]})
    with pytest.raises(InputError, match="different columns"):
        load_samples(tmp_path)


def test_class_names_of_hugging_face_are_shown(tmp_path):
    info = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pa.table({"x": [1.0, 2.0], "label": [0, 1]}).replace_schema_metadata(
        {"huggingface": json.dumps(info)}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert load_samples(tmp_path / "t.parquet").class_name(1) == "yes"


def test_missing_labels_keep_whole_numbers_whole(path):
    write(path, {"x": [1.0, 2.0, 3.0], "label": [0, None, 2]})
    labels = load_samples(path).labels
    assert [None if value is None or value != value else value for value in labels.tolist()] == [0, None, 2]


def test_a_csv_whose_first_rows_mislead_is_read_as_text(tmp_path):
    path = tmp_path / "t.csv"
    rows = ["code,x,label"] + [f"{k},{k % 7},{k % 2}" for k in range(200_000)] + ["A7,2.5,unsure"]
    path.write_text("\n".join(rows))
    samples = load_samples(path)
    assert samples.labels[-1] == "unsure"
    assert samples.feature_names == ("x",)
    assert "'code' (looks like an id" in samples.notes[1]


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"x": [1.0], "lable": [0]}, {"label_column": "label"}, r"Did you mean 'lable'"),
        ({"x": [1.0], "z": [0]}, {}, r"--label-column. It has 'x', 'z'"),
        ({"x": ["a"], "label": [0]}, {"prepare": False}, r"no numeric columns.*--text-column"),
        ({"x": ["a"], "label": [0]}, {}, r"no column can be learnt from: 'x' \(constant\).*--text-column"),
        ({"x": ["a"], "label": [0]}, {"text_column": "txt"}, r"no column 'txt' \(--text-column\)"),
        ({"x": ["a"], "label": [0]}, {"feature_columns": ("x",), "prepare": False}, "not numbers"),
        ({"x": ["a"], "label": [0]}, {"text_column": "x", "image_column": "x"}, "name one of"),
        ({"x": pa.array([], pa.float64()), "label": pa.array([], pa.int64())}, {}, "no rows"),
    ],
)
def test_wrong_columns_name_what_is_there(tmp_path, columns, given, message):
    with pytest.raises(InputError, match=message):
        load_samples(write(tmp_path / "t.parquet", columns), options(**given))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff not a table \x80"])
def test_broken_tables_are_input_errors(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        load_samples(tmp_path / name)


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"x": 1, "label": 0}\n{"x": \n')
    with pytest.raises(InputError, match="line 2"):
        load_samples(tmp_path / "t.jsonl")


def test_content_makes_the_fingerprint_not_the_file(tmp_path):
    columns = {"text": ["a", "b", "c"], "label": [0, 1, 0]}
    prints = {load_samples(write(tmp_path / name, columns)).items.fingerprint() for name in FILES}
    assert len(prints) == 1
    other = write(tmp_path / "o.csv", {"text": ["a", "bc", ""], "label": [0, 1, 0]})
    assert load_samples(other).items.fingerprint() not in prints


def test_large_features_go_to_a_mapped_file(tmp_path):
    path = write(tmp_path / "t.parquet", {"x": np.arange(50.0), "label": np.arange(50) % 2})
    features = read_table(path, options(prepare=False), in_memory=100).features
    assert isinstance(features, np.memmap)
    np.testing.assert_array_equal(features[:, 0], np.arange(50))
    prepared = read_table(path, options(), in_memory=100)
    assert isinstance(prepared.features, np.memmap)
    np.testing.assert_allclose(prepared.features, load_samples(path).features, rtol=1e-6)


def test_reading_holds_little_of_a_large_table(tmp_path):
    """The memory that Arrow holds while a table passes by does not depend on the table's length."""
    peaks = []
    for rows in (400, 4000):
        schema = pa.schema({"text": pa.string(), "label": pa.int64()})
        path = tmp_path / f"{rows}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for start in range(0, rows, 200):
                text = [f"{k} " + "x" * 5000 for k in range(start, start + 200)]
                writer.write_table(pa.table({"text": text, "label": [0, 1] * 100}, schema=schema))
        items = load_samples(path).items
        peak = 0
        for _ in items.iterate(np.arange(rows)):
            peak = max(peak, pa.total_allocated_bytes())
        peaks.append(peak)
    assert peaks[1] < 2 * peaks[0] + (1 << 20)


def test_hub_datasets_are_read_where_the_extra_is_installed(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra `datasets`")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    made = datasets.Dataset.from_dict(
        {"text": [f"t{k}" for k in range(N)], "label": [0, 1] * (N // 2) + [0]}, features
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or made)
    samples = load_samples("hf:owner/name:small")
    assert asked == [(("owner/name", "small"), {"split": "train"})]
    assert samples.items.take([N - 1, 300]) == [f"t{N - 1}", "t300"]
    assert samples.class_name(1) == "yes"


def test_without_the_extra_the_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"constraints.txt '.\[datasets\]'"):
        load_samples("hf:owner/name")
