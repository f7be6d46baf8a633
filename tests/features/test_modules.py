import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lsi
from lsi.errors import InputError

X = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(23) % 3


def loader(**options):
    return DataLoader(TensorDataset(X, Y), batch_size=8, **options)


def test_features_in_the_order_of_the_loader():
    module = nn.Linear(5, 4)
    features, labels = lsi.extract_features(module, loader())
    np.testing.assert_allclose(features, module(X).detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, Y.numpy())


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first = lsi.extract_features(module, loader()).features
    np.testing.assert_array_equal(lsi.extract_features(module, loader()).features, first)
    assert [module.training, module[1].training, module[2].training] == [True, True, False]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name])


def batches_of(kind):
    for start in range(0, 23, 8):
        x, y = X[start : start + 8], Y[start : start + 8]
        yield {
            "pair": (x, y),
            "dict": {"x": x, "labels": y},
            "alone": x,
            "triple": (x, x, y),
        }[kind]


class Twice(nn.Module):
    def forward(self, x, other=None):
        return 2 * x if other is None else x + other


@pytest.mark.parametrize("kind", ["pair", "dict", "alone", "triple"])
def test_batches_of_several_kinds(kind):
    features, labels = lsi.extract_features(Twice(), batches_of(kind))
    np.testing.assert_allclose(features, 2 * X.numpy(), rtol=1e-6)
    assert (labels is None) == (kind == "alone")


def test_progress_counts_samples():
    seen = []
    lsi.extract_features(nn.Identity(), loader(), progress=lambda *step: seen.append(step))
    assert seen == [("encode", 8, 23), ("encode", 16, 23), ("encode", 23, 23)]


@pytest.mark.parametrize(
    ("options", "message"), [({"shuffle": True}, "shuffles"), ({"drop_last": True}, "drop_last=False")]
)
def test_loaders_that_lose_the_order_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        lsi.extract_features(nn.Identity(), loader(**options))


def test_empty_loaders_and_unknown_settings_are_refused():
    with pytest.raises(InputError, match="no batches"):
        lsi.extract_features(nn.Identity(), [])
    with pytest.raises(InputError, match="pooling="):
        lsi.extract_features(nn.Identity(), loader(), pooling="sum")
    with pytest.raises(InputError, match="precision="):
        lsi.extract_features(nn.Identity(), loader(), precision="int8")
    with pytest.raises(InputError, match="one class for each sample"):
        lsi.extract_features(nn.Identity(), [(X, torch.eye(23))])


def test_labels_may_be_texts():
    names = [str(code) for code in Y.tolist()]
    whole = lsi.extract_features(nn.Identity(), [(X, names)]).labels
    parts = lsi.extract_features(nn.Identity(), [(X[:9], names[:9]), (X[9:], tuple(names[9:]))]).labels
    assert whole.tolist() == parts.tolist() == names
    mapping = [{"input": X, "label": names}]
    assert lsi.extract_features(nn.Identity(), mapping).labels.tolist() == names


@pytest.mark.parametrize(
    ("module", "batches", "message"),
    [
        (nn.Identity(), [(X, Y, torch.arange(23))], r"\[\(x, y\) for x, y, \*_ in loader\]"),
        (LogisticRegression(), X, r"LogisticRegression is no torch module.*lsi\.score\(X, y\)"),
        (nn.Identity(), X, "TensorDataset"),
        (nn.Identity(), X.numpy(), "TensorDataset"),
        (nn.Identity(), [(X, [{}] * 23)], "neither numbers nor texts"),
    ],
)
@pytest.mark.parametrize("call", [lsi.extract_features, lsi.score_model])
def test_what_is_no_module_or_no_batch_is_told_what_to_do(call, module, batches, message):
    with pytest.raises(InputError, match=message):
        call(module, batches)
