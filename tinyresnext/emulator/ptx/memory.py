"""Memory of the emulated GPU: words, what is known of each, and where each allocation lies."""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...errors import DeviceError
from ..memory import Capacity

POISON = 0xFFFFFFFF  # as float32 not a number
APART = 1 << 20  # bytes between two allocations at least: whoever leaves one does not meet another
START = 1 << 32
# What becomes of a word that holds ``x``.
ATOMICS: dict[str, Callable[..., Any]] = {
    "add": lambda x, a: x + a,
    "max": lambda x, a: max(x, a),
    "min": lambda x, a: min(x, a),
    "and": lambda x, a: x & a,
    "or": lambda x, a: x | a,
    "xor": lambda x, a: x ^ a,
    "exch": lambda x, a: a,
    "cas": lambda x, a, b: b if x == a else x,
    "inc": lambda x, a: x - x if x >= a else x + 1,
    "dec": lambda x, a: a if x == 0 or x > a else x - 1,
}


class State(NamedTuple):
    """What is known of each word; see `watch`."""

    known: np.ndarray[Any, Any]  # somebody wrote it
    pending: np.ndarray[Any, Any]  # an asynchronous copy to it is under way
    copied: np.ndarray[Any, Any]  # how many asynchronous copies of it are under way
    writer: np.ndarray[Any, Any]  # the thread that wrote it last, other than by an atomic
    written: np.ndarray[Any, Any]  # the stamp of that
    reader: np.ndarray[Any, Any]  # one of those who read it since, or no thread
    read: np.ndarray[Any, Any]  # the stamp of the last of them
    readers: np.ndarray[Any, Any]  # how far they are apart
    changed: np.ndarray[Any, Any]  # there are threads that have changed it by atomics since
    changer: np.ndarray[Any, Any]  # one of them
    change: np.ndarray[Any, Any]  # the stamp of the last of them
    changers: np.ndarray[Any, Any]  # how far they are apart


class Space:
    """Words that lie side by side.

    What is known, is known of each word; once somebody accesses two bytes, of each half of a word,
    and once somebody accesses one, of each byte.

    Parameters
    ----------
    size : int
        In bytes.
    name : str
        As reports name it.

    Attributes
    ----------
    data : [words] uint32
    states : tuple of State
        Of each word: one for all of it, or for each half or byte, from the lowest on.
    """

    def __init__(self, size: int, name: str) -> None:
        words = -(-max(size, 1) // 4)
        self.name, self.words = name, words
        self.data = np.full(words, POISON, np.uint32)
        state = State(
            known=np.zeros(words, bool),
            pending=np.zeros(words, bool),
            copied=np.zeros(words, np.int32),
            writer=np.full(words, -1, np.int64),
            written=np.zeros(words, np.int64),
            reader=np.full(words, -1, np.int64),
            read=np.zeros(words, np.int64),
            readers=np.zeros(words, np.int8),
            changed=np.zeros(words, bool),
            changer=np.zeros(words, np.int64),
            change=np.zeros(words, np.int64),
            changers=np.zeros(words, np.int8),
        )
        self.states: tuple[State, ...] = (state,)

    def split(self, size: int) -> None:
        """Keep apart what is known of each ``size`` bytes of a word."""
        while len(self.states) < 4 // size:
            twice = [(one, State(*(known.copy() for known in one))) for one in self.states]
            self.states = tuple(one for both in twice for one in both)

    def part(self, size: int, place: int) -> tuple[tuple[State, ...], np.ndarray[Any, Any]]:
        """Return what is known of ``size`` bytes at a place of each word, and the values there."""
        each = 4 // len(self.states)  # bytes
        first, last = place * size // each, -(-(place + 1) * size // each)
        return self.states[first:last], self.data.view(f"u{size}")[place :: 4 // size]

    def change(
        self, words: np.ndarray, kind: np.dtype, how: str, values: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, bool]:
        """Change words one after the other; return what they held, and whether one is new.

        What has eight bytes takes the word after each as well.
        """
        before, new, wide = np.empty(len(words), kind), False, kind.itemsize // 4
        for i, word in enumerate(words):
            place = self.data[word : word + wide].view(kind)
            before[i] = place[0]
            place[0] = ATOMICS[how](before[i], *(value[i] for value in values))
            new |= bool(place[0] != before[i])
        return before, new


class Allocation(Space):
    """Global memory that a program asked for."""

    def __init__(self, capacity: Capacity, address: int, size: int) -> None:
        self._capacity, self.address, self.size = capacity, address, size
        super().__init__(size, "global")

    def __del__(self) -> None:
        """Give the bytes back to what can be allocated."""
        self._capacity.give_back(self.size)


class Heap:
    """The global memory of an emulated GPU; no address is used twice.

    Parameters
    ----------
    size : int
        How many bytes it pretends to have.
    """

    def __init__(self, size: int) -> None:
        self._capacity = Capacity(size)
        self.free_bytes = self._capacity.free_bytes
        self._next, self._starts = START, [0]
        self._places: dict[int, weakref.ref[Allocation]] = {}

    def allocate(self, size: int) -> Allocation:
        """Return memory that nobody has written; raise `OutOfMemoryError` if it is too much."""
        self._capacity.take(size)
        made = Allocation(self._capacity, self._next, size)
        self._starts.append(made.address)
        self._places[made.address] = weakref.ref(made)
        self._next += -(-size // APART) * APART + APART
        return made

    def find(self, address: int) -> Allocation | None:
        """Return the allocation that an address is in, if there is one and it is not freed."""
        start = self._starts[bisect.bisect_right(self._starts, address) - 1]
        place = self._places.get(start)
        found = place() if place is not None else None
        return found if found is not None and address < start + found.size else None

    def write(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to an address."""
        space, start = self._inside(address, values.nbytes)
        space.data.view(np.uint8)[start : start + values.nbytes] = values.reshape(-1).view(np.uint8)
        words = slice(start // 4, -(-(start + values.nbytes) // 4))
        for state in space.states:
            state.known[words], state.changed[words] = True, False
            state.writer[words], state.reader[words] = -1, -1

    def read(self, address: int, out: np.ndarray) -> None:
        """Fill a contiguous array from an address."""
        space, start = self._inside(address, out.nbytes)
        out.reshape(-1).view(np.uint8)[:] = space.data.view(np.uint8)[start : start + out.nbytes]

    def _inside(self, address: int, size: int) -> tuple[Allocation, int]:
        space = self.find(address) if size else None
        if space is None and size == 0:
            return Allocation(self._capacity, 0, 0), 0
        if space is None or address + size > space.address + space.size:
            raise DeviceError(f"{size:,} bytes at {address:#x} are not inside one allocation")
        return space, address - space.address
