import numpy as np
import pandas as pd
import pytest
import torch
from tests.oracles import info_nce
from tests.oracles.gaussian_kl import dense_kl

import lsi

PROBE = lsi.ContrastiveProbe(dim=2, temperature=0.3, weight_decay=0.3)
SGD = lsi.Retrain(epochs=30, lr=0.3)


@pytest.fixture(scope="module")
def data():
    return info_nce.pairs(n=14, left=4, right=3)


def precisions(oracle, structure, theta, out=None):
    """Return the precisions of the left, the right and both heads, dense, by their definitions."""
    ggn = oracle.ggn(theta, out)
    k = oracle.dim * oracle.left.shape[1]
    eye = torch.eye(len(theta), dtype=torch.float64)
    if structure == "diag":
        ggn = torch.diag(ggn.diagonal())
    if structure == "kron":
        ggn = torch.block_diag(*(kron_block(oracle, theta, out, side) for side in (0, 1)))
    full = ggn + eye
    return full[:k, :k], full[k:, k:], full


def kron_block(oracle, theta, out, side):
    """Return `mean over pairs of own (d, d) blocks ⊗ Σ x xᵀ`, each block by moving one projection alone."""
    x = (oracle.left, oracle.right)[side]
    x = x / x.norm(dim=1, keepdim=True) * x.shape[1] ** 0.5
    head, total, rows_seen = oracle.heads(theta)[side], 0.0, []
    for rows in oracle.kept(out):
        rows_seen += rows
        other = oracle.embed(oracle.heads(theta)[1 - side], (oracle.right, oracle.left)[side][rows])
        z = x[rows] @ head.T
        for j in range(len(rows)):

            def logits(own, j=j, z=z, other=other):
                moved = torch.cat([z[:j], own[None], z[j + 1 :]])
                unit = (
                    moved
                    / (moved.square().sum(1, keepdim=True) + oracle.norm_floor**2 * oracle.dim / 3).sqrt()
                )
                return unit @ other.T / oracle.temperature

            jacobian, s = torch.func.jacrev(logits)(z[j]), logits(z[j])
            for view, jac in ((s, jacobian), (s.T, jacobian.transpose(0, 1))):
                for anchor in range(len(rows)):
                    p = torch.softmax(view[anchor], 0)
                    total = total + 0.5 * jac[anchor].T @ (torch.diag(p) - torch.outer(p, p)) @ jac[anchor]
    return torch.kron(total / len(rows_seen), x[rows_seen].T @ x[rows_seen])


def expected(oracle, structure, whole, left_out, out):
    """Return LSI of left, right and both heads by the textbook divergence."""
    k = oracle.dim * oracle.left.shape[1]
    first, second = precisions(oracle, structure, whole), precisions(oracle, structure, left_out, out)
    delta = left_out - whole
    parts = (delta[:k], delta[k:], delta)
    return [
        sum(dense_kl(a.numpy(), b.numpy(), d.numpy())) for a, b, d in zip(first, second, parts, strict=True)
    ]


@pytest.mark.parametrize("structure", ["diag", "kron", "full"])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_newton_is_the_divergence_at_the_optimum_without_the_pair(data, structure, batch_size):
    probe = lsi.ContrastiveProbe(dim=2, temperature=0.3, weight_decay=0.3, batch_size=batch_size)
    where = [0, 5, 13]
    scores = lsi.score_pairs(
        *data, probe=probe, posterior=structure, subset=where, audit=False, method=lsi.Newton(tol=1e-3)
    )
    oracle = info_nce.build(*data, probe)
    whole = oracle.optimum(oracle.start)
    values = [expected(oracle, structure, whole, oracle.optimum(whole, i), i) for i in where]
    found = scores.to_frame()[["lsi_left", "lsi_right", "lsi"]].to_numpy()
    np.testing.assert_allclose(found, values, rtol=2e-3)


def test_first_order_ranks_as_the_optimum_where_a_pair_has_little_leverage():
    x, y = info_nce.pairs(n=60, left=5, right=5, mismatched=6)
    probe = lsi.ContrastiveProbe(dim=3, temperature=0.5, weight_decay=1.0)
    first = lsi.score_pairs(x, y, probe=probe, method=lsi.Newton(tol=None), audit=False)
    exact = lsi.score_pairs(x, y, probe=probe, audit=False)
    assert lsi.Audit.from_values(range(60), exact.lsi, first.lsi, None, 0.0).spearman > 0.97
    assert np.median(np.abs(first.lsi / exact.lsi - 1)) < 0.25
    assert first.to_frame()["relative_error"].isna().all()


