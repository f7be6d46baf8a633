"""The page of formulas is true: its functions and tests exist, and it has every column that is produced."""

import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tests.oracles import info_nce
from tests.pages import DOTTED, PAGES, ROOT, TEST, functions_in, resolve, spans, tables

import lsi
from lsi.cli import main
from lsi.noisy_labels.estimate import flip_gain

PAGE = (ROOT / "docs" / "reference" / "formulas.md").read_text(encoding="utf-8")
COLUMNS, ENGINES = tables(PAGE, "Column"), tables(PAGE, "Engine")
BELOW = "[below](#relative_error)"
# The certificate's definition, in either spelling of its minus and its bars.
DEFINITION = re.compile(r"\\?\|\s*lsi\s*[−-]\s*exact\s*\\?\|", re.IGNORECASE)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(30, 3))
CLASSES = (X[:, 0] + 0.5 * RANDOM.normal(size=30) > 0).astype(int)
TWO_NUMBERS = X[:, :2] + 0.1 * RANDOM.normal(size=(30, 2))
TWO_LABELS = (X[:, :2] + RANDOM.normal(size=(30, 2)) > 0).astype(int)


def documented(names):
    """Return the columns on the page, `<name>` standing for each of `names`."""
    found = set()
    for row in COLUMNS:
        for column in spans(row[0]):
            found |= (
                {column.replace("<name>", str(name)) for name in names} if "<name>" in column else {column}
            )
    return found


def undocumented(columns, names=()):
    """Return which columns of a table the page does not have."""
    known = [re.compile(re.escape(column).replace("<epoch>", r"\d+")) for column in documented(names)]
    return {column for column in columns if not any(pattern.fullmatch(column) for pattern in known)}


@pytest.fixture(scope="module")
def produced(tmp_path_factory):
    """Scores of every kind of run that adds columns."""
    folder = tmp_path_factory.mktemp("formulas")
    np.savez(folder / "data.npz", X=X, y=CLASSES)
    command = ["compute", "--dataset", str(folder / "data.npz"), "--corrupt-label", "0.2", "--no-audit"]
    assert main([*command, "--quiet", "--output", str(folder / "scores")]) == 0
    training = lsi.Retrain(epochs=4, lr=0.1, n_seeds=2, record_every=2)
    return [
        lsi.load(folder / "scores"),
        lsi.score(X, CLASSES, label_noise=True, audit=False).with_redundancy(X, CLASSES),
        lsi.score(X, CLASSES, method=training, audit=False),
        lsi.score(X, TWO_NUMBERS[:, 0], probe=lsi.RidgeProbe(), audit=False),
        lsi.score(X, TWO_NUMBERS, probe=lsi.RidgeProbe(), audit=False),
        lsi.score(X, TWO_LABELS, probe=lsi.SigmoidProbe(weight_decay=1e-2), audit=False),
        lsi.score_pairs(X, TWO_NUMBERS, probe=lsi.ContrastiveProbe(dim=2), audit=False),
    ]


def test_every_column_that_is_produced_is_on_the_page(produced):
    for scores in produced:
        assert undocumented(scores.to_frame().columns, scores.manifest.get("outputs") or ()) == set()


def test_every_column_on_the_page_is_produced(produced):
    columns = {column for scores in produced for column in scores.to_frame()}
    names = {name for scores in produced for name in scores.manifest.get("outputs") or ()}
    assert {column.replace("<epoch>", "2") for column in documented(names)} <= columns


def test_a_column_that_the_page_lacks_is_noticed():
    assert undocumented(["lsi", "lsi_epoch_7", "lsi_epoch_x", "mood"]) == {"lsi_epoch_x", "mood"}
    assert undocumented(["label_red", "label_blue"], ["red"]) == {"label_blue"}


@pytest.mark.parametrize("row", [*COLUMNS, *ENGINES], ids=lambda row: row[0])
def test_a_row_names_functions_and_tests_that_exist(row):
    _, _, function, test = row
    if function == BELOW:
        assert test == BELOW
        return
    for path in DOTTED.findall(function):
        resolve(path)
    for name in TEST.findall(test):
        file, function_name = name.split("::")
        assert function_name in functions_in(file)
    assert DOTTED.findall(function) and TEST.findall(test)


@pytest.mark.parametrize(
    "path", ["lsi.nothing", "lsi.divergence.nothing", "lsi.loo.result.LooResult.nothing"]
)
def test_a_name_that_is_gone_is_noticed(path):
    with pytest.raises(AttributeError, match="nothing"):
        resolve(path)
    assert "test_nothing" not in functions_in("tests/test_formulas.py")


def test_relative_error_is_defined_once():
    """In the docstring of `LooResult`; every other place refers to it."""
    files = [*PAGES, *(ROOT / "src" / "lsi").rglob("*.py")]
    found = [path for path in files for _ in DEFINITION.findall(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["src/lsi/loo/result.py"]


@pytest.mark.parametrize("method", [lsi.Newton(tol=None), lsi.Retrain(epochs=3, lr=0.1)])
def test_where_no_error_is_estimated(method):
    frame = lsi.score(X, CLASSES, method=method, audit=False).to_frame()
    assert frame["relative_error"].isna().all()
    assert lsi.score(X, CLASSES, audit=False).to_frame()["relative_error"].notna().all()


def test_columns_by_name_are_the_parts_of_the_whole():
    numbers = lsi.score(X, TWO_NUMBERS, probe=lsi.RidgeProbe(), audit=False).to_frame()
    labels = lsi.score(X, TWO_LABELS, probe=lsi.SigmoidProbe(weight_decay=1e-2), audit=False).to_frame()
    for k in (0, 1):
        alone = lsi.score(X, TWO_NUMBERS[:, k], probe=lsi.RidgeProbe(), audit=False).to_frame()
        assert_array_equal(numbers[f"label_{k}"], TWO_NUMBERS[:, k])
        assert_allclose(numbers[f"loo_prediction_{k}"], alone["loo_prediction"], rtol=1e-9)
        assert_array_equal(labels[f"label_{k}"], TWO_LABELS[:, k])
    assert numbers["label"][0] == ", ".join(f"{value:.4g}" for value in TWO_NUMBERS[0])
    given = [", ".join(str(k) for k in np.flatnonzero(row)) or "(none)" for row in TWO_LABELS]
    assert labels["label"].tolist() == given


def test_flip_gain_by_hand():
    log_p = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]], dtype=torch.float64).log()
    gain = flip_gain(log_p + 3.0, torch.tensor([0, 0]))
    assert_allclose(gain, np.log([0.2 / 0.7, 0.5 / 0.2]), rtol=1e-12)


def test_match_of_a_pair():
    left, right = info_nce.pairs(n=8)
    probe, picks = lsi.ContrastiveProbe(dim=2, temperature=0.3, weight_decay=0.3), [0, 7]
    scores = lsi.score_pairs(left, right, probe=probe, subset=picks, audit=False, method=lsi.Newton(tol=1e-3))
    frame, oracle = scores.to_frame(), info_nce.build(left, right, probe)
    whole = oracle.optimum(oracle.start)
    for row, i in enumerate(picks):
        s = oracle.logits(oracle.optimum(whole, i), range(8)).detach()
        both = s[i], s[:, i]
        probability = np.mean([float(torch.softmax(each, 0)[i]) for each in both])
        rank = np.mean([1 + int((each > s[i, i]).sum()) for each in both])
        assert_allclose(frame["loo_probability"][row], probability, rtol=1e-3)
        assert frame["loo_rank"][row] == rank
        assert frame["loo_prediction"][row] == int(s[i].argmax())
