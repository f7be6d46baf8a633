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

LONGEST = 20.0  # seconds a case may take
MOST_BYTES = 2 << 30  # that the process may hold in memory, the interpreter and its libraries included
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
    peak: int = 0
    failures: dict[str, tuple[bytes, str]] = field(default_factory=dict)


class Overtime(BaseException):
    """A case took too long."""


class Oversize(Exception):
    """A case took too much memory."""


class Lost(Exception):
    """A case changed or removed a file that it was only to read."""


def kind_of(where):
    """Return what a failure is, by its name: a hang, a peak, a loss, or an error without a name."""
    kinds = {"Overtime": "hangs", "Oversize": "peaks", "MemoryError": "peaks", "Lost": "losses"}
    return kinds.get(where.partition(" ")[0], "tracebacks")


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
            _weigh(content, outcome)
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


def _weigh(content, outcome):
    """Note the most memory so far; a case that took more than is allowed has failed."""
    outcome.peak = max(outcome.peak, peak_bytes())
    if outcome.peak > MOST_BYTES and forget_peak():
        where = f"Oversize after case {outcome.cases}"
        outcome.failures.setdefault(where, (content, f"{outcome.peak / 2**30:.1f} GiB"))


def peak_bytes():
    """Return the most memory that this process has held since `forget_peak`; 0 where nobody tells."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(b"VmHWM"))
    except (OSError, StopIteration):
        return 0


def forget_peak():
    """Start to measure the peak anew; return whether that is possible."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
        return True
    return False


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
