"""A file of options: `lsi.toml`, read by `lsi compute` and written by `lsi init`."""

from __future__ import annotations

import json
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cyclopts import App, Argument

from lsi.cli.inputs.places import NAMES_OR_PATHS
from lsi.cli.inputs.recall import words_of
from lsi.errors import InputError, nearest
from lsi.system.door import read_text

NAME = "lsi.toml"
ONLY_TYPED = ("overwrite", "config")
"""Options that a file may not set: it may come with a dataset, from anyone."""
_HEAD = f"""\
Options of `lsi compute`, which reads this file where it is called {NAME} in the current folder, or by
--config FILE. Options of the command line go before it. Take the # away from an option to set it.
"""
_WIDTH = 100


def with_file(tokens: Sequence[str], app: App) -> list[str]:
    """Return the words of a `compute` command together with those of its file of options."""
    named = _value_of("--config", tokens)
    if named is None and not Path(NAME).is_file():
        return list(tokens)
    path, arguments = Path(named or NAME), arguments_of(app)
    typed = {name for token in tokens if (name := _argument(token, arguments)) is not None}
    options = {name: value for name, value in read(path, arguments).items() if name not in typed}
    return [*tokens, *words_of(options), *([] if named else ["--config", NAME])]


def arguments_of(app: App) -> dict[str, Argument]:
    """Return the arguments of a command by the name of their option, in the order of `--help-all`."""
    found = app.assemble_argument_collection(parse_docstring=True)
    plain = [argument for argument in found if any(name.startswith("--") for name in argument.names)]
    return {argument.field_info.name.replace("_", "-"): argument for argument in plain}


def _argument(token: str, arguments: Mapping[str, Argument]) -> str | None:
    """Return the option that a word of the command line sets; None: it is a value."""
    word = token.partition("=")[0]
    word = word.replace("_", "-") if word.startswith("--") else word
    return next((name for name, each in arguments.items() if word in each.names), None)


def _value_of(flag: str, tokens: Sequence[str]) -> str | None:
    for token, following in pairwise([*tokens, ""]):
        if token == flag:
            return following
        if token.startswith(f"{flag}="):
            return token.partition("=")[2]
    return None


def read(path: Path, arguments: Mapping[str, Argument]) -> dict[str, Any]:
    """Return the options of a file by name, checked."""
    try:
        table = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} is no TOML file ({error}). Mend it, or write a new one with `lsi init`."
        ) from error
    return checked(path, table, arguments)


def checked(path: Path, table: Mapping[str, Any], arguments: Mapping[str, Argument]) -> dict[str, Any]:
    """Return options by name, or say what the file or folder at `path` sets that cannot be set."""
    options = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name in ONLY_TYPED:
            raise InputError(f"{str(path)!r} sets {key!r}, which only the command line may: --{name}.")
        if name not in arguments:
            close = nearest(name, arguments).partition("Known: ")[0]
            raise InputError(
                f"{str(path)!r} sets {key!r}, which is no option of lsi compute. {close}"
                "`lsi init -o all.toml` writes a file that explains all of them."
            )
        if value is False and f"--no-{name}" not in arguments[name].names:
            if arguments[name].hint is not bool:
                raise InputError(f"{str(path)!r}: {key!r} cannot be false. Leave it out.")
            continue  # a switch that is off
        if _is_code(name, value):
            raise InputError(
                f"{str(path)!r} sets {key!r} to a function, which would run code. Only the command line may: "
                f"--{name} {value}."
            )
        _check_value(path, key, value)
        options[name] = value
    return options


def _is_code(name: str, value: Any) -> bool:
    """Return whether an option names a function: a file of options may come with a dataset, from anyone."""
    if name.replace("-", "_") not in NAMES_OR_PATHS or name == "dataset" or ":" not in str(value):
        return False
    from lsi.features.encoders.functions import is_function

    return is_function(str(value))


def _check_value(path: Path, key: str, value: Any) -> None:
    """Refuse a value that words of a command line cannot say."""
    each = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in each) or (
        isinstance(value, list) and any(isinstance(one, bool) for one in each)
    ):
        raise InputError(f"{str(path)!r}: {key!r} must be a text, a number, true or false, or a list.")


def text_of(app: App, options: Mapping[str, Any]) -> str:
    """Return a file with these options set, and all others explained."""
    lines = _comment(_HEAD)
    group = None
    for name, argument in arguments_of(app).items():
        if name in ONLY_TYPED:
            continue
        title = argument.parameter.group[0].name  # type: ignore[index]
        if title != group:
            lines += ["", "", f"# ---- {title} ----"]
            group = title
        lines += ["", *_comment(argument.parameter.help or "")]
        default = argument.field_info.default
        if _is_code(name, options.get(name)):
            lines.append(f"# {name} = {toml(options[name])}  # a function: only the command line may name it")
        elif name in options:
            lines.append(f"{name} = {toml(options[name])}")
        else:
            lines.append(f"# {name} = {toml(default) if isinstance(default, str | int | float) else '…'}")
    return "\n".join(lines).strip() + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
