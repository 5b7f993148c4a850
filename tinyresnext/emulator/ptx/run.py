"""One launch: the threads of some blocks, their memory, and where each of them is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...errors import DeviceError
from ..counters import Counters
from ..fault import KernelFault
from . import watch
from .copies import Copies, Copy
from .memory import Heap, Space
from .places import Places
from .source.parse import Code
from .warps import Warps, special

Array = np.ndarray[Any, Any]


class Run:
    """Blocks of one launch that run together.

    Parameters
    ----------
    kernel : str
        Its name.
    code : Code
    heap : Heap
    extents : list of tuple
        First and last address of each array that the kernel was given.
    blocks : range
        Their numbers.
    grid, threads : int
        Blocks in all, and threads of each.
    first : int
        The number of the first thread of this launch, among all there ever were.
    counters : Counters or None
        What is to be counted.
    watched : bool
        Whether to look for races, unwritten words and copies under way.
    """

    def __init__(
        self,
        kernel: str,
        code: Code,
        heap: Heap,
        extents: list[tuple[int, int]],
        blocks: range,
        grid: int,
        threads: int,
        first: int,
        counters: Counters | None,
        watched: bool,
    ) -> None:
        self.kernel, self.code, self.size, self.first = kernel, code, threads, first
        self.blocks, self.lanes = blocks, len(blocks) * threads
        self.counters, self.watched = counters, watched
        self.at = 0, 0  # the piece and the instruction in it
        self.idle = 0  # pieces since something was written
        number = np.arange(self.lanes)
        self.block = number // threads
        self.thread = first + blocks[0] * threads + number  # among all threads there ever were
        self.special = special(number % threads, blocks[0] + self.block, threads, grid)
        self.warps = Warps(threads, self.lanes, self.fault)
        self.copies = Copies(self.lanes, self._land)
        self._places = Places(kernel, code, self.block, heap, extents, self.fault)
        self._shared, self._local = self._places.shared, self._places.local
        self._stamps = np.zeros(self.lanes, np.int64)

    def fault(self, kind: str, what: str, lane: int) -> None:
        """Raise `KernelFault` for a thread."""
        ins = self.code.pieces[self.at[0]][self.at[1]]
        block, thread = divmod(int(lane), self.size)
        who = f"thread {thread} of block {self.blocks[0] + block}"
        raise KernelFault(kind, self.kernel, f"{what}, {who}", ins.where)

    # --- barriers ---------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Note that all threads have passed a barrier of their block."""
        self._stamps = (self._stamps // watch.WARPS + 1) * watch.WARPS

    def said(self, how: str, lanes: Array, flag: Array) -> Array:
        """Return what whole blocks say at a barrier: how many of their threads, all, or any."""
        block = self.block[lanes]
        count = np.bincount(block, flag)[block]
        return {"popc": count.astype(np.uint32), "and": count == self.size, "or": count > 0}[how]

    def warp_barrier(self, lanes: Array, mask: Array) -> None:
        """Note that threads have passed a barrier of their warp."""
        self.warps.check(lanes, mask, "a barrier of a warp")
        if self.watched and not self.warps.whole(lanes, mask):
            raise DeviceError(
                f"kernel {self.kernel}: a barrier of a part of a warp is not emulated; name all "
                "threads of the warp"
            )
        self._stamps[lanes] += 1

    # --- memory -----------------------------------------------------------------------------------

    def _report(self, how: tuple[int, int, int], verb: str, space: Space, lanes: Array) -> None:
        code, i, word = how
        if code != watch.GOOD:
            kind, what = watch.SAID[code]
            place = f"{verb} word {word % self._places.apart(space)} of {space.name} memory: {what}"
            if kind == "race" and self.code.fenced:
                place += " (a fence may order them, and fences are not watched)"
            self.fault(kind, place, lanes[i])

    def load(
        self,
        kind: str,
        address: Array,
        lanes: Array,
        dtype: np.dtype,
        count: int,
        atomic: bool = False,
    ) -> Array:
        """Return what threads load: a row for each of ``count`` values.

        ``atomic`` says that an atomic begins with it, which needs no order with other atomics.
        """
        size = dtype.itemsize * count
        space, words = self._places.words(kind, address, lanes, size)
        self._count(space, address, lanes, size, "load")
        words = words[:, None] + np.arange(max(1, size // 4))
        watched = self.watched and not atomic
        if self.watched and atomic:
            self._touch(space, words, lanes)
        if size < 4:
            if watched:  # who reads one byte of a word may be another than who writes the next
                space.split(size)
            out = np.empty((1, len(lanes)), np.uint32)
            given = self.thread[lanes], self._stamps[lanes]
            for some, states, _ in self._parts(space, address, size):
                given_some = given[0][some], given[1][some], self.size, self.first
                got = np.empty((1, some.sum()), np.uint32)
                for state in states:
                    how = watch.load(state, space.data, words[some], *given_some, got, watched)
                    self._report(how, "a load of", space, lanes[some])
                out[:, some] = got
        else:
            out = self._read(space, words, lanes, watched)
        if dtype.itemsize == 4:
            return out.view(dtype)
        if dtype.itemsize == 8:
            pairs = np.ascontiguousarray(out.reshape(count, 2, -1).transpose(0, 2, 1))
            return pairs.view(dtype)[..., 0]
        bytes_ = np.ascontiguousarray(out.T).view(dtype)
        first = (address & np.uint64(3)).astype(np.int64) // dtype.itemsize
        return np.stack([bytes_[np.arange(len(lanes)), first + q] for q in range(count)])

    def _read(self, space: Space, words: Array, lanes: Array, watched: bool) -> Array:
        out = np.empty(words.shape[::-1], np.uint32)
        given = self.thread[lanes], self._stamps[lanes], self.size, self.first
        for state in space.states:
            how = watch.load(state, space.data, words, *given, out, watched)
            self._report(how, "a load of", space, lanes)
        return out

    def store(
        self, kind: str, address: Array, lanes: Array, dtype: np.dtype, values: list[Array]
    ) -> None:
        """Write a value, or several side by side, for each thread."""
        size = dtype.itemsize * len(values)
        if size == 6 or (dtype.itemsize == 1 and len(values) > 1):
            self.fault("bounds", f"a store of {size} bytes, which is not emulated", lanes[0])
        self.idle = 0
        space, words = self._places.words(kind, address, lanes, size)
        self._count(space, address, lanes, size, "store")
        if space is self._places.constant:
            self.fault("bounds", "a store to an array that is constant", lanes[0])
        rows = np.stack([np.broadcast_to(v, lanes.shape).astype(dtype, copy=False) for v in values])
        if size < 4:
            space.split(size)
            for some, states, data in self._parts(space, address, size):
                one = self.thread[lanes][some], self._stamps[lanes][some], self.size, self.first
                args = (
                    words[some][:, None],
                    *one,
                    rows[:, some].view(f"u{size}"),
                    self.watched,
                    False,
                )
                for state in states:
                    how = watch.store(state, data, *args)
                    self._report(how, "a store to", space, lanes[some])
            return
        if dtype.itemsize == 2:
            rows = np.ascontiguousarray(rows.T).view(np.uint32).T
        if dtype.itemsize == 8:
            halves = np.ascontiguousarray(rows).view(np.uint32).reshape(len(values), -1, 2)
            rows = halves.transpose(0, 2, 1).reshape(2 * len(values), -1)
        words = words[:, None] + np.arange(size // 4)
        self._write(space, words, lanes, np.ascontiguousarray(rows).view(np.uint32), False)

    def _write(
        self, space: Space, words: Array, lanes: Array, values: Array, pending: bool
    ) -> None:
        given = self.thread[lanes], self._stamps[lanes], self.size, self.first
        for state in space.states:
            how = watch.store(state, space.data, words, *given, values, self.watched, pending)
            self._report(how, "a store to", space, lanes)

    @staticmethod
    def _parts(space: Space, address: Array, size: int) -> Iterator[tuple[Array, Any, Array]]:
        """Return which accesses go to each half or byte of a word, and what is there."""
        for place in range(4 // size):
            some = (address & np.uint64(3)) == np.uint64(place * size)
            if some.any():
                yield some, *space.part(size, place)

    def atomic(
        self, kind: str, how: str, address: Array, lanes: Array, dtype: np.dtype, *values: Array
    ) -> Array:
        """Change words one thread after the other; return what they held before."""
        size = dtype.itemsize
        space, words = self._places.words(kind, address, lanes, size)
        self._count(space, address, lanes, size, "atomic")
        if self.watched:
            self._touch(space, words[:, None] + np.arange(size // 4), lanes)
        before, changed = space.change(words, dtype, how, values)
        if changed:
            self.idle = 0
        return before

    def _touch(self, space: Space, words: Array, lanes: Array) -> None:
        """Check atomics on words, a row for each thread, and note them."""
        given = self.thread[lanes], self._stamps[lanes], self.size, self.first
        for state in space.states:
            for column in words.T:
                how = watch.touch(state, np.ascontiguousarray(column), *given)
                self._report(how, "an atomic on", space, lanes)

    def forget(self, kind: str, address: Array, lanes: Array, size: int) -> None:
        """Note that words which a thread has just filled are not yet written by its kernel."""
        space, words = self._places.words(kind, address, lanes, size)
        for state in space.states if space is self._local else ():
            state.known[words[:, None] + np.arange(size // 4)] = False

    def copy(self, to: Array, of: Array, lanes: Array, size: int, taken: Array) -> None:
        """Start asynchronous copies of ``taken`` bytes, filled up with zeros to ``size``."""
        if (taken > size).any():
            bad = taken > size
            what = f"a copy of {size} bytes that reads {taken[bad][0]}"
            self.fault("bounds", what, lanes[bad][0])
        if (taken % 4).any():
            raise DeviceError(
                f"kernel {self.kernel}: an asynchronous copy of {taken[taken % 4 > 0][0]} bytes is "
                "not emulated, only multiples of 4 are"
            )
        self.idle = 0
        space, words = self._places.words("shared", to, lanes, size)
        self._count(space, to, lanes, size, "copy")
        values = np.zeros((size // 4, len(lanes)), np.uint32)
        sources, source = np.full((len(lanes), size // 4), -1), space
        for count in range(1, size // 4 + 1):
            some = taken == 4 * count
            if some.any():
                given = of[some], lanes[some], 4 * count
                here, first = self._places.words("global", *given, multiple=size)
                if source not in (space, here):
                    raise DeviceError(f"kernel {self.kernel}: one instruction copies of two arrays")
                source = here
                self._count(source, *given, "load")
                sources[some, :count] = first[:, None] + np.arange(count)
                values[:count, some] = self._read(
                    source, sources[some, :count], lanes[some], self.watched
                )
        words = words[:, None] + np.arange(size // 4)
        self._write(space, words, lanes, values, True)
        for state in source.states if self.watched else ():
            watch.lend(state, sources)
        self.copies.start(source, lanes, words, values, sources)

    def _land(self, source: Space, copy: Copy) -> None:
        now = self.thread[copy.lanes], self._stamps[copy.lanes]
        for state in self._shared.states:
            watch.land(
                state, self._shared.data, copy.words, *now, np.ascontiguousarray(copy.values)
            )
        for state in source.states if self.watched else ():
            watch.give_back(state, copy.sources, *now, self.size, self.first)

    def end(self) -> None:
        """End what is under way still; nobody waits for it."""
        self.copies.wait(np.arange(self.lanes), -1)

    def _count(self, space: Space, address: Array, lanes: Array, size: int, what: str) -> None:
        if self.counters is not None and space is not self._local:
            self.counters.access(space.name, what, address, self.warps.warp[lanes], size, self.at)
