"""``lsi cache``: what the feature cache holds, and how to empty it."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from lsi.errors import InputError
from lsi.system.text import plain_text

cache = App(name="cache", help="Features on disk: list them, or remove some.")


@cache.command
def ls(*, cache_dir: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the features that are stored.

    Args:
        cache_dir: The library's cache folder. Default: `$LSI_CACHE`, else `~/.cache/lsi`.
        json: Print one JSON list on stdout and nothing else there.
    """
    from rich.table import Table
    from rich.text import Text

    from lsi.cli.console import out_console
    from lsi.features import FeatureCache

    store = FeatureCache(cache_dir)
    entries = store.entries()
    if json:
        print(json_module.dumps([asdict(entry) for entry in entries]))
        return
    console = out_console()
    total = sum(entry.n_bytes for entry in entries)
    heading = f"{len(entries)} entries, {total / 1e6:,.1f} MB, in {store.folder}"
    console.print(Text(plain_text(heading, 300)))
    if not entries:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("key", "data", "encoder", "rows", "features", "MB", "written"):
        table.add_column(column, justify="right" if column in ("rows", "features", "MB") else "left")
    for entry in entries:
        rows = f"{entry.rows:,}" if entry.rows == entry.total else f"{entry.rows:,} of {entry.total:,}"
        cells = (entry.key[:12], entry.data, entry.encoder, rows, f"{entry.dim:,}")
        size = f"{entry.n_bytes / 1e6:,.1f}"
        table.add_row(*(Text(plain_text(cell, 40)) for cell in (*cells, size, entry.created[:16])))
    console.print(table)


@cache.command
def rm(
    *keys: str,
    all: Annotated[bool, Parameter(negative="")] = False,
    incomplete: Annotated[bool, Parameter(negative="")] = False,
    cache_dir: Path | None = None,
) -> None:
    """Remove features from the cache.

    Args:
        keys: Keys as `lsi cache ls` shows them, or the beginning of each.
        all: Remove everything.
        incomplete: Remove what was not encoded to its end.
        cache_dir: The library's cache folder. Default: `$LSI_CACHE`, else `~/.cache/lsi`.

    Raises:
        InputError: If nothing is named, or no entry has such a key.
    """
    from lsi.features import FeatureCache

    store = FeatureCache(cache_dir)
    wanted = list(keys)
    if all or incomplete:
        wanted += [entry.key for entry in store.entries() if all or entry.rows < entry.total]
    elif not wanted:
        raise InputError("name keys as `lsi cache ls` shows them, or use --all or --incomplete.")
    freed = sum(store.remove(key) for key in dict.fromkeys(wanted))
    store.drop_locks()
    print(f"{len(set(wanted))} entries removed, {freed / 1e6:,.1f} MB free again.")
