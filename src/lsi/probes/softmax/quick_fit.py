"""A linear probe near its optimum, in seconds at any size, for its accuracy or its residuals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lsi.errors import InputError
from lsi.features.design import Design
from lsi.probes.linear import LinearProbe
from lsi.probes.softmax.fit import warm_start
from lsi.probes.softmax.model import SoftmaxModel
from lsi.validation.settings import AUTO

_ROWS = 8192
_LEAST_DECAY = 1e-8  # without weight decay, separable classes have no optimum


@dataclass(frozen=True)
class QuickFit:
    """A linear probe near its optimum.

    Attributes:
        weight: `(C, D)` float32, without the intercept.
        intercept: `(C,)` float32.
    """

    weight: np.ndarray
    intercept: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return `(n, C)` float32 logits of `(n, D)` features."""
        out = np.empty((len(features), len(self.intercept)), dtype=np.float32)
        for start in range(0, len(features), _ROWS):
            block = np.asarray(features[start : start + _ROWS], dtype=np.float32)
            out[start : start + _ROWS] = block @ self.weight.T + self.intercept
        return out

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the `(n,)` most likely class codes."""
        return np.asarray(self.logits(features).argmax(axis=1))


def quick_model(
    features: np.ndarray,
    target: np.ndarray,
    classes: np.ndarray,
    probe: LinearProbe,
    device: torch.device | str = "cpu",
) -> SoftmaxModel:
    """Train a linear probe by L-BFGS in whitened coordinates, until its gradient is small.

    Shapes: features `(N, D)`, target `(N,)`, classes `(C,)`.
    """
    if probe.weight_decay == AUTO:
        raise InputError("weight_decay='auto' is for lsi.score. Give this probe a number, such as 1e-2.")
    design = Design(features, probe.fit_intercept, torch.float32, device)
    weight = torch.from_numpy(probe.sample_weights(target, classes))
    model = SoftmaxModel.start(
        design,
        torch.from_numpy(np.ascontiguousarray(target)).to(design.device),
        weight.to(design.device),
        max(float(probe.weight_decay), _LEAST_DECAY),
        len(classes),
    )
    return replace(model, theta=warm_start(model))


def quick_fit(features: np.ndarray, target: np.ndarray, classes: np.ndarray, probe: LinearProbe) -> QuickFit:
    """Train as `quick_model` does, and return the weights alone.

    Shapes: features `(N, D)`, target `(N,)`, classes `(C,)`.
    """
    model = quick_model(features, target, classes, probe)
    theta = (model.contrasts @ model.theta).to(torch.float32).cpu().numpy()
    if probe.fit_intercept:
        return QuickFit(theta[:, :-1], theta[:, -1])
    return QuickFit(theta, np.zeros(len(theta), dtype=np.float32))


def probe_of(manifest: Mapping[str, Any]) -> LinearProbe:
    """Return the linear probe that a manifest describes; the default one where it describes none."""
    described = (manifest.get("config") or {}).get("probe") or {}
    if described.get("kind") != "linear":
        return LinearProbe()
    weight = described.get("class_weight")
    return LinearProbe(
        weight_decay=float(described.get("weight_decay", 1e-4)),
        fit_intercept=bool(described.get("fit_intercept", True)),
        class_weight=weight if isinstance(weight, str) else None,
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return `(n, C)` probabilities of logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
