"""Parts of a run that were scored apart make up the whole."""

import numpy as np
import pytest

import lsi
from lsi.errors import InputError
from lsi.execution.work import Shard
from lsi.loo.newton.block_engine import BlockEngine
from lsi.loo.retrain.engine import RetrainEngine
from lsi.results.audit import Audit
from lsi.scores import Scores

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
Y = (X[:, 0] + 0.5 * RNG.normal(size=200) > 0).astype(int) + 2 * (X[:, 1] > 0.8)
NAMES = np.array(["ant", "bee", "cat", "dog"])[Y]
MIXED = np.array(["ant", 7, "cat", "dog"], dtype=object)[Y]
SEVERAL = np.stack([X[:, 0] > 0, X[:, 1] > 0.5], 1).astype(int)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(BlockEngine, "block_size", lambda self: 50)
    monkeypatch.setattr(RetrainEngine, "block_size", lambda self: 50)


def score(y=Y, **settings):
    return lsi.score(X, y, **{"audit": 3, "label_noise": False, **settings})


def parts_of(count, **settings):
    return [score(shard=(index, count), **settings) for index in range(1, count + 1)]


@pytest.fixture(scope="module")
def three():
    return parts_of(3)


def content(scores, folder):
    scores.save(folder, overwrite=True)
    return (folder / "scores.parquet").read_bytes()


KINDS = {
    "newton": {},
    "named, with wrong labels": {"y": NAMES, "label_noise": True, "posterior": "kron"},
    "labels of two kinds": {"y": MIXED},
    "in another order": {"subset": RNG.permutation(200)[:180], "sample_id": [f"s{i}" for i in range(200)]},
    "blocks": {"method": lsi.Newton(solver="blocks")},
    "retrain": {"method": lsi.Retrain(epochs=6, lr=0.05, n_seeds=2, record_every=3)},
    "several labels": {"y": SEVERAL, "probe": lsi.SigmoidProbe()},
    "last layer": {
        "probe": lsi.MLPProbe(
            hidden=(3,), posterior_layers="last", training=lsi.Retrain(epochs=4, lr=0.05), compare_whole=3
        )
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_make_up_the_whole_to_the_last_bit(kind, tmp_path):
    whole, parts = score(**KINDS[kind]), parts_of(2, **KINDS[kind])
    assert 0 < len(parts[0]) < len(whole)
    merged = lsi.merge(parts[::-1])
    assert content(merged, tmp_path / "a") == content(whole, tmp_path / "b")
    if kind != "labels of two kinds":  # saved, they are text, and numbers where a part has only these
        folders = [part.save(tmp_path / f"part{k}") for k, part in enumerate(parts)]
        assert content(lsi.merge(folders), tmp_path / "c") == content(whole, tmp_path / "b")


def test_the_manifest_tells_of_the_whole(three):
    whole, merged = score(), lsi.merge(three)
    assert set(merged.manifest) - set(whole.manifest) == {"merged"}
    for entry in ("versions", "config", "data", "classes", "class_counts", "fit", "task"):
        assert merged.manifest[entry] == whole.manifest[entry]
    times = [part.manifest["timings"]["leave-one-out"] for part in three]
    assert merged.manifest["timings"]["leave-one-out"] == pytest.approx(sum(times))
    assert merged.manifest["merged"]["longest"]["leave-one-out"] == max(times)
    assert merged.manifest["merged"]["shards"] == 3
    assert [part.manifest["data"]["n_scored"] for part in three] == [len(part) for part in three]


def test_every_audited_sample_is_in_the_audit(three):
    merged = lsi.merge(three)
    told = {p: (e, a) for part in three for p, e, a in zip(*_audited(part), strict=True)}
    assert merged.audit.positions == sorted(told)
    assert len(told) == 9
    assert [told[p] for p in merged.audit.positions] == list(
        zip(merged.audit.exact, merged.audit.approximate, strict=True)
    )
    assert merged.audit.seconds == pytest.approx(sum(part.audit.seconds for part in three))
    again = Audit.from_values(*_audited(merged), merged.audit.certificate, 0.0)
    assert merged.audit.spearman == again.spearman


def _audited(scores):
    return scores.audit.positions, scores.audit.exact, scores.audit.approximate


def test_parts_without_audit_make_a_whole_without():
    assert lsi.merge(parts_of(2, audit=False)).audit is None


def test_figures_of_stopped_training_are_of_the_whole():
    settings = KINDS["retrain"]
    whole, merged = (
        score(**settings).manifest["training"],
        lsi.merge(parts_of(2, **settings)).manifest["training"],
    )
    assert merged["rank_correlation_with_end"] == whole["rank_correlation_with_end"]
    assert merged["seeds"] == whole["seeds"]
    assert abs(merged["rank_correlation_between_seeds"] - whole["rank_correlation_between_seeds"]) < 0.1


def test_comparisons_with_the_whole_network_are_put_together():
    parts = parts_of(2, **KINDS["last layer"])
    told = lsi.merge(parts).manifest["whole_network"]
    assert sorted(told["positions"]) == sorted(
        p for part in parts for p in part.manifest["whole_network"]["positions"]
    )
    assert -1 <= told["spearman"] <= 1


def test_slightly_different_values_of_another_machine_still_merge(three):
    table = three[1].to_frame()
    table["lsi"] *= 1 + 1e-12
    moved = Scores(table, three[1].manifest, three[1].audit)
    merged = lsi.merge([three[0], moved, three[2]])
    np.testing.assert_allclose(merged.lsi, score().lsi, rtol=1e-11)


def changed(scores, **told):
    manifest = {**scores.manifest, "shard": {**scores.manifest["shard"], **told}}
    return Scores(scores.to_frame(), manifest, scores.audit)


def test_missing_parts_are_named(three):
    with pytest.raises(InputError, match=r"of 3 parts 2 is missing\. Score with shard 2/3"):
        lsi.merge([three[0], three[2]])
    with pytest.raises(InputError, match=r"of 3 parts 1, 2 are missing"):
        lsi.merge(three[2:])
    many = changed(three[0], of=1_000_000)
    with pytest.raises(InputError, match=r"2, 3, 4, 5, 6 and 999994 more are missing"):
        lsi.merge([many])


def test_parts_that_are_there_twice_are_named(three, tmp_path):
    with pytest.raises(InputError, match="part 4 of the list and part 1 of the list are both part 1/3"):
        lsi.merge([*three, three[0]])
    folder = three[0].save(tmp_path / "again")
    with pytest.raises(InputError, match=r"again' and part 1 of the list are both part 1/3"):
        lsi.merge([*three, folder])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"posterior": "kron"}, "different: config.posterior"),
        ({"y": np.roll(Y, 1)}, "different: data.fingerprint"),
        ({"audit": 2}, "different ids, subset, audit, memory, threads or code"),
        ({"shard": (2, 2)}, "one of 3 parts against one of 2"),
    ],
)
def test_parts_of_another_run_are_named(three, settings, why):
    foreign = score(**{"shard": (2, 3), **settings})
    with pytest.raises(InputError, match="part 2 of the list belongs to another run") as refusal:
        lsi.merge([three[0], foreign, three[2]])
    assert why in str(refusal.value)


