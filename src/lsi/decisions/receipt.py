"""The receipt of a cleaned dataset: what was changed, and every changed row as it was before.

A receipt is a folder with `receipt.json` and, where rows changed, a dataset `before` of the same type that
holds them. With it and the cleaned dataset the original comes back, even if the original is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsi.data.options import SourceOptions
from lsi.data.readers.files import find_labels
from lsi.data.readers.table_files import open_table_file
from lsi.data.samples import Samples
from lsi.data.sources import load_samples
from lsi.data.writers.arrays import labels_beside
from lsi.data.writers.dataset import Changes, place_of, tables_in, write_cleaned
from lsi.data.writers.folder import names_of, place_in
from lsi.data.writers.restore import join_labels, restore_file, restore_images, restore_tables
from lsi.errors import InputError, LsiError, OutputError
from lsi.results.marks import COLUMNS, RECEIPT, Mark, from_fields, read_mark
from lsi.system.door import Refused, open_regular, read_bytes, read_json
from lsi.system.files import check_new, new_file, new_folder
from lsi.system.machine import available_memory
from lsi.system.npy import npz_names, open_safetensors, read_npz

FILE, BEFORE = "receipt.json", "before"
ENDING = ".receipt"


def receipt_of(output: Path) -> Path:
    """Return where the receipt of a cleaned dataset is: a folder next to it."""
    if not output.name:
        raise OutputError(
            f"'{output}' is no name for the cleaned dataset. Give --output a new file or folder."
        )
    return output.with_name(output.name + ENDING)


def check_receipt(output: Path) -> None:
    """Refuse to clean where another receipt lies; one whose dataset never arrived may be written again."""
    place = receipt_of(output)
    mark = read_mark(place)
    if mark is None or mark.kind != RECEIPT:
        check_new(place)


def write_receipt(
    samples: Samples,
    changes: Changes,
    output: Path,
    options: SourceOptions,
    drafts: Sequence[Path],
    about: Mark | None = None,
) -> None:
    """Write the receipt of a dataset whose files are about to become `output`; `about` marks the changes."""
    place, source = receipt_of(output), place_of(samples)
    changed = ~changes.keep
    changed[[row for row in changes.labels if changes.keep[row]]] = True
    content = _content(samples, changes, options, about) | {"digest": digest(drafts)}
    text = json.dumps(content) + "\n"
    if os.path.lexists(place):  # left by an interrupted run, if it is the very same
        if not (place / FILE).is_file() or read_bytes(place / FILE, "text") != text.encode():
            raise OutputError(
                f"{str(place)!r} is the receipt of another dataset of that name. Choose another name, or "
                f"move it."
            )
        return
    with new_folder(place) as folder:
        if changed.any():
            before = folder / (BEFORE + source.suffix if source.is_file() else BEFORE)
            write_cleaned(samples, Changes(changed, {}), before, options)
        (folder / FILE).write_text(text, encoding="utf-8")


def _content(
    samples: Samples, changes: Changes, options: SourceOptions, about: Mark | None
) -> dict[str, Any]:
    """Return what the receipt says, apart from the digest of the result."""
    source, told = place_of(samples), options.describe()
    mark = Mark(
        RECEIPT,
        run=about.run if about else None,
        dataset_fingerprint=samples.fingerprint(),
        columns={name: told[name] for name in COLUMNS if name in told},
    )
    more: dict[str, Any] = {}
    if source.is_dir():
        tables = tables_in(source)
        if tables:
            more["tables"] = [[path.name, open_table_file(path).n_rows] for path in tables]
        elif changes.labels:
            names = names_of(source, samples)
            more["moved"] = [
                place_in(names[row], label).as_posix()
                for row, label in sorted(changes.labels.items())
                if changes.keep[row]
            ]
    elif source.suffix.lower() == ".npy":
        more["labels"] = find_labels(source, options).suffix
    elif source.suffix.lower() in (".npz", ".safetensors") and not options.id_column:
        more["added"] = [] if _has_ids(source) else ["ids"]
    return {
        **mark.fields(),
        "source": source.name,
        "n": len(samples),
        "removed": _ranges(~changes.keep),
        "relabelled": sorted(row for row in changes.labels if changes.keep[row]),
        **more,
    }


def _has_ids(source: Path) -> bool:
    if source.suffix.lower() == ".npz":
        return "ids" in npz_names(source)
    with open_safetensors(source) as file:
        return "ids" in file.keys()  # noqa: SIM118 - not a mapping


def _ranges(flags: np.ndarray) -> list[list[int]]:
    """Return the half-open ranges of rows that are True."""
    edges: list[list[int]] = (
        np.flatnonzero(np.diff(np.r_[0, flags.astype(np.int8), 0])).reshape(-1, 2).tolist()
    )
    return edges


def digest(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of files, and of the names and files in folders."""
    found = hashlib.sha256()
    for path in paths:
        inner = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for each in inner:
            name = each.relative_to(path).as_posix() if path.is_dir() else ""
            found.update(f"{len(os.fsencode(name))}:".encode() + os.fsencode(name))
            with open_regular(each) as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


@dataclass(frozen=True)
class Receipt:
    """A receipt that was read and checked.

    Attributes:
        folder: Where it is.
        content: What `receipt.json` says.
        keep: `(N,)` bool, which rows the cleaned dataset has.
        changed: `(N,)` bool, which rows `before` has.
    """

    folder: Path
    content: Mapping[str, Any]
    keep: np.ndarray
    changed: np.ndarray

    @property
    def dataset(self) -> Path:
        """Where the cleaned dataset is, if neither was moved."""
        return self.folder.with_name(self.folder.name.removesuffix(ENDING))

    @property
    def before(self) -> Path:
        """The dataset of the changed rows, as they were."""
        suffix = "" if "tables" in self.content else Path(self.content["source"]).suffix
        plain = self.folder / BEFORE
        return plain if plain.is_dir() else self.folder / (BEFORE + suffix)


