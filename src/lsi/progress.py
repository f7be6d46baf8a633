"""How long work reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; a total of 0 means that it is not known."""
