"""Entry point: commands, exit codes, and how errors are reported.

Exit codes: 0 done, 2 wrong usage or input, 1 failure, 130 interrupted. An error is one line on
stderr; ``--debug`` adds the traceback. Modules that are imported here import nothing slow at their
top level, so that ``lsi --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter

from lsi.cli.apply import apply
from lsi.cli.cache import cache
from lsi.cli.candidates import candidates
from lsi.cli.compare import compare, difficulty
from lsi.cli.compute import compute
from lsi.cli.consensus import consensus
from lsi.cli.console import PipeConsole
from lsi.cli.doctor import doctor
from lsi.cli.explain import explain
from lsi.cli.fit import fit
from lsi.cli.init import init
from lsi.cli.inputs.options_file import with_file
from lsi.cli.merge import merge
from lsi.cli.mislabeled import mislabeled
from lsi.cli.plan import plan
from lsi.cli.saved import report, show
from lsi.cli.select import select
from lsi.cli.sensitivity import sensitivity
from lsi.cli.spelling import as_options, options_of
from lsi.errors import InputError, LsiError, OutputError
from lsi.system.machine import out_of_memory, ran_out
from lsi.system.text import plain_text

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
_LONGEST_MESSAGE = 2000
_HELP, _ALL = {"--help", "-h"}, "--help-all"


def _version() -> str:
    from lsi.system.versions import __version__

    return __version__


app = App(
    name="lsi",
    help="How much does each training sample tell a model? Laplace Sample Information, in nats.",
    help_epilogue=(
        "Start with: `lsi compute --dataset digits --corrupt-label 0.1 --output scores/ "
        "--report report.html`\n\n"
        "Exit codes: 0 done, 2 wrong usage or input, 1 failure, 130 interrupted. "
        "`--debug` shows the traceback of an error. Options may be spelt with underscores."
    ),
    help_format="markdown",
    version=_version,
    group_commands=Group("Commands", sort_key=0),
    suppress_keyboard_interrupt=False,
)
app.command(compute)
app.command(init)
app.command(fit)
app.command(candidates)
app.command(merge)
app.command(plan)
app.command(show)
app.command(report)
app.command(mislabeled)
app.command(consensus)
app.command(select)
app.command(apply)
app.command(compare)
app.command(difficulty)
app.command(sensitivity)
app.command(explain)
app.command(cache)
app.command(doctor)
app.register_install_completion_command(help="Let the shell complete commands and options.")


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    _replace_unknown_characters()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            _refuse_nul(tokens)
            with _helping(tokens):
                app(
                    _complete(tokens),
                    console=PipeConsole(),
                    exit_on_error=False,
                    print_error=False,
                    result_action="return_none",
                )
            sys.stdout.flush()
        except BrokenPipeError:
            return _reader_left()
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exception(error)
            return _tell(_named(error), debug, tokens)
    return DONE


@contextmanager
def _helping(tokens: list[str]) -> Iterator[None]:
    """Let `--help` show the options that are marked `COMMON`, and `--help-all` all of them."""
    command = app["compute"]
    if not set(tokens) & _HELP or _ALL in tokens:
        yield
        return
    command.default_parameter = Parameter(show=False)
    command.help_epilogue = "Most people need no more than these. All options: `lsi compute --help-all`"
    try:
        yield
    finally:
        command.default_parameter = command.help_epilogue = None


def _complete(tokens: list[str]) -> list[str]:
    """Return the words with `--help-all` as cyclopts knows it, and with the options of a file."""
    tokens = ["--help" if token == _ALL else token for token in tokens]
    if tokens[:1] != ["compute"] or set(tokens) & _HELP:
        return tokens
    return ["compute", *with_file(tokens[1:], app["compute"])]


def _refuse_nul(tokens: list[str]) -> None:
    if any("\0" in token for token in tokens):
        raise InputError("an argument holds the character NUL, which no name can hold. Remove it.")


def _named(error: BaseException) -> BaseException:
    """Return what the system says about a path (too long, no permission) as an error about input.

    An interruption that falls into an import may come out as an error of the module.
    """
    if isinstance(error, LsiError | KeyboardInterrupt):
        return error
    if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
        return KeyboardInterrupt()
    if not isinstance(error, OSError) or error.filename is None:
        return error
    return InputError(f"{str(error.filename)!r} cannot be used: {error.strerror}. Choose another path.")


def _tell(error: BaseException, debug: bool, tokens: list[str]) -> int:
    """Print an error as one line and return its exit code."""
    if isinstance(error, KeyboardInterrupt):
        _say(f"interrupted: {error}" if error.args else "interrupted")
        return INTERRUPTED
    hint = "" if debug else " (--debug shows the traceback)"
    if isinstance(error, CycloptsError):
        _say(f"error: {error} See: lsi --help")
        return MISUSED
    if isinstance(error, (InputError, OutputError)):
        _say(f"error: {as_options(str(error), options_of(app, tokens))}")
        return MISUSED
    if isinstance(error, LsiError):
        _say(f"error: {error}{hint}")
    elif ran_out(error):
        _say(f"error: {out_of_memory(error)}{hint}")
    else:
        _say(f"error: {type(error).__name__}: {error}{hint}")
    return FAILED


def _say(text: str) -> None:
    print(plain_text(text, _LONGEST_MESSAGE), file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _reader_left() -> int:
    """End quietly when the reader of a pipe has gone, as in ``lsi show scores/ | head``."""
    # The interpreter flushes stdout on exit, which must not fail once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _replace_unknown_characters() -> None:
    """Print a question mark for every character that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
