"""Where samples come from: named datasets, archives, folders, tables, arrays; and corruption on purpose."""

from lsi.data.corruption import Corruption, corrupt_labels, known_truth, read_transition
from lsi.data.files import read_npz
from lsi.data.human_noise import human_labels
from lsi.data.items import Items
from lsi.data.named import NAMED, PUBLISHED, load_named
from lsi.data.noise import corrupt_data
from lsi.data.options import SourceOptions
from lsi.data.samples import Samples
from lsi.data.sources import load_samples
from lsi.data.subsets import parse_subset, stratified_subset

__all__ = [
    "NAMED",
    "PUBLISHED",
    "Corruption",
    "Items",
    "Samples",
    "SourceOptions",
    "corrupt_data",
    "corrupt_labels",
    "human_labels",
    "known_truth",
    "load_named",
    "load_samples",
    "parse_subset",
    "read_npz",
    "read_transition",
    "stratified_subset",
]
