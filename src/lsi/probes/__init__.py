"""What is trained on the features: settings, mathematics and fit of the probes."""

from lsi.probes.linear import LinearProbe

__all__ = ["LinearProbe"]
