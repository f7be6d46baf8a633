import json
import multiprocessing
import resource
import threading
import time

import numpy as np
import pytest
import torch

from lsi.data.items import ArrayItems
from lsi.errors import InputError, OutputError
from lsi.features import FeatureCache, encode_items
from lsi.features.encoders.base import Encoder


class Letters(Encoder):
    """Counts letters; slow or failing on demand."""

    def __init__(self, fail_at=None, chunk=4):
        self.name, self.chunk, self.fail_at, self.seen = "letters", chunk, fail_at, 0

    def key(self):
        return {"encoder": "letters"}

    def prepare(self, items):
        return [(list(range(len(items)))[::-1], list(items)[::-1])]

    def forward(self, inputs):
        self.seen += len(inputs)
        if self.fail_at is not None and self.seen > self.fail_at:
            raise RuntimeError("out of memory, say")
        return torch.tensor([[len(text), text.count("a")] for text in inputs], dtype=torch.float32)


TEXTS = [f"{'a' * (k % 7)}{k}" for k in range(30)]
EXPECTED = np.array([[len(text), text.count("a")] for text in TEXTS], dtype=np.float32)


def items(texts=TEXTS):
    return ArrayItems("text", texts)


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path)


def test_features_are_made_once(cache):
    first, again = Letters(), Letters()
    np.testing.assert_array_equal(encode_items(items(), first, cache).features, EXPECTED)
    found = encode_items(items(), again, cache)
    np.testing.assert_array_equal(found.features, EXPECTED)
    assert (first.seen, again.seen) == (30, 0)
    assert found.record["rows_already_there"] == 30


def test_other_content_is_another_entry(cache):
    encode_items(items(), Letters(), cache)
    changed = Letters()
    encode_items(items([*TEXTS[:-1], "other"]), changed, cache)
    assert changed.seen == 30
    assert len(cache.entries()) == 2


@pytest.mark.parametrize("chunk", [4, 7])
def test_an_interrupted_run_goes_on(cache, chunk):
    with pytest.raises(RuntimeError):
        encode_items(items(), Letters(fail_at=17), cache)
    (entry,) = cache.entries()
    assert (entry.rows, entry.total, entry.encoder) == (16, 30, "letters")
    second = Letters(chunk=chunk)
    found = encode_items(items(), second, cache)
    np.testing.assert_array_equal(found.features, EXPECTED)
    assert (second.seen, found.record["rows_already_there"]) == (14, 16)


def test_rows_behind_the_last_safe_one_are_forgotten(cache):
    with pytest.raises(RuntimeError):
        encode_items(items(), Letters(fail_at=17), cache)
    folder = cache.folder / cache.entries()[0].key
    with (folder / "features.npy.part").open("ab") as file:
        file.write(b"\xff" * 21)
    np.testing.assert_array_equal(encode_items(items(), Letters(), cache).features, EXPECTED)


@pytest.mark.parametrize("damage", ["shorter", "header", "journal", "manifest"])
def test_damage_is_never_taken_for_features(cache, damage):
    if damage == "manifest":
        encode_items(items(), Letters(), cache)
    else:
        with pytest.raises(RuntimeError):
            encode_items(items(), Letters(fail_at=17), cache)
    folder = cache.folder / cache.entries()[0].key
    part = folder / "features.npy.part"
    if damage == "shorter":
        part.write_bytes(part.read_bytes()[:-40])
    elif damage == "header":
        part.write_bytes(b"\x00" * 20 + part.read_bytes()[20:])
    elif damage == "journal":
        (folder / "progress.json").write_text('{"rows": 1')
    else:
        np.save(folder / "features.npy", EXPECTED[:5])
    second = Letters()
    np.testing.assert_array_equal(encode_items(items(), second, cache).features, EXPECTED)
    assert second.seen == 30


def test_broken_items_are_named_or_left_out(cache):
    texts = [*TEXTS[:9], "  ", *TEXTS[10:]]
    with pytest.raises(InputError, match=r"sample 9: the text is empty.*--skip-broken"):
        encode_items(items(texts), Letters(), cache)
    found = encode_items(items(texts), Letters(), cache, skip_broken=True)
    assert found.broken == {9: "the text is empty"}
    assert np.isnan(found.features[9]).all()
    np.testing.assert_array_equal(np.delete(found.features, 9, axis=0), np.delete(EXPECTED, 9, axis=0))
    with pytest.raises(InputError, match="sample 9"):
        encode_items(items(texts), Letters(), cache)


def test_features_that_are_not_finite_are_refused_and_not_kept(cache):
    class Broken(Letters):
        def forward(self, inputs):
            return super().forward(inputs) * torch.inf

    with pytest.raises(InputError, match="not finite"):
        encode_items(items(), Broken(), cache)
    np.testing.assert_array_equal(encode_items(items(), Letters(), cache).features, EXPECTED)


def run_in_process(folder, barrier, results):
    encoder = Letters()
    barrier.wait()
    found = encode_items(items(), encoder, FeatureCache(folder))
    results.put((encoder.seen, found.features.tolist()))


