"""The names of the files in one folder of an archive, and a number for each, in few bytes."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...errors import UnsafeError

__all__ = ["Names"]


class Names(Mapping[str, int]):
    """Names with a number each, sorted: a file takes its name in UTF-8 and 12 bytes.

    A dict takes ten times as much. Names are added, and then sorted once; only then can they be
    looked up.
    """

    __slots__ = ("_ends", "_numbers", "_text")

    def __init__(self) -> None:
        self._text: bytearray | bytes = bytearray()
        self._ends, self._numbers = array("I"), array("Q")

    def add(self, name: str, number: int) -> None:
        """Add a name.

        Raises
        ------
        UnsafeError
            The names have more than 4 GiB.
        """
        assert isinstance(self._text, bytearray)
        self._text += name.encode("utf-8", "surrogateescape")
        try:
            self._ends.append(len(self._text))
        except OverflowError:
            raise UnsafeError(
                "the names in one folder of the archive have more than 4 GiB; divide the archive"
            ) from None
        self._numbers.append(number)

    def sort(self) -> str | None:
        """Sort the names; return one that is there twice, if there is one.

        Until it returns, the names of this folder are in memory as texts.
        """
        names, numbers = list(self), self._numbers
        order = sorted(range(len(names)), key=names.__getitem__)
        self._text, self._ends, self._numbers = bytearray(), array("I"), array("Q")
        for i in order:
            self.add(names[i], numbers[i])
        self._text = bytes(self._text)
        return next((one for one, other in pairwise(self) if one == other), None)

    def name(self, place: int) -> str:
        """Return the name at a place, from 0."""
        begin = self._ends[place - 1] if place else 0
        return self._text[begin : self._ends[place]].decode("utf-8", "surrogateescape")

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return map(self.name, range(len(self)))

    def __getitem__(self, name: str) -> int:
        """Return the number of a name."""
        place = bisect_left(range(len(self)), name, key=self.name)
        if place == len(self) or self.name(place) != name:
            raise KeyError(name)
        return self._numbers[place]

    def numbers(self) -> NDArray[np.uint64]:
        """Return the numbers, in the order of the names."""
        return np.frombuffer(self._numbers, np.uint64) if self else np.empty(0, np.uint64)