def test_the_lent_certificate_covers_most_pairs(monkeypatch):
    from lsi.loo.contrastive import newton

    x, y = info_nce.pairs(n=60, left=5, right=5, mismatched=6)
    probe = lsi.ContrastiveProbe(dim=3, temperature=0.5, weight_decay=1.0)
    exact = lsi.score_pairs(x, y, probe=probe, audit=False)
    monkeypatch.setattr(newton, "REFINE_OPERATIONS", 0.0)
    first = lsi.score_pairs(x, y, probe=probe, audit=False).to_frame()
    error = np.abs(first["lsi"] / exact.lsi - 1)
    assert (error <= first["relative_error"]).mean() > 0.9
    assert first["relative_error"].median() < 2.0


@pytest.mark.parametrize("batch_size", [None, 5])
def test_retraining_many_copies_is_retraining_one_by_one(data, batch_size):
    probe = lsi.ContrastiveProbe(dim=2, temperature=0.3, weight_decay=0.1, batch_size=batch_size)
    scores = lsi.score_pairs(*data, probe=probe, method=SGD, audit=4)
    assert scores.audit.max_relative_error < 1e-3
    assert len(scores) == 14


def test_retraining_is_gradient_descent_on_the_definition(data):
    oracle = info_nce.build(*data, PROBE)
    found = lsi.score_pairs(*data, probe=PROBE, method=SGD, subset=[3], audit=False).lsi

    def descend(out):
        theta = oracle.start.clone().requires_grad_()
        optimizer = torch.optim.SGD([theta], lr=0.3, momentum=0.9, nesterov=True)
        for _ in range(30):
            optimizer.zero_grad()
            (oracle.objective(theta, out) / (14 - (out is not None))).backward()
            optimizer.step()
        return theta.detach()

    value = expected(oracle, "diag", descend(None), descend(3), 3)[2]
    np.testing.assert_allclose(found, [value], rtol=1e-6)


def test_how_many_copies_train_together_changes_nothing(data, monkeypatch):
    from lsi.loo.contrastive import retrain

    together = lsi.score_pairs(*data, probe=PROBE, method=SGD, audit=False)
    monkeypatch.setattr(retrain, "_CACHE_ELEMENTS", 1)
    alone = lsi.score_pairs(*data, probe=PROBE, method=SGD, audit=False)
    np.testing.assert_allclose(together.lsi, alone.lsi, rtol=1e-9)


def test_order_of_pairs_and_length_of_rows_change_nothing(data):
    left, right = data
    order = np.random.default_rng(3).permutation(14)
    plain = lsi.score_pairs(left, right, probe=PROBE, audit=False)
    turned = lsi.score_pairs(5 * left[order], right[order], probe=PROBE, audit=False)
    np.testing.assert_allclose(turned.lsi, plain.lsi[order], rtol=1e-3)


@pytest.mark.parametrize("structure", ["diag", "kron", "full"])
def test_items_without_features_are_scored_too(data, structure):
    left, right = data[0].copy(), data[1].copy()
    left[[0, 3]], right[[0, 5]] = 0.0, 0.0
    scores = lsi.score_pairs(
        left, right, probe=PROBE, posterior=structure, method=lsi.Newton(tol=1e-3), subset=[0, 3, 5], audit=3
    )
    assert (scores.lsi > 0).all()
    assert scores.audit.max_relative_error < 1e-3


def test_a_budget_of_memory_that_suffices_changes_nothing(data):
    free = lsi.score_pairs(*data, probe=PROBE, audit=False)
    bounded = lsi.score_pairs(*data, probe=PROBE, audit=False, memory="1GiB", device="cpu")
    np.testing.assert_array_equal(bounded.lsi, free.lsi)


def test_each_kind_of_probe_names_the_function_for_the_other(data):
    with pytest.raises(lsi.InputError, match="lsi.score_pairs"):
        lsi.score(data[0], np.arange(14) % 2, probe=PROBE)


def test_the_cost_of_pairs_is_told(data):
    from lsi.tasks import task_of

    task = task_of(PROBE)
    problem = task.problem(*data)
    for method in (lsi.Newton(), SGD):
        assert task.cost(PROBE, problem, "full", method, None).text.startswith("about ")


