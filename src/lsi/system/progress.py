"""How long work reports its progress."""

from collections.abc import Callable
from itertools import count

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a total of 0 means that it is not known."""


def ticks(progress: Progress | None, stage: str, total: int) -> Callable[[], None] | None:
    """Return what reports one more step done whenever it is called; None where nobody listens."""
    if progress is None:
        return None
    numbers = count(1)
    return lambda: progress(stage, next(numbers), total)
