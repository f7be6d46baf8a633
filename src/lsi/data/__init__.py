"""Where samples come from: named datasets and files, label corruption, safe display of foreign text."""

from lsi.data.corruption import Corruption, corrupt_labels
from lsi.data.files import read_npz
from lsi.data.named import NAMED, load_named
from lsi.data.samples import Samples
from lsi.data.sources import load_samples
from lsi.data.subsets import parse_subset, stratified_subset

__all__ = [
    "NAMED",
    "Corruption",
    "Samples",
    "corrupt_labels",
    "load_named",
    "load_samples",
    "parse_subset",
    "read_npz",
    "stratified_subset",
]
