"""Probes, the models trained on the features: settings, mathematics and fit."""

from lsi.probes.linear import LinearProbe
from lsi.probes.networks import MLPProbe, ModuleProbe
from lsi.probes.ridge import RidgeProbe
from lsi.probes.sigmoid import SigmoidProbe

__all__ = ["LinearProbe", "MLPProbe", "ModuleProbe", "RidgeProbe", "SigmoidProbe"]
