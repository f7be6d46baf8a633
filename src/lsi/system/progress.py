"""The progress of long work."""

from collections.abc import Callable
from itertools import count

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a total of 0 means that the total is unknown."""


def ticks(progress: Progress | None, stage: str, total: int) -> Callable[[], None] | None:
    """Return a function that reports one more finished step at every call; None without `progress`."""
    if progress is None:
        return None
    numbers = count(1)
    return lambda: progress(stage, next(numbers), total)