def test_scores_that_are_no_part_are_refused(three):
    with pytest.raises(InputError, match="part 2 of the list is not part of a run"):
        lsi.merge([three[0], score()])
    with pytest.raises(InputError, match="no parts"):
        lsi.merge([])
    with pytest.raises(InputError, match="takes a list"):
        lsi.merge(three[0])


@pytest.mark.parametrize(
    "told",
    [
        {"index": 0}, {"index": 4}, {"index": "1"}, {"of": None}, {"of": 2**40}, {"run": 7},
        {"rows": None}, {"rows": "[]"}, {"rows": [[0]]}, {"rows": [[0, 2**40]]}, {"rows": [[5, 2]]},
        {"rows": [["a", "b"]]}, {"rows": [7]},
    ],
)  # fmt: skip
def test_a_part_that_does_not_say_what_it_is_is_refused(three, told):
    with pytest.raises(InputError, match="part 1 of the list does not say which part"):
        lsi.merge([changed(three[0], **told), *three[1:]])


def test_rows_that_overlap_are_refused(three):
    rows = [[low + 1, high + 1] for low, high in three[0].manifest["shard"]["rows"]]
    with pytest.raises(InputError, match="do not make up all rows"):
        lsi.merge([changed(three[0], rows=rows), *three[1:]])


def test_another_solver_is_refused(three):
    manifest = {**three[1].manifest, "fit": {**three[1].manifest["fit"], "solver": "blocks"}}
    other = Scores(three[1].to_frame(), manifest, three[1].audit)
    with pytest.raises(InputError, match="another solver"):
        lsi.merge([three[0], other, three[2]])


def test_other_columns_are_refused(three):
    other = Scores(three[1].to_frame().assign(corrupted=False), three[1].manifest, three[1].audit)
    with pytest.raises(InputError, match="differ in their columns"):
        lsi.merge([three[0], other, three[2]])


def test_labels_of_two_kinds_are_refused_once_saved(three, tmp_path):
    parts = [part.save(tmp_path / f"{k}") for k, part in enumerate(parts_of(4, y=MIXED))]
    merged = lsi.merge(parts)  # each part has labels of both kinds
    assert set(merged.to_frame()["label"]) == {"'ant'", "7", "'cat'", "'dog'"}
    table = three[0].to_frame().astype({"label": str})
    with pytest.raises(InputError, match="column 'label' is text in some parts and numbers in others"):
        lsi.merge([Scores(table, three[0].manifest, three[0].audit), *three[1:]])


def test_too_many_shards_are_refused():
    with pytest.raises(InputError, match=r"5 shards are too many for this run of 4 blocks\. Use at most 4"):
        score(shard="1/5")


def test_a_regression_is_not_divided():
    with pytest.raises(InputError, match="nothing to divide"):
        lsi.score(X, X[:, 0], probe=lsi.RidgeProbe(), shard="1/2")


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/2/3", "1/2000000", (1,), 7])
def test_shards_that_do_not_exist_are_refused(text):
    with pytest.raises(InputError, match="shard"):
        Shard.parse(text)


def test_shards_resume_too(tmp_path):
    first = score(shard="1/2", checkpoint=tmp_path / "kept")
    again = score(shard="1/2", checkpoint=tmp_path / "kept")
    assert content(first, tmp_path / "a") == content(again, tmp_path / "b")
    with pytest.raises(InputError, match=r"shard \(\[1, 2\] there, \[2, 2\] now\)"):
        score(shard="2/2", checkpoint=tmp_path / "kept")
