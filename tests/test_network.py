"""`lsi.score_model` on different architectures against features extracted by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lsi
from lsi.errors import InputError

N, CLASSES = 30, 3
Y = torch.arange(N) % CLASSES


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(6, CLASSES)  # defined first, run last
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.classifier(self.drop(self.body(x).flatten(1)))


def cnn():
    model = Cnn()
    images = torch.randn(N, 3, 8, 8, generator=generator())
    return model, TensorDataset(images, Y), lambda: model.body(images).flatten(1), "classifier", True


def tabular():
    model = nn.Sequential(nn.Linear(7, 12), nn.GELU(), nn.LayerNorm(12), nn.Linear(12, CLASSES, bias=False))
    rows = torch.randn(N, 7, generator=generator())
    return model, TensorDataset(rows, Y), lambda: model[:3](rows), "3", False


class Keyed(torch.utils.data.Dataset):
    """Samples as mappings, as the data collators of transformers give them."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return N

    def __getitem__(self, k):
        return {name: values[k] for name, values in self.columns.items()}


def vision_transformer():
    transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=16,
        patch_size=8, num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    images = torch.randn(N, 3, 16, 16, generator=generator())
    return (
        model,
        Keyed(pixel_values=images, labels=Y),
        lambda: model.vit(images).last_hidden_state[:, 0],
        "classifier",
        True,
    )


def tokens():
    return torch.randint(5, 20, (N, 6), generator=generator())


def text_classifier():
    transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=16, num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    return (
        model,
        Keyed(input_ids=tokens(), labels=Y),
        lambda: model.bert(tokens()).pooler_output,
        "classifier",
        True,
    )


def decoder_classifier():
    """Its head runs on every token, and the last one's logits are taken."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=12, n_layer=1, n_head=2, n_positions=16, num_labels=CLASSES, pad_token_id=0
    )
    model = transformers.GPT2ForSequenceClassification(config)
    expected = lambda: model.transformer(tokens()).last_hidden_state[:, -1]  # noqa: E731
    return model, Keyed(input_ids=tokens(), labels=Y), expected, "score", False


@pytest.mark.parametrize("make", [cnn, tabular, vision_transformer, text_classifier, decoder_classifier])
def test_scores_equal_those_of_features_taken_by_hand(make):
    torch.manual_seed(0)
    model, dataset, by_hand, layer, bias = make()
    scores = lsi.score_model(model, DataLoader(dataset, batch_size=7), audit=False)
    model.eval()
    with torch.no_grad():
        features = by_hand()
    probe = lsi.LinearProbe(fit_intercept=bias)
    expected = lsi.score(features.numpy(), Y.numpy(), probe=probe, audit=False)
    np.testing.assert_allclose(scores.lsi, expected.lsi, rtol=1e-4)
    assert scores.manifest["network"]["layer"] == layer
    assert 0 <= scores.manifest["network"]["accuracy"] <= 1


def test_the_probe_ends_at_the_same_weights_as_a_layer_trained_to_its_optimum():
    """Starting weights do not matter: a layer that is trained on to the optimum agrees with the probe."""
    model, dataset, by_hand, *_ = tabular()
    with torch.no_grad():
        features = by_hand().double()
    head = nn.Linear(12, CLASSES, bias=False).double()
    optimiser = torch.optim.LBFGS(
        head.parameters(), max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10
    )

    def loss():
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(head(features), Y) + 0.5e-2 * head.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    model[3].weight.data = head.weight.data.float()
    probe = lsi.LinearProbe(weight_decay=1e-2, fit_intercept=False)
    scores = lsi.score_model(model, DataLoader(dataset, batch_size=7), probe=probe, audit=False)
    assert scores.manifest["network"]["accuracy"] == scores.manifest["fit"]["train_accuracy"]


def test_labels_and_settings_are_passed_on():
    model, dataset, *_ = tabular()
    words = np.array(["a", "b", "c"])[Y.numpy()]
    scores = lsi.score_model(
        model, DataLoader(dataset, batch_size=7), labels=words, subset=[4, 2], posterior="kron", audit=2
    )
    assert scores.to_frame()["position"].tolist() == [4, 2]
    assert scores.manifest["classes"] == ["a", "b", "c"]
    assert scores.manifest["config"]["posterior"] == "kron"


def test_a_generator_is_read_once():
    model, dataset, *_ = tabular()
    batches = ((dataset[k : k + 5]) for k in range(0, N, 5))
    assert len(lsi.score_model(model, batches, audit=False)) == N


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(7, CLASSES, 1)

    def forward(self, x):
        return self.conv(x[..., None])[..., 0]


def test_what_cannot_be_scored_says_why():
    model, dataset, *_ = tabular()
    load = DataLoader(dataset, batch_size=7)
    with pytest.raises(InputError, match="No torch.nn.Linear ran"):
        lsi.score_model(Convolutional(), load)
    with pytest.raises(InputError, match="Did you mean '3'|Known: '0', '3'"):
        lsi.score_model(model, load, layer="33")
    with pytest.raises(InputError, match="shuffles"):
        lsi.score_model(model, DataLoader(dataset, shuffle=True))
    with pytest.raises(InputError, match="no labels"):
        lsi.score_model(model, [dataset[:][0]])
    with pytest.raises(InputError, match="no batches"):
        lsi.score_model(model, [])


def test_labels_may_be_texts():
    model, dataset, *_ = tabular()
    inputs, codes = dataset[:]
    names = np.array(["a", "b", "c"])[codes.numpy()]
    told = lsi.score_model(model, [(inputs, names.tolist())], audit=False)
    np.testing.assert_array_equal(told.lsi, lsi.score_model(model, [(inputs, codes)], audit=False).lsi)
    assert set(told.to_frame()["label"]) == {"a", "b", "c"}
