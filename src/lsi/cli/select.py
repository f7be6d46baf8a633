"""``lsi select``: choose the samples to keep, and write them to a file."""

from __future__ import annotations

import dataclasses
import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lsi.cli.next_step import tell_apply
from lsi.errors import InputError
from lsi.results.marks import SELECTION, Mark
from lsi.system.text import plain_text

if TYPE_CHECKING:
    import numpy as np

    from lsi.scores import Scores


def select(
    scores: Path,
    *,
    keep: Annotated[str | None, Parameter(name=["--keep", "-k"])] = None,
    order: str = "useful",
    balanced: Annotated[bool, Parameter(name="--balanced", negative="--no-balanced")] = True,
    proportional: Annotated[bool, Parameter(negative="")] = False,
    drop_mislabeled: str | None = None,
    drop_redundant: Annotated[bool, Parameter(negative="")] = False,
    seed: int = 0,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Choose the samples to keep.

    Args:
        scores: Folder that `lsi compute --output` wrote.
        keep: Share such as `0.5` or `50%`, or a number of samples such as `500`. Default: what
            `--drop-mislabeled` or `--drop-redundant` leaves.
        order: `useful` (right and informative), `largest` or `smallest` LSI, `right` (least doubtful label
            first), `random`; or a mixed budget such as `largest=0.7,smallest=0.3`.
        balanced: Keep equal numbers of each class, as far as possible.
        proportional: Keep the same share of each class instead.
        drop_mislabeled: Drop suspected labels first, whatever the order: `all`, or a share or number of them.
        drop_redundant: Of each redundancy group, drop all but the most informative sample first.
        seed: Seed for the random order.
        output: File to write: .parquet, .csv, .json, .txt (ids), or .npy (positions). Never overwritten.
        json: Print one JSON object on stdout and nothing else there.
    """
    from lsi.decisions.selection_file import check_selection_file, write_selection
    from lsi.scores import load
    from lsi.system.files import check_new
    from lsi.system.places import check_apart

    check_apart({"--output": output}, {"the scores": scores})
    if output is not None:
        check_selection_file(output)
        check_new(output)
    loaded = load(scores)
    settings: dict[str, Any] = {
        "keep": None if keep is None else share_or_number(keep, "--keep"),
        "order": parse_order(order),
        "balanced": "proportional" if proportional else balanced,
        "drop_mislabeled": parse_drop(drop_mislabeled),
        "drop_redundant": drop_redundant,
        "seed": seed,
    }
    positions = loaded.select(**settings)
    table = loaded.to_frame()
    kept = table[table["position"].isin(positions)].sort_values("position")
    if output is not None:
        write_selection(output, kept, _mark(loaded, scores, output), settings)
    tell(loaded, positions, settings, output, as_json=json)
    if output is not None and not json:
        tell_apply(output, loaded.manifest)


def _mark(scores: Scores, folder: Path, output: Path) -> Mark:
    """Return what the file says about itself."""
    mark = Mark.of(scores.manifest, SELECTION, str(folder))
    if output.suffix.lower() == ".npy" and scores.manifest.get("selected_of"):
        # Positions are rows of what was scored, which is only a part of the dataset.
        return dataclasses.replace(mark, dataset_fingerprint=None)
    return mark


def tell(
    scores: Scores, positions: np.ndarray, settings: dict[str, Any], output: Path | None, *, as_json: bool
) -> None:
    """Print what was chosen."""
    from lsi.analysis.view import view

    table = scores.to_frame()
    seen = view(scores)
    kept = table["position"].isin(positions).to_numpy()
    n_kept = int(kept.sum())
    facts: dict[str, Any] = {
        "n_scored": len(table),
        "n_kept": n_kept,
        "n_suspected": int(seen.suspected.sum()),
        "n_suspected_kept": int((seen.suspected & kept).sum()),
        "settings": settings,
        "output": None if output is None else str(output),
    }
    if as_json:
        print(json_module.dumps(facts))
        return
    print(f"{n_kept:,} of {len(table):,} samples are kept ({100 * n_kept / len(table):.1f} %).")
    print(f"Suspected labels: {facts['n_suspected']:,}, of which {facts['n_suspected_kept']:,} are kept.")
    if output is not None:
        print(plain_text(f"Selection: {output}", 400))


def share_or_number(text: str, flag: str) -> float | int:
    """Return the share or the number of samples that a text such as `50%` or `500` stands for."""
    plain = text.strip()
    try:
        if plain.endswith("%"):
            return float(plain[:-1]) / 100.0
        return int(plain) if plain.lstrip("+").isdigit() else float(plain)
    except ValueError:
        raise InputError(
            f"{flag} {text!r}: give a share such as 0.5 or 50%, or a number such as 500."
        ) from None


def parse_order(text: str) -> str | dict[str, float]:
    """Return an order, or the shares of a mixed budget."""
    if "=" not in text:
        return text.strip()
    parts = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(share) for name, _, share in parts}
    except ValueError:
        raise InputError(f"--order {text!r}: write a mixed budget as largest=0.7,smallest=0.3.") from None


def parse_drop(text: str | None) -> bool | float | int:
    """Return what `Scores.select` takes as ``drop_mislabeled``."""
    if text is None or text.strip().lower() in ("none", "false"):
        return False
    if text.strip().lower() in ("all", "true"):
        return True
    return share_or_number(text, "--drop-mislabeled")
