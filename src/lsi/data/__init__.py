"""Samples from named datasets, archives, folders, tables and arrays; and changes to them on purpose."""

from lsi.data.archives.named import NAMED, PUBLISHED, load_named
from lsi.data.corruption.human import human_labels
from lsi.data.corruption.items import corrupt_data
from lsi.data.corruption.labels import Corruption, corrupt_labels, known_truth, read_transition
from lsi.data.corruption.steps import corrupt
from lsi.data.items import Items
from lsi.data.options import SourceOptions
from lsi.data.preparation.plan import TablePreparation
from lsi.data.preparation.table import prepare_table
from lsi.data.readers.files import read_npz
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
    "TablePreparation",
    "corrupt",
    "corrupt_data",
    "corrupt_labels",
    "human_labels",
    "known_truth",
    "load_named",
    "load_samples",
    "parse_subset",
    "prepare_table",
    "read_npz",
    "read_transition",
    "stratified_subset",
]
