"""The blocks of a run: computed here or elsewhere, and not again if their results are kept.

An engine cuts its work into blocks whose results depend on nothing but the engine and the block. Where they
are computed, in which order, and how often the run is interrupted therefore cannot change a single bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from lsi.errors import InputError
from lsi.system.progress import Progress

Arrays = dict[str, np.ndarray]
MOST_SHARDS = 1_000_000
Tick = Callable[[int], None]
"""Called by a block while it is computed, with the units that it has finished since the last call."""


class Executor(Protocol):
    """Computes blocks of work somewhere."""

    def run(self, owner: Any, method: str, blocks: Iterable[Any], tick: Tick) -> Iterator[tuple[int, Arrays]]:
        """Yield the number of each block and the result of `owner.method(block, tick)`, in any order.

        Args:
            owner: Holds what all blocks need.
            method: Name of its method.
            blocks: Arguments of that method.
            tick: Called with the progress within a block, if the executor can follow it.
        """


class Here:
    """Computes blocks one after another in this process."""

    def run(self, owner: Any, method: str, blocks: Iterable[Any], tick: Tick) -> Iterator[tuple[int, Arrays]]:
        """Yield the number and the result of each block, in order."""
        do = getattr(owner, method)
        for place, block in enumerate(blocks):
            yield place, do(block, tick)


class Store(Protocol):
    """Keeps results by name."""

    def begin(self, stage: str, names: Sequence[str]) -> None:
        """Note which results come next, and the name of the stage that they belong to."""

    def get(self, name: str) -> Arrays | None:
        """Return what is kept under a name; None if there is nothing."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Keep a result, which then survives any end of the process."""


class Nowhere:
    """Keeps nothing."""

    def begin(self, stage: str, names: Sequence[str]) -> None:
        """Do nothing."""

    def get(self, name: str) -> Arrays | None:
        """Return None."""

    def put(self, name: str, arrays: Arrays) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run that are computed separately.

    Attributes:
        index: Which one, from 1.
        of: How many there are.
    """

    index: int
    of: int

    @classmethod
    def parse(cls, text: str | tuple[int, int] | Shard) -> Shard:
        """Return the shard that ``"3/16"`` or ``(3, 16)`` stands for.

        Raises:
            InputError: It stands for none.
        """
        if isinstance(text, Shard):
            return text
        parts = text.split("/") if isinstance(text, str) else text
        try:
            index, of = (int(part) for part in parts)
        except (TypeError, ValueError) as error:
            raise InputError(f"shard must be like '3/16', the third of sixteen; got {text!r}.") from error
        if not 1 <= index <= of <= MOST_SHARDS:
            raise InputError(
                f"shard {index}/{of} does not exist. Shards are counted from 1/{max(of, 1)}; there may be at "
                f"most {MOST_SHARDS:,}."
            )
        return cls(index, of)

    def takes(self, place: int) -> bool:
        """Whether a block belongs to this shard."""
        return place % self.of == self.index - 1


@dataclass(frozen=True)
class Work:
    """How the blocks of one run are computed and kept.

    Attributes:
        executor: Computes blocks.
        store: Keeps their results.
        shard: The part of the blocks that this run computes; None: all.
        progress: Called as `progress(stage, done, total)`.
        prefix: Put before the names of results.
    """

    executor: Executor = Here()
    store: Store = Nowhere()
    shard: Shard | None = None
    progress: Progress | None = None
    prefix: str = ""

    def within(self, prefix: str, progress: Progress | None = None) -> Work:
        """Return the same for a section of a run, whose results are kept under names with their own prefix.

        Args:
            prefix: Prefix of these names.
            progress: Progress of the section; None: that of the run.
        """
        return replace(self, prefix=f"{self.prefix}{prefix}-", progress=progress or self.progress)

    def aside(self) -> Work:
        """Return the same for intermediate results: not kept, not reported, and complete in every shard."""
        return replace(self, store=Nowhere(), shard=None, progress=None)

    def own(self, count: int) -> list[int]:
        """Return which of `count` blocks this run computes.

        Raises:
            InputError: There are more shards than blocks.
        """
        if self.shard is None:
            return list(range(count))
        if self.shard.of > count:
            raise InputError(
                f"{self.shard.of} shards are too many for this run of {count} blocks. Use at most {count}."
            )
        return [place for place in range(count) if self.shard.takes(place)]

    def map(
        self,
        stage: str,
        owner: Any,
        method: str,
        blocks: Sequence[Any],
        units: Sequence[int] | None = None,
        *,
        divided: bool = True,
    ) -> Iterator[tuple[int, Arrays]]:
        """Yield the number of each block and the result of `owner.method(block, tick)`, in any order.

        Args:
            stage: Name of the stage, for progress and store.
            owner: Holds what all blocks need; the results must not depend on what its method changes in it.
            method: Name of its method.
            blocks: Arguments of that method.
            units: Units of progress in each block, 0 to leave it out; None: its length.
            divided: Whether a shard computes only its own blocks.
        """
        size = [len(block) for block in blocks] if units is None else units
        places = self.own(len(blocks)) if divided else range(len(blocks))
        places = [place for place in places if size[place]]
        counter = _Counter(self.progress, stage, sum(size[place] for place in places))
        self.store.begin(self.prefix + stage, [self._name(stage, place) for place in places])
        left = []
        for place in places:
            kept = self.store.get(self._name(stage, place))
            if kept is None:
                left.append(place)
                continue
            counter.finish(size[place])
            yield place, kept
        todo = [blocks[place] for place in left]
        for which, arrays in self.executor.run(owner, method, todo, counter.tick):
            place = left[which]
            self.store.put(self._name(stage, place), arrays)
            counter.finish(size[place])
            yield place, arrays

    def once(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """Return the result of `compute`, which is called only if the result is not kept yet.

        Args:
            name: Name of the result.
            compute: Computes it.
        """
        kept = self.store.get(self.prefix + name)
        if kept is None:
            kept = compute()
            self.store.put(self.prefix + name, kept)
        return kept

    def _name(self, stage: str, place: int) -> str:
        return f"{self.prefix}{stage}-{place:06d}"


class _Counter:
    """Adds up the progress of a stage: finished blocks, and units of the block being computed."""

    def __init__(self, progress: Progress | None, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._finished = self._under_way = 0

    def tick(self, units: int) -> None:
        self._under_way += units
        self._report()

    def finish(self, units: int) -> None:
        told, self._under_way = self._under_way, 0
        self._finished += units
        if told != units:  # otherwise the last tick has reported it
            self._report()

    def _report(self) -> None:
        if self._progress is not None:
            done = min(self._finished + self._under_way, self._total)
            self._progress(self._stage, done, self._total)
