"""Features: frozen encoders, their cache, and the design matrix that the engines read."""

from lsi.features.cache import FeatureCache
from lsi.features.design import Design, row_space
from lsi.features.encoders import build_encoder
from lsi.features.encoding import FeatureSet, encode

__all__ = ["Design", "FeatureCache", "FeatureSet", "build_encoder", "encode", "row_space"]
