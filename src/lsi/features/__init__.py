"""Features: frozen encoders, their cache, and the design matrix that the engines read."""

from lsi.features.cache import FeatureCache
from lsi.features.design import Design, row_space
from lsi.features.encoders import build_encoder
from lsi.features.encoding import EncodedSamples, FeatureSet, encode, encode_items

__all__ = [
    "Design",
    "EncodedSamples",
    "FeatureCache",
    "FeatureSet",
    "build_encoder",
    "encode",
    "encode_items",
    "row_space",
]
