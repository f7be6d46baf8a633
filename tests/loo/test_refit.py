"""Brute force on a path of its own: it is right, and it sees errors that the run's own parts would share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from tests.cases import CASES, POSTERIORS

import lsi
from lsi.loo.refit import Refit, is_small
from lsi.posterior.diag import DiagPosterior
from lsi.posterior.full import FullPosterior
from lsi.posterior.kron import KronPosterior
from lsi.tasks import classification as task
from lsi.tasks import fitting
from lsi.validation.problem import Shape

every_posterior = pytest.mark.parametrize("posterior", POSTERIORS)


def refit(case, posterior):
    return Refit(
        np.asarray(case.features),
        case.target,
        case.n_classes,
        case.weight,
        case.weight_decay,
        case.fit_intercept,
        posterior,
        case.prior_precision,
    )


@every_posterior
@pytest.mark.parametrize("name", CASES)
def test_it_is_right(name, posterior):
    case = CASES[name]
    positions = np.arange(0, len(case.target), max(1, len(case.target) // 4))
    found = refit(case, posterior).exact(positions, None)["exact"]
    assert_allclose(found, case.oracle.lsi(posterior, case.prior_precision, positions), rtol=5e-8)


# LSI in 80-bit floating point, from optima without each of the rows 39, 270 and 284.
LONG_DOUBLE = {
    "diag": [0.074928919, 0.09411113, 0.097787094],
    "full": [0.10124694, 0.10794421, 0.11035307],
}


def giant():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(300, 6)), random.integers(0, 3, 300)
    X[7] *= 1e8
    return X, y


@pytest.mark.parametrize("posterior", LONG_DOUBLE)
def test_a_row_of_1e8_costs_the_others_no_digits(posterior):
    """Newton-CG started from steps that flip this row, stopped on the way, and called that exact: 4 % off."""
    X, y = giant()
    rows = np.array([39, 270, 284])
    found = Refit(X, y, 3, np.ones(300), 1e-4, True, posterior, 1.0).exact(rows, None)["exact"]
    assert_allclose(found, LONG_DOUBLE[posterior], rtol=1e-7)
    scores = lsi.score(X, y, posterior=posterior, audit=24, label_noise=False)
    assert scores.audit.broken == []
    assert np.isfinite(scores.audit.exact).all()


@pytest.mark.parametrize("posterior", LONG_DOUBLE)
def test_the_run_s_own_brute_force_does_not_take_a_step_for_an_optimum(posterior, monkeypatch):
    monkeypatch.setattr(task, "is_small", lambda *shape: False)
    X, y = giant()
    scores = lsi.score(X, y, posterior=posterior, subset=[39, 270, 284], audit=3, label_noise=False)
    exact = np.array(scores.audit.exact)
    assert np.isfinite(exact).any()  # Newton-CG does not get past this row for all of them, and says so
    assert_allclose(exact, np.where(np.isfinite(exact), LONG_DOUBLE[posterior], np.nan), rtol=1e-7)
    assert scores.audit.broken == []


@pytest.mark.parametrize("kind", [DiagPosterior, KronPosterior, FullPosterior])
def test_an_error_of_the_precision_is_seen(kind, monkeypatch):
    build, case = kind.__init__, CASES["multiclass"]
    monkeypatch.setattr(
        kind, "__init__", lambda self, model, tau, basis=None: build(self, model, 1.1 * tau, basis)
    )
    audit = case.score(kind.name, audit=12).audit
    assert audit.max_relative_error > 1e-2
    assert audit.broken
    assert "Certificates are broken" in audit.summary()


@every_posterior
def test_an_error_of_the_fit_is_seen(posterior, monkeypatch):
    fit = fitting.fit

    def worse(model, *rest, **settings):
        return fit(replace(model, weight_decay=model.weight_decay * 1.2), *rest, **settings)

    monkeypatch.setattr(fitting, "fit", worse)
    assert CASES["multiclass"].score(posterior, audit=12).audit.broken


def test_an_error_of_the_divergence_is_seen(monkeypatch):
    found = DiagPosterior.divergence

    def halved(self, removal):
        terms = found(self, removal)
        return type(terms)(terms.mean, 0.5 * terms.covariance)

    monkeypatch.setattr(DiagPosterior, "divergence", halved)
    assert CASES["multiclass"].score("diag", audit=12).audit.broken


def test_the_sentence_says_what_is_trusted():
    small = CASES["multiclass"].score("diag", audit=3)
    assert "trusts nothing of the run but its features, labels and settings." in small.audit.summary()


def test_a_large_problem_in_float32_builds_its_precision_again(monkeypatch):
    """The audit shared P₁ with the run: what single precision lost there, it lost too."""
    monkeypatch.setattr(task, "is_small", lambda *shape: False)
    monkeypatch.setattr(task, "working_dtype", lambda *shape: torch.float32)
    build = DiagPosterior.__init__

    def lossy(self, model, tau, basis=None):
        build(self, model, tau, basis)
        if model.design.dtype == torch.float32:
            self.precision *= 1.01

    monkeypatch.setattr(DiagPosterior, "__init__", lossy)
    audit = CASES["multiclass"].score("diag", lsi.Newton(tol=1e-3), audit=12).audit
    assert audit.broken
    assert "trusts the run's fit of all samples." in audit.summary()


@pytest.mark.parametrize(("row", "scale"), [(7, 1e5), (7, 1e3)])
def test_the_smallest_scores_do_not_owe_their_value_to_what_the_fit_left(row, scale):
    """LSI of 1.5e-11 nats was off by 6e-6 at a certificate of 1e-8: the fit stopped at 4e-21 nats."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(300, 6)), random.integers(0, 3, 300)
    X[row] *= scale
    table = lsi.score(X, y, method=lsi.Newton(tol=1e-6), subset=[row], audit=False).to_frame()
    exact = Refit(X, y, 3, np.ones(300), 1e-4, True, "diag", 1.0).exact(np.array([row]), None)["exact"]
    assert abs(table["lsi"][0] / exact[0] - 1.0) <= table["relative_error"][0]


def test_small_is_what_takes_a_tenth_of_a_second():
    assert is_small(Shape(150, 5, 3, 150), "full")
    assert is_small(Shape(1797, 65, 10, 1797), "diag")
    assert not is_small(Shape(1797, 65, 10, 1797), "full")
    assert not is_small(Shape(50_000, 513, 10, 50_000), "diag")
