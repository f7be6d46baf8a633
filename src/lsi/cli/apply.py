"""``lsi apply``: the dataset written again after decisions on samples and labels."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lsi.cli.inputs.options import OTHER_FORM, AgainOptions
from lsi.errors import InputError
from lsi.system.text import plain_text

if TYPE_CHECKING:
    from lsi.data import Samples, SourceOptions
    from lsi.decisions.files import Decisions
    from lsi.results.marks import Mark

Flag = Annotated[bool, Parameter(negative="")]
_ASKED = 0.1
"""Share of the rows above which removing them is asked about."""
_AGAIN = AgainOptions()


@dataclass(frozen=True)
class _Changes:
    """One file or folder of changes: what it is called, decides, and says about itself."""

    name: str
    decisions: Decisions
    mark: Mark | None


def apply(
    *paths: Path,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    decisions: Path | None = None,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    keep: Annotated[str | None, Parameter(name=["--keep", "-k"])] = None,
    drop_mislabeled: str | None = None,
    dry_run: Flag = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    undo: Path | None = None,
    new_classes: Flag = False,
    receipt: bool = True,
    link: Flag = False,
    again: AgainOptions = _AGAIN,
) -> None:
    """Write a cleaned dataset in the format that it came in: `lsi apply CHANGES DATASET -o OUT`.

    CHANGES is a selection that `lsi select` wrote, decisions that the report exported, a list of suspects
    that `lsi mislabeled` wrote, or a folder of scores with `--keep` or `--drop-mislabeled`. Samples are
    matched by id. A file of changes is applied only to the data that it speaks of. Nothing is ever
    overwritten, and a receipt next to the output can undo it: `lsi apply --undo OUT.receipt -o ORIGINAL`.

    Args:
        paths: CHANGES and DATASET; only DATASET with `--decisions`; with `--undo` the cleaned dataset, if it
            was moved away from its receipt.
        output: File or folder to write, of the dataset's own type.
        decisions: Decisions exported from the report (.csv or .json), after CHANGES.
        as_: What the samples in a list are: `keep` (all others go), `remove`, `relabel` (to their suggested
            label), or `decisions` (each row has its own). A list of suspects takes the last three; a file
            that does not say what it is needs one of the four.
        keep: For a folder of scores: what `lsi select --keep` takes.
        drop_mislabeled: For a folder of scores: what `lsi select --drop-mislabeled` takes.
        dry_run: Show the plan, and write nothing.
        yes: Do not ask, even if more than a tenth of the rows goes.
        undo: Receipt of a cleaned dataset: write the dataset as it was before.
        new_classes: Allow new labels that no sample of the dataset has.
        receipt: Write a receipt, which holds the rows that were removed or relabelled.
        link: Make hard links to the files of an image folder instead of copies.
        again: How the dataset is read.

    Raises:
        InputError: If changes and dataset do not fit together, or nobody agreed to the plan.
    """
    from lsi.data import SourceOptions, load_samples

    if output is None and not dry_run:
        raise InputError(
            "name the cleaned dataset: lsi apply CHANGES DATASET -o OUT, or look first with --dry-run"
        )
    if undo is not None:
        _undo(undo, paths, None if dry_run else output)
        return
    if len(paths) not in (1, 2) or (len(paths) == 1 and decisions is None):
        raise InputError("name the changes and the dataset: lsi apply kept.json data.npz -o cleaned.npz")
    if as_ is not None and len(paths) == 1:
        raise InputError("--as says what CHANGES are, and only --decisions are given. Leave it out.")
    _check_places(paths, decisions, again.labels, output, receipt)
    given = [_read(paths[0], as_, keep, drop_mislabeled)] if len(paths) == 2 else []
    if decisions is not None:
        given.append(_read(decisions, "decisions", None, None))
    columns = dict(given[0].mark.columns) if given[0].mark else {}
    options = SourceOptions(**(columns | again.columns()), labels=again.labels)
    samples = load_samples(paths[-1], options)
    checked = [_checked(each, samples, paths[-1], again.ids_only) for each in given]
    together = functools.reduce(lambda first, second: first.and_then(second), checked)
    _write(
        together,
        given[0].mark,
        samples,
        options,
        output,
        _Wanted(dry_run, yes, new_classes, receipt, link, again.ids_only),
    )


@dataclass(frozen=True)
class _Wanted:
    """The switches of the command."""

    dry_run: bool
    yes: bool
    new_classes: bool
    receipt: bool
    link: bool
    ids_only: bool


def _write(
    decisions: Decisions,
    mark: Mark | None,
    samples: Samples,
    options: SourceOptions,
    output: Path | None,
    wanted: _Wanted,
) -> None:
    """Show the plan, ask where needed, and write dataset and receipt."""
    from lsi.cli.next_step import tell_compute
    from lsi.cli.plan_of_changes import show_plan
    from lsi.data.writers.dataset import Changes, check_target, write_cleaned
    from lsi.decisions.receipt import check_receipt, receipt_of, write_receipt
    from lsi.decisions.rows import by_row

    if output is not None:
        check_target(samples, output)
        if wanted.receipt:
            check_receipt(output)
    kept, changed = by_row(
        decisions, samples.ids, samples.labels, samples.class_names, new_classes=wanted.new_classes
    )
    show_plan(samples, kept, changed)
    removed = len(samples) - int(kept.sum())
    told = f"{len(samples):,} samples: {removed:,} removed, {len(changed):,} relabelled, {kept.sum():,} left."
    if wanted.dry_run or output is None:
        print(f"Plan, nothing is written: {told}")
        return
    if not kept.any():
        raise InputError("no sample would be left. Keep at least one.")
    if removed > _ASKED * len(samples) and not wanted.yes:
        _ask(removed, len(samples))
    changes = Changes(kept, changed)

    def seal(drafts: Sequence[Path]) -> None:
        if wanted.receipt:
            write_receipt(samples, changes, output, options, drafts, mark)

    write_cleaned(samples, changes, output, options, wanted.link, seal)
    print(told)
    print(plain_text(f"Dataset: {output}", 400))
    if wanted.receipt:
        print(
            plain_text(
                f"Receipt: {receipt_of(output)} (undo: lsi apply --undo {receipt_of(output)} -o OUT)", 800
            )
        )
    if wanted.ids_only:
        print("Next: make the features of the cleaned dataset, as those that were scored, and score them.")
    else:
        tell_compute(output, mark, options.describe())


def _check_places(
    paths: tuple[Path, ...], decisions: Path | None, labels: Path | None, output: Path | None, receipt: bool
) -> None:
    """Refuse an output, or a receipt, that would touch what is read."""
    from lsi.decisions.receipt import receipt_of
    from lsi.system.places import check_apart

    inputs = {"the dataset": paths[-1], "--labels": labels, "--decisions": decisions}
    if len(paths) == 2:
        inputs["the changes"] = paths[0]
    outputs = {"--output": output}
    if output is not None and receipt:
        outputs["the receipt"] = receipt_of(output)
    check_apart(outputs, inputs)


def _read(path: Path, meant: str | None, keep: str | None, drop_mislabeled: str | None) -> _Changes:
    """Return the changes in a file, or those that `--keep` and `--drop-mislabeled` make of scores."""
    from lsi.decisions.files import Decisions, read_decisions

    if not path.is_dir():
        if keep is not None or drop_mislabeled is not None:
            raise InputError(
                f"--keep and --drop-mislabeled are for a folder of scores, and {str(path)!r} is none. Leave "
                "them out."
            )
        return _Changes(repr(str(path)), *read_decisions(path, meant))
    from lsi.cli.select import parse_drop, share_or_number
    from lsi.results.marks import SCORES, Mark
    from lsi.scores import load

    if meant is not None:
        raise InputError(
            f"{str(path)!r} is a folder, and --as says what the samples in a list are. Leave it out."
        )
    scores = load(path)
    if keep is None and drop_mislabeled is None:
        raise InputError(
            f"{str(path)!r} is a folder of scores: say what goes, with --keep or --drop-mislabeled."
        )
    share = None if keep is None else share_or_number(keep, "--keep")
    positions = scores.select(share, drop_mislabeled=parse_drop(drop_mislabeled))
    table = scores.to_frame()
    kept = set(positions.tolist())
    gone = table[~table["position"].isin(kept)]["sample_id"].tolist()
    # Name what is removed, not what is kept: samples that were not scored are kept.
    removed = Decisions(remove=frozenset(str(value) for value in gone))
    return _Changes(repr(str(path)), removed, Mark.of(scores.manifest, SCORES, str(path)))


def _checked(changes: _Changes, samples: Samples, dataset: Path, ids_only: bool) -> Decisions:
    """Return decisions about this dataset; which data a file without a mark speaks of, nobody knows."""
    from lsi.decisions.belonging import check_belongs
    from lsi.results.marks import SELECTION

    if changes.mark is None or ids_only:
        told = f"warning: {changes.name} is matched to the dataset by ids and labels alone."
        print(plain_text(told, 800), file=sys.stderr)
        return changes.decisions
    check_belongs(changes.name, changes.mark, samples, repr(str(dataset)), OTHER_FORM)
    if changes.mark.kind == SELECTION:  # of the same data; the run may have changed labels on purpose
        return dataclasses.replace(changes.decisions, given={})
    return changes.decisions


def _ask(removed: int, n: int) -> None:
    """Ask whether many rows may go; where nobody can answer, refuse."""
    question = f"{removed:,} of {n:,} rows ({100 * removed / n:.1f} %) would be removed"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(f"{question}, more than a tenth. If that is what you want, add --yes.")
    try:
        answer = input(f"{question}. Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError("nothing was written.")


def _undo(receipt: Path, paths: tuple[Path, ...], output: Path | None) -> None:
    """Write a dataset as it was before it was cleaned."""
    from lsi.decisions.receipt import read_receipt, undo
    from lsi.system.files import check_new
    from lsi.system.places import check_apart

    if len(paths) > 1:
        raise InputError("--undo takes one receipt, and the cleaned dataset if it was moved.")
    found = read_receipt(receipt)
    cleaned = paths[0] if paths else found.dataset
    told = f"{len(found.keep):,} samples: {int((~found.keep).sum()):,} come back, " + (
        f"{int((found.changed & found.keep).sum()):,} get their old label."
    )
    if output is None:
        print(f"Plan, nothing is written: {told}")
        return
    check_apart({"--output": output}, {"the cleaned dataset": cleaned, "the receipt": found.folder})
    check_new(output)
    undo(found, cleaned, output)
    print(told)
    print(plain_text(f"Dataset: {output}", 400))
