"""Laplace Sample Information: how much each training sample tells a model, in nats.

Names are imported when they are first used, so that `lsi --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsi.analysis.compare import compare
    from lsi.analysis.difficulty import compare_datasets
    from lsi.analysis.redundancy import redundancy
    from lsi.errors import ConvergenceError, InputError, LsiError, OutputError
    from lsi.estimator import LaplaceSampleInformation
    from lsi.features.modules import extract_features
    from lsi.merging import merge
    from lsi.methods import Newton, Retrain
    from lsi.methods.algorithms import DPSGD, SAM, SGD, Adam, Schedule
    from lsi.network import score_model
    from lsi.pipeline import score, score_pairs
    from lsi.planning.plan import make_plan
    from lsi.probes import LinearProbe, MLPProbe, ModuleProbe, RidgeProbe, SigmoidProbe
    from lsi.probes.contrastive import ContrastiveProbe
    from lsi.results.audit import Audit
    from lsi.scores import Scores, load
    from lsi.studies.curation import curate
    from lsi.studies.curves import curation_curves
    from lsi.studies.sensitivity import Sensitivity, sensitivity

_HOME = {
    "Adam": "lsi.methods.algorithms",
    "Audit": "lsi.results.audit",
    "ContrastiveProbe": "lsi.probes.contrastive",
    "ConvergenceError": "lsi.errors",
    "DPSGD": "lsi.methods.algorithms",
    "InputError": "lsi.errors",
    "LaplaceSampleInformation": "lsi.estimator",
    "LinearProbe": "lsi.probes",
    "LsiError": "lsi.errors",
    "MLPProbe": "lsi.probes",
    "ModuleProbe": "lsi.probes",
    "Newton": "lsi.methods",
    "OutputError": "lsi.errors",
    "Retrain": "lsi.methods",
    "RidgeProbe": "lsi.probes",
    "SAM": "lsi.methods.algorithms",
    "SGD": "lsi.methods.algorithms",
    "Schedule": "lsi.methods.algorithms",
    "Scores": "lsi.scores",
    "Sensitivity": "lsi.studies.sensitivity",
    "SigmoidProbe": "lsi.probes",
    "compare": "lsi.analysis.compare",
    "compare_datasets": "lsi.analysis.difficulty",
    "curate": "lsi.studies.curation",
    "curation_curves": "lsi.studies.curves",
    "extract_features": "lsi.features.modules",
    "load": "lsi.scores",
    "make_plan": "lsi.planning.plan",
    "merge": "lsi.merging",
    "redundancy": "lsi.analysis.redundancy",
    "score": "lsi.pipeline",
    "score_model": "lsi.network",
    "score_pairs": "lsi.pipeline",
    "sensitivity": "lsi.studies.sensitivity",
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