def read_receipt(path: Path) -> Receipt:
    """Return a receipt, given its folder or the file in it."""
    folder = path.absolute().parent if path.name == FILE else path.absolute()
    mark = read_mark(folder)
    if mark is None or mark.kind != RECEIPT:
        told = mark.noun if mark else "nothing that lsi wrote as one"
        raise InputError(
            f"{str(path)!r} is {told}, and --undo takes the receipt ({RECEIPT}) that `lsi apply` wrote "
            f"next to the cleaned dataset, such as cleaned.npz{ENDING}."
        )
    mark.checked(path)
    damaged = f"{str(path)!r} is a receipt that is damaged. Restore it from a copy."
    try:
        content = read_json(folder / FILE)
        _check_content(content)
        keep = np.ones(content["n"], dtype=bool)
        for low, high in content["removed"]:
            keep[low:high] = False
        changed = ~keep
        changed[np.asarray(content["relabelled"], dtype=np.int64)] = True
    except Refused:
        raise
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise InputError(damaged) from error
    return Receipt(folder, content, keep, changed)


def _check_content(content: Mapping[str, Any]) -> None:
    """Raise where an entry is not what `write_receipt` writes: a receipt may come from anyone."""
    n, have, names = content["n"], available_memory(), [*content.get("moved", []), *content.get("added", [])]
    tables = content.get("tables", [])
    if type(n) is not int or n < 1 or (have is not None and n > have / 4):  # three arrays of flags
        raise ValueError("n")
    numbers = [*content["relabelled"], *(edge for low, high in content["removed"] for edge in (low, high))]
    numbers += [count for _, count in tables]
    if any(type(number) is not int or not 0 <= number <= n for number in numbers):
        raise ValueError("rows")
    names += [name for name, _ in tables]
    texts = [content["source"], content["digest"], *names, content.get("labels", ".npy")]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise ValueError("text")
    if any(os.path.isabs(name) or not name or ".." in Path(name).parts for name in names):
        raise ValueError("name")
    if not re.fullmatch(r"\.\w{1,10}", content.get("labels", ".npy")):
        raise ValueError("labels")


def undo(receipt: Receipt, cleaned: Path, output: Path) -> None:
    """Write the dataset as it was before; it must have the fingerprint that it had."""
    content, before = receipt.content, receipt.before
    labels = content.get("labels")
    parts = [cleaned] + ([labels_beside(cleaned, labels)] if labels else [])
    for part in parts:
        if not part.exists():
            raise InputError(
                f"{str(part)!r} is missing: name the cleaned dataset: lsi apply --undo {receipt.folder.name} "
                "CLEANED -o OUT"
            )
    if digest(parts) != content["digest"]:
        raise InputError(
            f"{str(cleaned)!r} is not the dataset that the receipt {str(receipt.folder)!r} is for, or it "
            "has changed since. Give it as `lsi apply` wrote it."
        )
    if cleaned.is_file() and output.suffix.lower() != cleaned.suffix.lower():
        raise InputError(f"the dataset keeps its format: give {str(output)!r} the suffix {cleaned.suffix!r}.")
    try:
        _write(receipt, cleaned, before if receipt.changed.any() else cleaned, output)
    except LsiError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, EOFError, StopIteration) as error:
        raise InputError(
            f"{str(before)!r} does not hold the rows that the receipt says ({error}). Restore the receipt "
            "from a copy."
        ) from error


def _write(receipt: Receipt, cleaned: Path, before: Path, output: Path) -> None:
    keep, changed, content = receipt.keep, receipt.changed, receipt.content
    if not changed.any():
        changed = np.ones(len(keep), dtype=bool)  # nothing changed: all rows are as they were
    if cleaned.is_dir():
        with new_folder(output) as staging:
            if "tables" in content:
                sizes = [(str(name), int(count)) for name, count in content["tables"]]
                restore_tables(cleaned, before, staging, sizes, keep, changed)
            else:
                restore_images(cleaned, receipt.before, staging, content.get("moved", []))
            _check(content, staging, None)
        return
    labels = content.get("labels")
    with new_file(output) as staging:
        restore_file(cleaned, before, staging, keep, changed)
        if content.get("added"):
            _without(staging, content["added"])
        if not labels:
            _check(content, staging, None)
            return
        with new_file(labels_beside(output, labels), again=True) as beside:
            join_labels(labels_beside(cleaned, labels), labels_beside(before, labels), beside, keep, changed)
            _check(content, staging, beside)


def _without(path: Path, names: Sequence[str]) -> None:
    """Take out of a file what only the cleaned dataset has."""
    if path.suffix.lower() == ".npz":
        from lsi.data.writers.arrays import save_npz

        save_npz(path, read_npz(path, [name for name in npz_names(path) if name not in names]))
        return
    from safetensors.torch import save_file

    with open_safetensors(path) as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name not in names}  # noqa: SIM118
        metadata = file.metadata()
    save_file(kept, path, metadata)


def _check(content: Mapping[str, Any], staging: Path, labels: Path | None) -> None:
    """Refuse a result that is not what the receipt promises."""
    mark = from_fields(content)
    options = SourceOptions(**(mark.columns if mark else {}), labels=labels)
    if mark is None or load_samples(staging, options).fingerprint() != mark.dataset_fingerprint:
        raise InputError("the receipt is damaged: what it gives back is not the dataset it speaks of.")