def test_both_heads_add_up_unless_the_posterior_couples_them(data):
    for structure in ("diag", "kron", "full"):
        table = lsi.score_pairs(*data, probe=PROBE, posterior=structure, audit=False).to_frame()
        together = np.allclose(table["lsi_left"] + table["lsi_right"], table["lsi"], rtol=1e-9)
        assert together == (structure != "full")


def test_mismatched_pairs_score_high_and_are_not_found_by_heads_that_never_saw_them():
    x, y = info_nce.pairs(n=60, left=6, right=6, mismatched=6)
    table = lsi.score_pairs(x, y, probe=lsi.ContrastiveProbe(dim=4), audit=False).to_frame()
    wrong = table["position"] >= 54
    assert table.loc[wrong, "lsi"].median() > table.loc[~wrong, "lsi"].median()
    assert table.loc[wrong, "loo_rank"].median() > 2 * table.loc[~wrong, "loo_rank"].median()
    assert table["loo_probability"].between(0, 1).all()


def test_scores_of_pairs_are_saved_shown_and_listed(data, tmp_path):
    left = pd.DataFrame(data[0], index=[f"pair {i}" for i in range(14)])
    scores = lsi.score_pairs(left, data[1], probe=PROBE, audit=3)
    assert scores.task == "contrastive" and "contrastive" in repr(scores)
    again = lsi.load(scores.save(tmp_path / "scores"))
    pd.testing.assert_frame_equal(again.to_frame(), scores.to_frame())
    assert again.audit == scores.audit
    assert list(scores.to_frame()["sample_id"]) == list(left.index)
    worst = scores.mislabeled().iloc[0]
    assert worst["suggested_label"] in [*left.index, None]


def test_batches_are_fixed_and_hold_every_pair_once():
    probe = lsi.ContrastiveProbe(batch_size=4)
    parts = probe.batches(14)
    assert torch.cat(parts).sort().values.tolist() == list(range(14))
    assert {len(part) for part in parts} <= {3, 4}
    assert all(torch.equal(a, b) for a, b in zip(parts, probe.batches(14), strict=True))


BAD = {
    "rows": (lambda x, y: {"right": y[:5]}, "equal rows"),
    "few": (lambda x, y: {"left": x[:3], "right": y[:3]}, "at least 4"),
    "nan": (lambda x, y: {"right": np.full_like(y, np.nan)}, "right side"),
    "probe": (lambda x, y: {"probe": lsi.LinearProbe()}, "ContrastiveProbe"),
    "posterior": (lambda x, y: {"posterior": "daig"}, "'diag'"),
    "method": (lambda x, y: {"method": "newtn"}, "'newton'"),
    "no decay": (lambda x, y: {"probe": lsi.ContrastiveProbe(weight_decay=0)}, "weight_decay"),
    "full": (lambda x, y: {"probe": lsi.ContrastiveProbe(dim=400), "posterior": "full"}, "at most 2048"),
    "large": (lambda x, y: {"probe": lsi.ContrastiveProbe(dim=4000)}, "Lower ContrastiveProbe"),
    "adam": (lambda x, y: {"method": lsi.Retrain(optimizer="adam")}, "plain SGD"),
    "audit": (lambda x, y: {"audit": -1}, "audit"),
    "device": (lambda x, y: {"device": "meta"}, "device"),
    "memory": (lambda x, y: {"memory": "1MiB"}, "need about .* but 1 MiB are available"),
    "shard": (lambda x, y: {"shard": "1/2"}, "cannot be scored in shards"),
    "no shard": (lambda x, y: {"shard": "3/2"}, "shard 3/2"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_is_refused_with_a_cure(data, change, message):
    left, right = data
    arguments = {"left": left, "right": right, **change(left, right)}
    with pytest.raises(lsi.InputError, match=message):
        lsi.score_pairs(arguments.pop("left"), arguments.pop("right"), **arguments)


@pytest.mark.parametrize(
    "settings",
    [{"dim": 1}, {"temperature": 0.0}, {"weight_decay": -1.0}, {"norm_floor": -0.1}, {"batch_size": 2}],
)
def test_settings_outside_their_range_are_refused(settings):
    with pytest.raises(lsi.InputError):
        lsi.ContrastiveProbe(**settings)
