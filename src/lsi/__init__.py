"""Laplace Sample Information: how much each training sample tells a model, in nats.

Names are imported when they are first used, so that `lsi --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsi.analysis.compare import compare
    from lsi.analysis.curation import curate
    from lsi.analysis.curves import curation_curves
    from lsi.analysis.difficulty import compare_datasets
    from lsi.analysis.redundancy import redundancy
    from lsi.analysis.sensitivity import Sensitivity, sensitivity
    from lsi.audit import Audit
    from lsi.errors import ConvergenceError, InputError, LsiError, OutputError
    from lsi.estimator import LaplaceSampleInformation
    from lsi.features.modules import extract_features
    from lsi.loo.algorithms import DPSGD, SAM, SGD, Adam, Schedule
    from lsi.loo.newton import Newton
    from lsi.loo.retrain import Retrain
    from lsi.network import score_model
    from lsi.pairs import score_pairs
    from lsi.pipeline import score
    from lsi.plan import make_plan
    from lsi.probes import LinearProbe, MLPProbe, ModuleProbe, RidgeProbe, SigmoidProbe
    from lsi.probes.contrastive import ContrastiveProbe
    from lsi.scores import Scores, load
    from lsi.shards import merge

_HOME = {
    "Adam": "lsi.loo.algorithms",
    "Audit": "lsi.audit",
    "ContrastiveProbe": "lsi.probes.contrastive",
    "ConvergenceError": "lsi.errors",
    "DPSGD": "lsi.loo.algorithms",
    "InputError": "lsi.errors",
    "LaplaceSampleInformation": "lsi.estimator",
    "LinearProbe": "lsi.probes",
    "LsiError": "lsi.errors",
    "MLPProbe": "lsi.probes",
    "ModuleProbe": "lsi.probes",
    "Newton": "lsi.loo.newton",
    "OutputError": "lsi.errors",
    "Retrain": "lsi.loo.retrain",
    "RidgeProbe": "lsi.probes",
    "SAM": "lsi.loo.algorithms",
    "SGD": "lsi.loo.algorithms",
    "Schedule": "lsi.loo.algorithms",
    "Scores": "lsi.scores",
    "Sensitivity": "lsi.analysis.sensitivity",
    "SigmoidProbe": "lsi.probes",
    "compare": "lsi.analysis.compare",
    "compare_datasets": "lsi.analysis.difficulty",
    "curate": "lsi.analysis.curation",
    "curation_curves": "lsi.analysis.curves",
    "extract_features": "lsi.features.modules",
    "load": "lsi.scores",
    "make_plan": "lsi.plan",
    "merge": "lsi.shards",
    "redundancy": "lsi.analysis.redundancy",
    "score": "lsi.pipeline",
    "score_model": "lsi.network",
    "score_pairs": "lsi.pairs",
    "sensitivity": "lsi.analysis.sensitivity",
}

__all__ = [
    "Adam",
    "Audit",
    "ContrastiveProbe",
    "ConvergenceError",
    "DPSGD",
    "InputError",
    "LaplaceSampleInformation",
    "LinearProbe",
    "LsiError",
    "MLPProbe",
    "ModuleProbe",
    "Newton",
    "OutputError",
    "Retrain",
    "RidgeProbe",
    "SAM",
    "SGD",
    "Schedule",
    "Scores",
    "Sensitivity",
    "SigmoidProbe",
    "compare",
    "compare_datasets",
    "curate",
    "curation_curves",
    "extract_features",
    "load",
    "make_plan",
    "merge",
    "redundancy",
    "score",
    "score_model",
    "score_pairs",
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lsi' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
