"""Inputs that once ended in an error without a cure; those about safety are in tests/security."""

import gzip
import json
import shutil
import struct
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.fuzzing.loaders import X, Y, items_table, npy_bytes, table_bytes, zip_bytes

import lsi
from lsi.cli import main
from lsi.data import SourceOptions, load_samples, parse_subset, read_transition
from lsi.data.corruption.human import human_labels
from lsi.data.corruption.items import corrupt_data
from lsi.data.pairs import holds_pairs
from lsi.errors import InputError
from lsi.features.cache import FeatureCache
from lsi.report.html import write_report
from lsi.report.summary import summarize
from lsi.report.wording import correlation
from lsi.results.schema import table_fault

OPEN_BRACKET = npy_bytes(X).replace(b"(6, 3), }", b"(6, 3,  }")


def refused(path, content, options=None):
    path.write_bytes(content)
    with pytest.raises(InputError):
        load_samples(str(path), options)


@pytest.mark.parametrize("key", ["X.npy", "y.npy"])
def test_an_open_bracket_in_the_header_of_an_array(tmp_path, key):
    members = {"X.npy": npy_bytes(X), "y.npy": npy_bytes(Y)}
    refused(tmp_path / "d.npz", zip_bytes({**members, key: OPEN_BRACKET}))


def test_an_open_bracket_in_every_other_npy(tmp_path):
    np.save(tmp_path / "d_labels.npy", Y)
    refused(tmp_path / "d.npy", OPEN_BRACKET)
    (tmp_path / "t.npy").write_bytes(OPEN_BRACKET)
    with pytest.raises(InputError):
        read_transition(tmp_path / "t.npy")
    with pytest.raises(InputError):
        from lsi.decisions.files import read_decisions

        read_decisions(tmp_path / "t.npy", "keep")


def test_a_compression_that_nobody_knows(tmp_path):
    content = bytearray(zip_bytes({"X.npy": npy_bytes(X), "y.npy": npy_bytes(Y)}))
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 77
    refused(tmp_path / "d.npz", content)


def test_labels_that_are_no_text(tmp_path):
    np.save(tmp_path / "d.npy", X)
    (tmp_path / "labels.txt").write_bytes(b"a\n\xaa\n")
    with pytest.raises(InputError, match="UTF-8"):
        load_samples(str(tmp_path / "d.npy"), SourceOptions(labels=tmp_path / "labels.txt"))


def test_a_zip_with_a_broken_directory(tmp_path):
    content = zip_bytes({"left.npy": npy_bytes(X), "right.npy": npy_bytes(X)})
    (tmp_path / "d.npz").write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x00"))
    with pytest.raises(InputError):
        holds_pairs(str(tmp_path / "d.npz"))


def test_column_names_that_are_no_text(tmp_path):
    refused(tmp_path / "d.csv", b"label,\xff\na,1\nb,2\n")
    content = table_bytes("arrow", items_table())
    refused(tmp_path / "d.arrow", content.replace(b"bytes\x00", b"byt\xff\xff\x00"))


def test_two_columns_of_one_name(tmp_path):
    refused(tmp_path / "d.csv", b"label,x,x\na,1,2\nb,2,3\n")


def test_integers_beyond_the_digits_of_a_float_are_features_all_the_same(tmp_path):
    table = pa.table({"label": ["a", "b", "a"], "x": pa.array([2**63 - 1, -(2**63), 1], pa.int64())})
    (tmp_path / "d.arrow").write_bytes(table_bytes("arrow", table))
    np.testing.assert_allclose(
        load_samples(str(tmp_path / "d.arrow"), prepare=False).features[:, 0], [2.0**63, -(2.0**63), 1]
    )
    assert np.abs(load_samples(str(tmp_path / "d.arrow")).features).max() < 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"shape": 7}'),
        ("manifest.json", '{"shape": []}'),
        ("manifest.json", '{"shape": [2, 3], "broken": []}'),
        ("features.npy", OPEN_BRACKET.decode("latin1")),
        ("progress.json", "{}"),
        ("progress.json", '{"total": 4, "rows": "x", "dim": 3, "broken": {}}'),
        ("progress.json", '{"total": 4, "rows": 2, "dim": 3, "broken": []}'),
        ("progress.json", '{"total": 4, "rows": 2, "dim": 3, "broken": {"x": "y"}}'),
        ("progress.json", '{"total": 4, "rows": 2, "dim": null, "broken": {}}'),
    ],
)
def test_a_damaged_entry_of_the_cache_is_made_again(tmp_path, name, content):
    cache, key = FeatureCache(tmp_path), "ab" * 20
    with cache.open(key) as entry:
        for half in (False, True):
            growing = entry.resume(4)
            growing.append(X[2:4] if half else X[:2], {})
            growing.finish({"encoder": "e"}) if half else growing.keep()
            growing.close()
            if half == (name != "progress.json"):
                break
        (entry.folder / name).write_text(content, encoding="latin1")
        assert entry.read() is None or name == "progress.json"
        cache.entries()
        growing = entry.resume(4)
        growing.append(X[growing.rows : 4], {})
        growing.finish({"encoder": "e"})
        features, manifest = entry.read()
    np.testing.assert_array_equal(features, X[:4])
    assert manifest["broken"] == {}