def test_two_processes_share_the_work(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=run_in_process, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sorted(seen for seen, _ in found) == [0, 30]
    assert all(features == EXPECTED.tolist() for _, features in found)


def test_waiting_for_another_process_is_said(cache):
    with pytest.raises(RuntimeError):
        encode_items(items(), Letters(fail_at=3), cache)
    key = cache.entries()[0].key
    said = threading.Event()
    with cache.open(key):
        thread = threading.Thread(
            target=encode_items, args=(items(), Letters(), cache), kwargs={"on_wait": said.set}
        )
        thread.start()
        assert said.wait(timeout=30)
        with pytest.raises(OutputError, match="another process"):
            cache.remove(key)
    thread.join(timeout=30)
    assert cache.entries()[0].rows == 30


def test_a_full_disk_is_said_before_the_work(cache, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(OutputError, match="--cache-dir"):
        encode_items(items(), Letters(), cache)


NUMBERS = [str(k) for k in range(3000)]


def fill_a_small_disk(folder, results):
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    try:
        encode_items(items(NUMBERS), Letters(chunk=100), FeatureCache(folder))
    except OutputError as error:
        results.put(str(error))


def test_a_disk_that_fills_up_keeps_what_was_safe(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=fill_a_small_disk, args=(tmp_path, results))
    process.start()
    assert "What was encoded so far is kept" in results.get(timeout=60)
    process.join(timeout=60)
    found = encode_items(items(NUMBERS), Letters(chunk=100), FeatureCache(tmp_path))
    np.testing.assert_array_equal(found.features[:, 0], [len(text) for text in NUMBERS])


def encode_slowly(folder, report):
    class Slow(Letters):
        def forward(self, inputs):
            time.sleep(0.01)
            return super().forward(inputs)

    tell = lambda *step: report.send(step[1])  # noqa: E731
    encode_items(items(), Slow(chunk=2), FeatureCache(folder), progress=tell, keep_every=0.0)


def test_killed_runs_resume_to_the_same_features(tmp_path):
    context, cache, reached = multiprocessing.get_context("fork"), FeatureCache(tmp_path), []
    for stop_at in (4, 12, 20):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=encode_slowly, args=(tmp_path, send))
        process.start()
        send.close()
        while receive.recv() < stop_at:
            pass
        process.kill()
        process.join(timeout=30)
        receive.close()
        reached.append(cache.entries()[0].rows)
    assert reached == sorted(reached)
    assert 20 <= reached[-1] <= 30
    last = Letters()
    np.testing.assert_array_equal(encode_items(items(), last, cache).features, EXPECTED)
    assert last.seen == 30 - reached[-1]


def test_an_end_between_the_last_row_and_the_manifest_loses_nothing(cache, monkeypatch):
    monkeypatch.setattr(
        "lsi.features.growing.Growing._seal", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        encode_items(items(), Letters(), cache)
    monkeypatch.undo()
    second = Letters()
    np.testing.assert_array_equal(encode_items(items(), second, cache).features, EXPECTED)
    assert second.seen == 0


def test_what_an_end_after_the_manifest_leaves_is_removed(cache):
    encode_items(items(), Letters(), cache)
    (entry,) = (path for path in cache.folder.iterdir() if path.is_dir())
    (entry / "progress.json").write_text("{}")
    (entry / ".lsi-0123456789ab").mkdir()  # where a manifest was drafted
    second = Letters()
    np.testing.assert_array_equal(encode_items(items(), second, cache).features, EXPECTED)
    assert second.seen == 0
    assert sorted(path.name for path in entry.iterdir()) == ["features.npy", "manifest.json"]


def test_entries_can_be_removed_by_the_beginning_of_their_key(cache):
    encode_items(items(), Letters(), cache, name="data")
    (entry,) = cache.entries()
    assert (entry.data, entry.dim, entry.rows) == ("data", 2, 30)
    with pytest.raises(InputError, match="no entry begins"):
        cache.remove("zzz")
    assert cache.remove(entry.key[:8]) > 0
    assert cache.entries() == []
    assert list(cache.folder.iterdir()) == []  # its lock is gone too


def test_locks_go_once_their_entries_are_gone(cache):
    encode_items(items(), Letters(), cache)
    (entry,) = cache.entries()
    gone, held = (cache.folder / f"{letter * 40}.lock" for letter in "ab")
    gone.touch()
    with cache.open("b" * 40):
        cache.drop_locks()
        assert not gone.exists() and held.exists()
    cache.drop_locks()
    assert sorted(path.name for path in cache.folder.iterdir()) == [entry.key, f"{entry.key}.lock"]


def test_the_manifest_says_what_the_features_are_of(cache):
    encode_items(items(), Letters(), cache, name="data")
    manifest = json.loads((cache.folder / cache.entries()[0].key / "manifest.json").read_text())
    assert manifest["key"] == {"encoder": "letters"}
    assert manifest["shape"] == [30, 2]


def test_the_default_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LSI_CACHE", str(tmp_path / "here"))
    assert FeatureCache().folder == tmp_path / "here" / "features"
    monkeypatch.delenv("LSI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FeatureCache().folder == tmp_path / "lsi" / "features"
