"""``lsi apply``: the dataset written again after decisions on samples and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.errors import InputError
from lsi.system.text import plain_text

if TYPE_CHECKING:
    from lsi.decisions.files import Decisions


def apply(
    *paths: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    decisions: Path | None = None,
    keep: Annotated[str | None, Parameter(name=["--keep", "-k"])] = None,
    drop_mislabeled: str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    labels: Path | None = None,
    link: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a cleaned dataset in the format that it came in: `lsi apply CHANGES DATASET -o OUT`.

    CHANGES is a selection that `lsi select` wrote, decisions that the report exported, or a folder of scores
    with `--keep` or `--drop-mislabeled`. Samples are matched by id. Nothing is ever overwritten.

    Args:
        paths: CHANGES and DATASET; only DATASET with `--decisions`.
        output: File or folder to write, of the dataset's own type.
        decisions: Decisions exported from the report (.csv or .json).
        keep: For a folder of scores: what `lsi select --keep` takes.
        drop_mislabeled: For a folder of scores: what `lsi select --drop-mislabeled` takes.
        id_column: Column of ids, as when the data were scored.
        label_column: Column of the labels, as when the data were scored.
        labels: File with the labels of a .npy of features.
        link: Make hard links to the files of an image folder instead of copies.

    Raises:
        InputError: If changes and dataset do not fit together.
    """
    from lsi.data import SourceOptions, load_samples
    from lsi.data.writers.dataset import Changes, check_target, write_cleaned
    from lsi.decisions.files import by_row, read_decisions

    if len(paths) not in (1, 2) or (len(paths) == 1 and decisions is None):
        raise InputError("name the changes and the dataset: lsi apply kept.json data.npz -o cleaned.npz")
    options = SourceOptions(id_column=id_column, label_column=label_column, labels=labels)
    wanted = None if len(paths) == 1 else read_changes(paths[0], keep, drop_mislabeled)
    if decisions is not None:
        decided = read_decisions(decisions)
        wanted = decided if wanted is None else wanted.and_then(decided)
    assert wanted is not None  # there are changes, or decisions
    samples = load_samples(paths[-1], options)
    check_target(samples, output)
    kept, changed = by_row(wanted, samples.ids, samples.labels, samples.class_names)
    write_cleaned(samples, Changes(kept, changed), output, options, link)
    removed = len(samples) - int(kept.sum())
    print(f"{len(samples):,} samples: {removed:,} removed, {len(changed):,} relabelled, {kept.sum():,} left.")
    print(plain_text(f"Dataset: {output}", 400))


def read_changes(path: Path, keep: str | None, drop_mislabeled: str | None) -> Decisions:
    """Return the changes in a file, or those that `--keep` and `--drop-mislabeled` make of scores."""
    from lsi.cli.select import parse_drop, share_or_number
    from lsi.decisions.files import Decisions, read_decisions
    from lsi.scores import load

    if not path.is_dir():
        if keep is not None or drop_mislabeled is not None:
            raise InputError("--keep and --drop-mislabeled are for a folder of scores. Leave them out.")
        return read_decisions(path)
    scores = load(path)
    share = None if keep is None else share_or_number(keep, "--keep")
    positions = scores.select(share, drop_mislabeled=parse_drop(drop_mislabeled))
    table = scores.to_frame()
    kept = set(positions.tolist())
    gone = table[~table["position"].isin(kept)]["sample_id"].tolist()
    # Name what is removed, not what is kept: samples that were not scored are kept.
    return Decisions(remove=frozenset(str(value) for value in gone))