@pytest.mark.parametrize("text", ["9" * 30, "9" * 30 + ":", "-" + "9" * 30])
def test_positions_of_thirty_digits(text):
    with pytest.raises(InputError):
        parse_subset(text, np.array([0, 1, 0]), 0)


def test_human_labels_for_classes_of_text(tmp_path):
    with pytest.raises(InputError, match="holds no CIFAR"):
        human_labels(Y, "aggregate", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["compute", "-d", "a" * 300],
        ["compute", "-d", "digits", "--report", "a" * 300],
        ["apply", "x" * 300, "digits", "-o", "out.npz"],
        ["show", "a\0b"],
        ["compute", "-d", "digits", "--seed", "9" * 30],
        ["compute", "-d", "digits", "--device", "meta"],
    ],
)
def test_arguments_that_no_system_takes(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_line_of_json_with_a_huge_number(tmp_path):
    line = json.dumps({"label": "a", "x": 10**40})
    refused(tmp_path / "d.jsonl", (line + "\n").encode() * 4)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_that_promises_gigabytes_makes_no_room_for_them(tmp_path, monkeypatch, suffix):
    header = struct.pack(">4I", 0x803, 1 << 16, 1 << 8, 1 << 8) + bytes(100)
    content = gzip.compress(header) if suffix else header
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(content)
    monkeypatch.setenv("LSI_MEMORY", "1TiB")
    tracemalloc.start()
    with pytest.raises(InputError, match="shorter or longer"):
        load_samples("fashion_mnist", SourceOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_page_with_features_that_are_not_finite(tmp_path, capsys):
    rng = np.random.default_rng(0)
    good, y = rng.normal(size=(12, 2)), np.arange(12) % 2
    np.savez(tmp_path / "good.npz", X=good, y=y)
    np.savez(tmp_path / "nan.npz", X=good * np.nan, y=y)
    folder = str(tmp_path / "s")
    assert main(["compute", "-d", str(tmp_path / "good.npz"), "-o", folder, "--no-audit", "--quiet"]) == 0
    words = ["report", folder, "-d", str(tmp_path / "nan.npz"), "-o", str(tmp_path / "r.html")]
    assert main(words) == 2
    assert "Give the data of that run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["progress.json", "other"])
def test_a_link_to_itself_in_the_cache(tmp_path, name):
    entry = tmp_path / "features" / ("ab" * 20)
    entry.mkdir(parents=True)
    (entry / name).symlink_to(name)
    assert len(FeatureCache(tmp_path).entries()) == 1


@pytest.mark.parametrize("change", [0x01, 0x06, 0x80])
def test_every_byte_of_a_parquet_footer(tmp_path, change):
    """Asking pyarrow for a column chunk whose description is damaged ends the interpreter."""
    content = table_bytes("parquet", pa.table({"label": ["a", "b", "a"], "x": [0.5, 1.5, 2.5]}))
    size = int.from_bytes(content[-8:-4], "little")
    for place in range(len(content) - 8 - size, len(content) - 8):
        changed = bytearray(content)
        changed[place] ^= change
        (tmp_path / "d.parquet").write_bytes(changed)
        try:
            assert len(load_samples(str(tmp_path / "d.parquet"))) > 0
        except InputError as error:
            assert "d.parquet" in str(error)


def test_a_parquet_file_with_less_than_no_rows(tmp_path):
    """The footer states them as the third field, a number in zigzag form, behind the schema."""
    content = table_bytes("parquet", pa.table({"label": ["a", "b", "a"], "x": [0.5, 1.5, 2.5]}))
    size = int.from_bytes(content[-8:-4], "little")
    place = content.index(b"\x16\x06\x19", len(content) - 8 - size) + 1  # i64 3, then the row groups
    (tmp_path / "d.parquet").write_bytes(content[:place] + b"\x05" + content[place + 1 :])
    with pytest.raises(InputError, match="it states -3 rows"):
        load_samples(str(tmp_path / "d.parquet"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_a_sparse_safetensors_file_of_more_than_can_be_mapped(tmp_path):
    import resource

    import psutil

    size = 1 << 38
    tensors = {"X": ("F32", [4, 2], [size, size + 32]), "y": ("U8", [size], [0, size])}
    keys = ("dtype", "shape", "data_offsets")
    described = {name: dict(zip(keys, tensor, strict=True)) for name, tensor in tensors.items()}
    header = json.dumps(described).encode()
    with (tmp_path / "d.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size + 32)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 32), before[1]))
    try:
        with pytest.raises(InputError, match="not a readable .safetensors file"):
            load_samples(str(tmp_path / "d.safetensors"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_an_idx_file_of_wide_pictures_without_pixels(tmp_path):
    header = struct.pack(">4I", 0x803, 6, 0x7F000000, 0)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 6) + bytes(6))
    with pytest.raises(InputError, match="without any pixels"):
        load_samples("fashion_mnist", SourceOptions(data_dir=tmp_path, cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize("settings", [{"lr": 1e300}, {"optimizer": lsi.SAM(1e-3), "lr": 4e38}])
def test_a_learning_rate_that_single_precision_cannot_hold(settings):
    with pytest.raises(InputError, match="lr must be a positive number of single precision"):
        lsi.Retrain(**settings)
    with pytest.raises(InputError, match="at most 3.4e"):
        lsi.SAM(1e300)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_a_seed_that_is_none(seed):
    X, y = np.random.default_rng(0).standard_normal((30, 3)), np.arange(30) % 2
    with pytest.raises(InputError, match="seed must be an integer from 0 on"):
        lsi.score(X, y, seed=seed)  # the audit would have failed at it, after all the work
    with pytest.raises(InputError, match="seed must be an integer from 0 on"):
        lsi.score(X, y, audit=False).select(0.5, seed=seed)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    X, y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60) % 3
    folder = tmp_path_factory.mktemp("scores") / "s"
    lsi.score(X, y, audit=False, label_noise=True).save(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"data": {"n_samples": None, "n_features": 3}},
        {"data": {"n_samples": 60, "n_features": 0}},
        {"timings": {"fit": None}},
        {"config": None},
    ],
)
def test_a_manifest_with_holes_is_refused_when_it_is_read(saved, tmp_path, change):
    shutil.copytree(saved, tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(InputError, match="manifest"):
        lsi.load(tmp_path / "s")


@pytest.mark.parametrize("column", ["suggested_label", "wrong_probability"])
def test_an_estimate_without_its_columns_is_refused(saved, column):
    scores = lsi.load(saved)
    assert table_fault(scores.to_frame(), scores.manifest) is None
    fault = table_fault(scores.to_frame().drop(columns=column), scores.manifest)
    assert fault is not None and column in fault


def test_a_source_and_a_corruption_that_are_null(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "source": None, "corruption": None}))
    write_report(tmp_path / "r.html", lsi.load(tmp_path / "s"))
    assert (tmp_path / "r.html").stat().st_size > 0


def test_an_infinite_rank_correlation_is_said_to_be_unknown():
    assert correlation(float("inf")) == "unknown"


@pytest.mark.parametrize("values", [[True, False], pd.array([1, None], dtype="Int64")])
def test_numbers_of_a_table_have_a_type_of_numpy(values):
    """The sign of a truth value cannot be turned: sorting by `wrong_probability` failed with a TypeError."""
    table = pd.DataFrame({"wrong_probability": values})
    assert "'wrong_probability' holds no numbers" in table_fault(table, {})


def test_texts_are_not_added_without_end(tmp_path):
    """A strength of 1e308 failed with an OverflowError, and one of 1e6 filled the memory."""
    pd.DataFrame({"text": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    samples = lsi.load_samples(tmp_path / "t.csv", text_column="text")
    for strength in (1e308, 1e6):
        with pytest.raises(InputError, match="at most 100"):
            corrupt_data(samples, samples.labels, strength, ())


def test_a_time_beyond_python_is_no_likely_label(tmp_path):
    """Durations that Python cannot hold failed where the likely columns of labels are named."""
    long = pa.array([2**62, 2**62, 1, 1], pa.duration("s"))
    pyarrow.parquet.write_table(pa.table({"took": long, "kind": [0, 1, 0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"Likely: 'kind' \(2 values\)"):
        lsi.load_samples(tmp_path / "t.parquet")


@pytest.mark.parametrize("changed", [{"task": "contrastive"}, {"classes": None}, {"classes": []}])
def test_an_estimate_of_label_noise_belongs_to_classes(changed, saved, tmp_path):
    """Pairs have none: there its matrix met no names, and failed in pandas."""
    shutil.copytree(saved, tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | changed))
    with pytest.raises(InputError, match="'label_noise' is incomplete, or belongs to other classes"):
        lsi.load(tmp_path / "s")


def test_a_check_of_features_whose_probe_is_a_word(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.json"
    told = json.loads(manifest.read_text())
    told["config"]["probe"] = "classification"
    manifest.write_text(json.dumps(told))
    assert summarize(lsi.load(tmp_path / "s"))["feature_check"]["linear"] is False
