"""The loop: change an input, use it, keep what reaches new lines, report what has no clear error."""

import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.fuzzing.mutate import mutate_bytes

from lsi.errors import LsiError

LONGEST = 10.0  # seconds a case may take
MOST_KEPT = 400  # inputs that reached new lines
_WATCHED = ("/lsi/", "/zipfile", "/tarfile", "/numpy/lib/", "/json/", "/PIL/")


@dataclass
class Target:
    """What is fuzzed.

    Attributes:
        name: How reports call it.
        seeds: Inputs that work.
        use: Called with the input; everything a user would do with it.
        mutate: From a random generator, an input and other inputs to a changed one.
        allowed: Further errors that are clear to a user.
    """

    name: str
    seeds: list[bytes]
    use: Callable[[bytes], object]
    mutate: Callable = mutate_bytes
    allowed: tuple[type[BaseException], ...] = ()


@dataclass
class Outcome:
    """What became of the cases of one target."""

    name: str
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    kept: int = 0
    failures: dict[str, tuple[bytes, str]] = field(default_factory=dict)


class Overtime(BaseException):
    """A case took too long."""


def fuzz(target, cases, seed, guided=True, before=None):
    """Return the outcome of so many changed inputs.

    Args:
        target: What is fuzzed.
        cases: How many inputs.
        seed: Seed of the changes.
        guided: Whether inputs that reach new lines are changed further.
        before: Called with each input before it is used; to have it after a crash of the interpreter.
    """
    generator = random.Random(f"{seed} {target.name}")
    corpus, seen, outcome = list(target.seeds), set(), Outcome(target.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, content in enumerate(target.seeds[: None if guided else 1]):
            with _lines(seen if guided else None), suppress(*(() if number == 0 else (LsiError,))):
                target.use(content)  # the first one has to work
        for _ in range(cases):
            content = target.mutate(generator, generator.choice(corpus), corpus)
            if before is not None:
                before(content)
            known = len(seen)
            _case(target, content, outcome, seen if guided else None)
            if len(seen) > known and len(corpus) < MOST_KEPT:
                corpus.append(content)
    outcome.kept = len(corpus) - len(target.seeds)
    return outcome


def _case(target, content, outcome, seen):
    outcome.cases += 1
    try:
        with _limited(), _lines(seen):
            target.use(content)
        outcome.accepted += 1
    except (LsiError, *target.allowed):
        outcome.refused += 1
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever it is, it is what is looked for
        outcome.failures.setdefault(_place(error), (content, "".join(traceback.format_exception(error))))


def _place(error):
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/lsi/" in frame.filename] or frames
    last = ours[-1]
    return f"{type(error).__name__} at {last.filename.rpartition('/lsi/')[2]}:{last.lineno}"


@contextmanager
def _limited():
    """Raise `Overtime` where a case does not end; on systems with alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise Overtime(f"longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _lines(seen):
    """Add the lines that run, of the library and of the parsers in Python, to `seen`."""
    if seen is None or sys.gettrace() is not None:  # a debugger or a coverage tool is there first
        yield
        return

    def line(frame, event, _):
        if event == "line":
            seen.add((frame.f_code, frame.f_lineno))
        return line

    def call(frame, event, _):
        name = frame.f_code.co_filename
        return line if any(part in name for part in _WATCHED) else None

    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(None)
