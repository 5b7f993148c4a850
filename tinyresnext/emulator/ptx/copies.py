"""Asynchronous copies: started by a thread, under way until it waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .memory import Space

Array = np.ndarray[Any, Any]


class Copy(NamedTuple):
    """One instruction's copies, with a row or a value for each thread that made one."""

    lanes: Array
    words: Array  # which they fill
    values: Array  # [word, thread]
    sources: Array  # the words that they read; -1 is none
    groups: Array  # of each thread the number of its group

    def only(self, some: Array) -> Copy:
        """Return the copies of some of the threads."""
        values = self.values[:, some]
        rest = self.sources[some], self.groups[some]
        return Copy(self.lanes[some], self.words[some], values, *rest)


class Copies:
    """The copies that are under way.

    Parameters
    ----------
    lanes : int
        How many threads run together.
    land : callable
        Called with a memory and copies out of it when they end.
    """

    def __init__(self, lanes: int, land: Callable[[Space, Copy], None]) -> None:
        self._under_way: list[tuple[Space, Copy]] = []
        self._group, self._lanes, self._land = np.zeros(lanes, np.int64), lanes, land

    def start(self, source: Space, lanes: Array, words: Array, values: Array, of: Array) -> None:
        """Add copies out of a memory; ``words`` and ``of`` have a row for each thread."""
        made = Copy(lanes.copy(), words, values, of, self._group[lanes])
        self._under_way.append((source, made))

    def commit(self, lanes: Array) -> None:
        """End a group of copies."""
        self._group[lanes] += 1

    def wait(self, lanes: Array, groups: int) -> None:
        """Wait until only the last so many groups are under way; -1 waits for everything."""
        until = np.full(self._lanes, -1, np.int64)  # of each thread the first group that may go on
        until[lanes] = self._group[lanes] - groups if groups >= 0 else np.iinfo(np.int64).max
        under_way, self._under_way = self._under_way, []
        for source, one in under_way:
            ends = one.groups < until[one.lanes]
            if ends.any():
                self._land(source, one.only(ends))
            if not ends.all():
                self._under_way.append((source, one.only(~ends)))
