"""Asynchronous copies: started by a thread, under way until it waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Copy(NamedTuple):
    """One instruction's copies: who made them, to which words, and in which group of theirs."""

    lanes: Array
    words: Array
    values: Array
    groups: Array


class Copies:
    """The copies that are under way.

    Parameters
    ----------
    lanes : int
        How many threads run together.
    land : callable
        Called with threads, words and values when copies end.
    """

    def __init__(self, lanes: int, land: Callable[[Array, Array, Array], None]) -> None:
        self._under_way: list[Copy] = []
        self._group, self._lanes, self._land = np.zeros(lanes, np.int64), lanes, land

    def start(self, lanes: Array, words: Array, values: Array) -> None:
        """Add copies; ``words`` has a row for each thread."""
        self._under_way.append(Copy(lanes.copy(), words, values, self._group[lanes]))

    def commit(self, lanes: Array) -> None:
        """End a group of copies."""
        self._group[lanes] += 1

    def wait(self, lanes: Array, groups: int) -> None:
        """Wait until only the last so many groups are under way; -1 waits for everything."""
        until = np.full(self._lanes, -1, np.int64)  # of each thread the first group that may go on
        until[lanes] = self._group[lanes] - groups if groups >= 0 else np.iinfo(np.int64).max
        rest = []
        for one in self._under_way:
            ends = one.groups < until[one.lanes]
            if ends.any():
                self._land(one.lanes[ends], one.words[ends], one.values[:, ends])
            if not ends.all():
                left = ~ends
                kept = one.lanes[left], one.words[left], one.values[:, left], one.groups[left]
                rest.append(Copy(*kept))
        self._under_way = rest
