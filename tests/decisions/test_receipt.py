"""Receipts: whatever was changed, the cleaned dataset and its receipt give back what there was."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lsi.data import SourceOptions, load_samples
from lsi.data.writers.dataset import Changes, write_cleaned
from lsi.decisions.receipt import read_receipt, receipt_of, undo, write_receipt
from lsi.errors import InputError, OutputError

N = 40
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(N, 3)).astype(np.float32)
LABELS = np.array(list("abcd"))[np.arange(N) % 4]
COLUMNS = {"id_column": "id", "label_column": "label"}


def frame():
    texts = ["plain", 'quo"ted', "line\nbreak", "=1+1", "", "ü,;", " spaced "]
    columns = {f"x{k}": X[:, k].astype(float) for k in range(3)}
    return pd.DataFrame(
        {
            "id": [f"s{k}" for k in range(N)],
            **columns,
            "note": [texts[k % 7] for k in range(N)],
            "label": LABELS,
        }
    )


def npz(path, **more):
    np.savez(path, X=X, y=LABELS, other=np.arange(5), third=np.arange(N * 2).reshape(N, 2), **more)


def folder_of_tables(path):
    path.mkdir()
    frame()[:15].to_csv(path / "a.csv", index=False)
    frame()[15:].to_csv(path / "b.csv", index=False)


def images(path):
    for k in range(N):
        (path / LABELS[k] / "deep").mkdir(parents=True, exist_ok=True)
        pixels = GENERATOR.integers(0, 256, (2, 2, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path / LABELS[k] / "deep" / f"{k}.png")


def arrow_stream(path):
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def dictionaries(path):
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    place = table.schema.get_field_index("label")
    table = table.set_column(place, "label", table.column("label").dictionary_encode())
    pq.write_table(table, path, row_group_size=11, compression="zstd")


def npy(path):
    np.save(path, X)
    np.save(path.with_name(f"{path.stem}_labels.npy"), LABELS)


DATASETS = {
    "npz": ("d.npz", npz, {}),
    "npz with ids": ("d.npz", lambda path: npz(path, ids=np.arange(N) + 7), {}),
    "npy": ("d.npy", npy, {}),
    "safetensors": (
        "d.safetensors",
        lambda path: save_file(
            {"X": torch.from_numpy(X), "y": torch.arange(N) % 4, "w": torch.ones(3)}, path, {"k": "v"}
        ),
        {},
    ),
    "csv": ("d.csv", lambda path: frame().to_csv(path, index=False), COLUMNS),
    "csv, other line ends": (
        "d.csv", lambda path: frame().to_csv(path, index=False, lineterminator="\r\n"), COLUMNS,
    ),
    "json lines": ("d.jsonl", lambda path: frame().to_json(path, orient="records", lines=True), COLUMNS),
    "parquet": ("d.parquet", lambda path: frame().to_parquet(path), COLUMNS),
    "parquet of dictionaries": ("d.parquet", dictionaries, COLUMNS),
    "feather": ("d.feather", lambda path: frame().to_feather(path), COLUMNS),
    "arrow": ("d.arrow", arrow_stream, COLUMNS),
    "folder of tables": ("d", folder_of_tables, COLUMNS),
    "folder of images": ("d", images, {}),
}  # fmt: skip


def clean(source, output, keep, labels, **columns):
    options = SourceOptions(**columns)
    samples, changes = load_samples(source, options), Changes(keep, labels)
    seal = lambda drafts: write_receipt(samples, changes, output, options, drafts)  # noqa: E731
    write_cleaned(samples, changes, output, options, False, seal)
    return samples


def changed_at_random(seed, kind):
    """Return what is kept, and new labels for some of it: nothing, little, most."""
    generator = np.random.default_rng(seed)
    keep = generator.random(N) < generator.choice([0.1, 0.5, 0.95, 1.0])
    keep[generator.integers(N)] = True
    new = [0, 1, 2, 3] if kind == "safetensors" else ["a", "b", "a longer class"]
    rows = generator.permutation(N)[: generator.integers(0, 6)].tolist()
    return keep, {row: new[generator.integers(len(new))] for row in rows if keep[row]}


def content(path):
    """Return everything in a file as values that can be compared exactly."""
    suffix = path.suffix
    if path.is_dir():
        return {str(p.relative_to(path)): content(p) for p in sorted(path.rglob("*")) if p.is_file()}
    if suffix == ".npz":
        with np.load(path) as found:
            return {name: (found[name].dtype, found[name].tobytes()) for name in found.files}
    if suffix in (".parquet", ".feather", ".arrow"):
        if suffix == ".parquet":
            table = pq.read_table(path)
        elif suffix == ".feather":
            table = pyarrow.feather.read_table(path)
        else:
            table = pa.ipc.open_stream(path).read_all()
        return table.to_pylist(), str(table.schema)
    if suffix == ".csv":
        return path.read_bytes().replace(b'"', b"")  # the same cells; quotes only where they are needed
    return path.read_bytes()


@pytest.mark.parametrize("kind", DATASETS)
def test_undo_gives_back_what_there_was(kind, tmp_path):
    name, make, columns = DATASETS[kind]
    source = tmp_path / name
    make(source)
    before, labels_beside = content(source), source.with_name("d_labels.npy")
    labels_before = content(labels_beside) if kind == "npy" else None
    for seed in range(2 if source.is_dir() else 4):
        keep, labels = changed_at_random(seed, kind)
        output = tmp_path / f"clean{seed}{source.suffix}"
        samples = clean(source, output, keep, labels, **columns)
        away = tmp_path / f"away{seed}"  # without the original
        away.mkdir()
        moved = [shutil.move(path, away) for path in tmp_path.glob(f"clean{seed}*")]
        assert len(moved) == (3 if kind == "npy" else 2)
        restored = tmp_path / f"restored{seed}{source.suffix}"
        undo(read_receipt(receipt_of(away / output.name)), away / output.name, restored)
        assert content(restored) == before
        if kind == "npy":
            assert content(restored.with_name(f"restored{seed}_labels.npy")) == labels_before
        assert load_samples(restored, SourceOptions(**columns)).fingerprint() == samples.fingerprint()
    assert content(source) == before


@pytest.fixture
def cleaned(tmp_path):
    npz(tmp_path / "d.npz")
    clean(tmp_path / "d.npz", tmp_path / "c.npz", np.arange(N) > 3, {9: "a"})
    return tmp_path


def test_a_dataset_that_has_changed_since_is_refused(cleaned):
    receipt = read_receipt(cleaned / "c.npz.receipt" / "receipt.json")
    with pytest.raises(InputError, match="is not the dataset that the receipt"):
        undo(receipt, cleaned / "d.npz", cleaned / "o.npz")
    with pytest.raises(InputError, match="is missing: name the cleaned dataset"):
        undo(receipt, cleaned / "nothing.npz", cleaned / "o.npz")
    with pytest.raises(InputError, match=r"give .* the suffix '.npz'"):
        undo(receipt, cleaned / "c.npz", cleaned / "o.csv")
    assert not (cleaned / "o.npz").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 10**30}, {"n": -1}, {"n": "many"}, {"removed": [[0]]}, {"removed": 3}, {"relabelled": [10**9]},
        {"source": None}, {"digest": 7}, {"tables": [["../x.csv", 40]]}, {"moved": ["/etc/x"]}, {"n": 10**13},
    ],
)  # fmt: skip
def test_a_receipt_that_was_tampered_with_is_refused(cleaned, changes):
    place = cleaned / "c.npz.receipt" / "receipt.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    with pytest.raises(InputError):
        undo(read_receipt(place.parent), cleaned / "c.npz", cleaned / "o.npz")
    assert not (cleaned / "o.npz").exists()


def test_the_rows_in_a_receipt_must_be_those_that_were_there(cleaned):
    place = cleaned / "c.npz.receipt" / "before.npz"
    with np.load(place) as found:
        parts = dict(found)
    np.savez(place, **parts | {"X": parts["X"] + 1})
    with pytest.raises(InputError, match="not the dataset it speaks of"):
        undo(read_receipt(place.parent), cleaned / "c.npz", cleaned / "o.npz")
    assert sorted(path.name for path in cleaned.iterdir()) == ["c.npz", "c.npz.receipt", "d.npz"]


def test_a_run_that_was_killed_between_features_and_labels_goes_on(tmp_path):
    npy(tmp_path / "d.npy")
    keep = np.arange(N) > 3
    clean(tmp_path / "d.npy", tmp_path / "c.npy", keep, {9: "a"})
    (tmp_path / "c.npy").unlink()
    clean(tmp_path / "d.npy", tmp_path / "c.npy", keep, {9: "a"})
    assert len(np.load(tmp_path / "c.npy")) == N - 4
    receipt = read_receipt(tmp_path / "c.npy.receipt")
    undo(receipt, tmp_path / "c.npy", tmp_path / "o.npy")
    (tmp_path / "o.npy").unlink()
    undo(receipt, tmp_path / "c.npy", tmp_path / "o.npy")
    assert content(tmp_path / "o.npy") == content(tmp_path / "d.npy")
    np.save(tmp_path / "p_labels.npy", LABELS)
    with pytest.raises(OutputError, match="p_labels.npy' is already there"):
        clean(tmp_path / "d.npy", tmp_path / "p.npy", keep, {9: "a"})
    assert np.load(tmp_path / "p_labels.npy").tolist() == LABELS.tolist()
    assert not (tmp_path / "p.npy").exists() and not (tmp_path / "p.npy.receipt").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of Unix")
def test_what_is_no_plain_file_is_refused_and_links_stay_inside(tmp_path):
    images(tmp_path / "d")
    clean(tmp_path / "d", tmp_path / "c", np.arange(N) > 3, {9: "a"})
    receipt = read_receipt(tmp_path / "c.receipt")
    (tmp_path / "secret").write_text("x")
    (receipt.before / "x.png").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out of its folder"):
        undo(receipt, tmp_path / "c", tmp_path / "o")
    npz(tmp_path / "d.npz")
    clean(tmp_path / "d.npz", tmp_path / "c.npz", np.arange(N) > 3, {})
    (tmp_path / "c.npz").unlink()
    os.mkfifo(tmp_path / "c.npz")
    with pytest.raises(InputError, match="is a pipe"):
        undo(read_receipt(tmp_path / "c.npz.receipt"), tmp_path / "c.npz", tmp_path / "o.npz")


def test_a_receipt_left_by_an_interrupted_run_is_no_obstacle_and_another_is_kept(cleaned):
    (cleaned / "c.npz").unlink()
    clean(cleaned / "d.npz", cleaned / "c.npz", np.arange(N) > 3, {9: "a"})
    (cleaned / "c.npz").rename(cleaned / "precious.npz")
    with pytest.raises(OutputError, match="receipt of another dataset"):
        clean(cleaned / "d.npz", cleaned / "c.npz", np.arange(N) > 5, {9: "a"})
    assert not (cleaned / "c.npz").exists()
    undo(read_receipt(cleaned / "c.npz.receipt"), cleaned / "precious.npz", cleaned / "o.npz")
    assert content(cleaned / "o.npz") == content(cleaned / "d.npz")
