"""Scores for a trained network as it is: capture the inputs of its last linear layer, and score them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lsi.errors import InputError, nearest
from lsi.features.modules import check_loader, join_labels, run_batches
from lsi.pipeline import score
from lsi.probes.linear import LinearProbe
from lsi.scores import Scores
from lsi.system.progress import Progress


def score_model(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layer: str | None = None,
    labels: Any = None,
    probe: LinearProbe | None = None,
    precision: str = "float32",
    progress: Progress | None = None,
    **settings: Any,
) -> Scores:
    r"""Score the samples that a classifier was trained on, whatever its architecture.

    The inputs :math:`x_i` of the network's last linear layer are the features; everything before that layer
    stays frozen. The layer itself is the linear probe. Its regularised optimum on these features is unique,
    so training ends at the same weights wherever it starts, and the layer's own weights are not used.
    ``manifest["network"]`` tells how often the network's own predictions agree with those of the probe.

    Args:
        model: A classifier: a module that returns logits ``(B, C)``, or an output of transformers.
        loader: Batches ``(inputs, labels)`` or mappings, in a fixed order.
        layer: Name of the layer in ``model.named_modules()``; None: the last `torch.nn.Linear` that the
            forward pass runs.
        labels: ``(N,)`` labels; None: those of the loader.
        probe: What is trained; None: a `LinearProbe` with an intercept if the layer has a bias.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for mixed precision.
        progress: Called as ``progress(stage, done, total)``.
        **settings: Further arguments of `lsi.score`.

    Returns:
        The scores; rows are in the order of the loader.

    Raises:
        InputError: If no linear layer is found, or the loader shuffles or gives no labels.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        >>> batches = [(torch.randn(10, 4), torch.arange(10) % 3) for _ in range(3)]
        >>> scores = score_model(model, batches, audit=False)
        >>> len(scores), scores.manifest["network"]["layer"]
        (30, '2')
    """
    check_loader(model, loader)
    batches = iter(loader)
    first = next(batches, None)
    if first is None:
        raise InputError("The loader gives no batches. If it is a used-up generator, make a new one.")
    name, head = find_head(model, first, layer)
    # A loader that draws at random would give other samples the second time, so the first batch is kept.
    captured = capture(model, head, _WithFirst(loader, first, batches), precision, progress)
    target = captured.labels if labels is None else np.asarray(labels)
    if target is None:
        raise InputError("The loader gives no labels. Give batches (inputs, labels), or labels=.")
    probe = probe or LinearProbe(fit_intercept=head.bias is not None)
    scores = score(captured.features, target, probe=probe, progress=progress, **settings)
    manifest = dict(scores.manifest)
    manifest["network"] = {
        "model": type(model).__name__,
        "layer": name,
        **_agreement(captured, scores, target),
    }
    return Scores(scores.to_frame(), manifest, scores.audit)


def find_head(model: nn.Module, batch: Any, layer: str | None = None) -> tuple[str, nn.Linear]:
    """Return name and module of the last linear layer."""
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if layer is not None:
        if layer not in linear:
            raise InputError(
                f"layer={layer!r} is not a torch.nn.Linear of this model. {nearest(layer, linear)}"
            )
        return layer, linear[layer]
    ran: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, part in linear.items()
    ]
    try:
        for _ in run_batches(model, [batch]):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise InputError(
            "No torch.nn.Linear ran in this model, so there is no layer to score. Extract features from the "
            "part before its classifier: lsi.extract_features(backbone, loader)."
        )
    return ran[-1], linear[ran[-1]]


@dataclass(eq=False)
class Captured:
    """The inputs of a layer, and the predictions of the network.

    Attributes:
        features: ``(N, D)`` float32 inputs of the layer.
        labels: ``(N,)`` labels of the loader, or None.
        predicted: ``(N,)`` codes of the classes that the network itself finds most likely.
    """

    features: np.ndarray
    labels: np.ndarray | None
    predicted: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def capture(
    model: nn.Module, head: nn.Linear, loader: Iterable[Any], precision: str, progress: Progress | None
) -> Captured:
    """Run a network over a loader and keep the inputs of one layer."""
    rows: list[Tensor] = []
    labels: list[np.ndarray] = []
    predicted: list[Tensor] = []
    with _inputs_of(head) as seen:
        for output, target, _ in run_batches(model, loader, precision=precision, progress=progress):
            logits = _logits(output)
            rows.append(_one_vector(seen.pop(), logits, head).float().cpu())
            predicted.append(logits.argmax(-1).cpu())
            seen.clear()
            if target is not None:
                labels.append(target)
    return Captured(torch.cat(rows).numpy(), join_labels(labels), torch.cat(predicted).numpy())


def _one_vector(inputs: Tensor, logits: Tensor, head: nn.Linear) -> Tensor:
    """Return the layer's input from which the logits were computed, `(B, D)`.

    Shapes: inputs `(B, D)`, or `(B, T, D)` where the layer ran on every token; logits `(B, C)`.
    """
    if inputs.ndim == 2 and len(inputs) == len(logits):
        return inputs
    if inputs.ndim == 3 and len(inputs) == len(logits) and logits.shape[-1] == head.out_features:
        # The layer ran on every token and the model took one of them: the one with these logits.
        distance = (head(inputs.to(head.weight.dtype)) - logits[:, None]).abs().amax(-1)
        token = distance.argmin(1)
        nearest_distance = distance.gather(1, token[:, None])
        if bool((nearest_distance <= 1e-2 * (1 + logits.abs().amax(-1, keepdim=True))).all()):
            return inputs[torch.arange(len(inputs), device=inputs.device), token]
    raise InputError(
        f"The last linear layer sees inputs of shape {tuple(inputs.shape)} for logits of shape "
        f"{tuple(logits.shape)}: not one vector for each sample. Name another layer with layer=."
    )


def _logits(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None and isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        found = output[0]
    if not isinstance(found, Tensor) or found.ndim != 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise InputError(f"The model must return logits (B, C), got {shape}. Wrap it in a module that does.")
    return found


@contextmanager
def _inputs_of(head: nn.Linear) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    hook = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    try:
        yield seen
    finally:
        hook.remove()


class _WithFirst:
    """A loader whose first batch was already read."""

    def __init__(self, loader: Iterable[Any], first: Any, rest: Iterator[Any]) -> None:
        self.dataset = getattr(loader, "dataset", None)
        self._batches = chain([first], rest)

    def __iter__(self) -> Iterator[Any]:
        return self._batches


def _agreement(captured: Captured, scores: Scores, target: np.ndarray) -> dict[str, float]:
    """Return the network's accuracy on the scored samples, and its agreement with the probe."""
    if target.dtype.kind not in "iu":  # only class codes tell which output belongs to which label
        return {}
    frame = scores.to_frame()
    said = captured.predicted[frame["position"].to_numpy()]
    return {
        "accuracy": float(np.mean(said == frame["label"].to_numpy())),
        "agreement_with_probe": float(np.mean(said == frame["loo_prediction"].to_numpy())),
    }
