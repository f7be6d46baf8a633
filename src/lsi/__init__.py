"""Laplace Sample Information: how much each training sample tells a model, in nats.

Names are imported when they are first used, so that `lsi --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsi.audit import Audit
    from lsi.errors import ConvergenceError, InputError, LsiError, OutputError
    from lsi.estimator import LaplaceSampleInformation
    from lsi.features.modules import extract_features
    from lsi.loo.newton import Newton
    from lsi.loo.retrain import Retrain
    from lsi.network import score_model
    from lsi.pipeline import score
    from lsi.probes import LinearProbe, RidgeProbe, SigmoidProbe
    from lsi.scores import Scores, load

_HOME = {
    "Audit": "lsi.audit",
    "ConvergenceError": "lsi.errors",
    "InputError": "lsi.errors",
    "LaplaceSampleInformation": "lsi.estimator",
    "LinearProbe": "lsi.probes",
    "LsiError": "lsi.errors",
    "Newton": "lsi.loo.newton",
    "OutputError": "lsi.errors",
    "Retrain": "lsi.loo.retrain",
    "RidgeProbe": "lsi.probes",
    "Scores": "lsi.scores",
    "SigmoidProbe": "lsi.probes",
    "extract_features": "lsi.features.modules",
    "load": "lsi.scores",
    "score": "lsi.pipeline",
    "score_model": "lsi.network",
}

__all__ = [
    "Audit",
    "ConvergenceError",
    "InputError",
    "LaplaceSampleInformation",
    "LinearProbe",
    "LsiError",
    "Newton",
    "OutputError",
    "Retrain",
    "RidgeProbe",
    "Scores",
    "SigmoidProbe",
    "extract_features",
    "load",
    "score",
    "score_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lsi' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
