"""What a thread has of a GPU: a stream, memory for copies and single calls, and started plans.

Only pinned memory can be copied while the processor does something else. An array goes through two
small pinned buffers in turn: while one is on its way, the other is filled or emptied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_uint64, c_void_p

import numpy as np

from .graph import NO_TIMES, NOT_BLOCKING, Handles, Lane, Owner
from .library import Driver
from .machine import Memory

SIZE = 4 << 20  # bytes of a buffer


class Staging:
    """Two pinned buffers of one stream; ``handles`` has what is to be given back."""

    def __init__(self, driver: Driver, stream: c_void_p, handles: Handles) -> None:
        self._driver, self._stream, made = driver, stream, handles.made
        self._memory = [made("cuMemAllocHost_v2", SIZE, "cuMemFreeHost") for _ in range(2)]
        self._events = [made("cuEventCreate", 0, "cuEventDestroy_v2") for _ in range(2)]
        kind = ctypes.c_uint8 * SIZE
        self._bytes = [np.ctypeslib.as_array(kind.from_address(m.value or 0)) for m in self._memory]

    def write(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to the device, and wait until it is there."""
        flat = values.reshape(-1).view(np.uint8)
        for turn, start, stop in _parts(flat.size):
            buffer = turn % 2
            if turn > 1:
                self._driver("cuEventSynchronize", self._events[buffer])
            np.copyto(self._bytes[buffer][: stop - start], flat[start:stop])
            place, size = c_uint64(address + start), stop - start
            self._driver("cuMemcpyHtoDAsync_v2", place, self._memory[buffer], size, self._stream)
            self._driver("cuEventRecord", self._events[buffer], self._stream)
        self._driver("cuStreamSynchronize", self._stream)

    def read(self, address: int, out: np.ndarray) -> None:
        """Fill a contiguous array from the device, when everything before has been computed."""
        flat = out.reshape(-1).view(np.uint8)
        parts = list(_parts(flat.size))
        for turn, start, stop in parts[:2]:
            self._begin(turn, address + start, stop - start)
        for turn, start, stop in parts:
            self._driver("cuEventSynchronize", self._events[turn % 2])
            np.copyto(flat[start:stop], self._bytes[turn % 2][: stop - start])
            if turn + 2 < len(parts):
                _, start, stop = parts[turn + 2]
                self._begin(turn, address + start, stop - start)

    def _begin(self, turn: int, address: int, size: int) -> None:
        """Start to copy to a buffer."""
        memory, event = self._memory[turn % 2], self._events[turn % 2]
        self._driver("cuMemcpyDtoHAsync_v2", memory, c_uint64(address), size, self._stream)
        self._driver("cuEventRecord", event, self._stream)


class Thread:
    """What a thread of the process has of a GPU: a stream, and memory for copies and single calls.

    On its stream are its copies, and kernels that no plan has. Plans have streams of their own
    (`graph.Lane`); what the thread asks for happens in order all the same: a plan waits for what is
    on the thread's stream and for plans that use the same memory, and the thread's stream waits for
    a plan before it does anything with the plan's memory.
    """

    def __init__(self, driver: Driver, gpu: Owner) -> None:
        self._driver, self._handles = driver, Handles(driver, gpu)
        made = self._handles.made  # also what is made before a failure is given back
        self.stream = made("cuStreamCreate", NOT_BLOCKING, "cuStreamDestroy_v2")
        self.staging = Staging(driver, self.stream, self._handles)
        self._mark = made("cuEventCreate", NO_TIMES, "cuEventDestroy_v2")
        self._started: list[Lane] = []  # that this stream has not waited for since
        self.room: Memory | None = None  # for single calls, one after the other

    def before(self, lane: Lane) -> None:
        """Let the stream of a plan wait for what this thread has asked for."""
        self._driver("cuEventRecord", self._mark, self.stream)
        self._driver("cuStreamWaitEvent", lane.stream, self._mark, 0)
        for other in self._started:
            if other is not lane and not lane.memories.isdisjoint(other.memories):
                self._driver("cuStreamWaitEvent", lane.stream, other.ended, 0)

    def behind(self, lane: Lane) -> None:
        """Note that all launches of a plan have been started."""
        self._driver("cuEventRecord", lane.ended, lane.stream)
        if lane not in self._started:
            self._started.append(lane)

    def join(self, *addresses: int) -> None:
        """Let this stream wait for the plans that use memory at these addresses."""
        for lane in self._started[:]:
            if any(map(lane.has, addresses)):
                self._driver("cuStreamWaitEvent", self.stream, lane.ended, 0)
                self._started.remove(lane)

    def wait(self) -> None:
        """Return when everything has ended that this thread has asked for."""
        while self._started:
            self._driver("cuStreamWaitEvent", self.stream, self._started[-1].ended, 0)
            self._started.pop()
        self._driver("cuStreamSynchronize", self.stream)


def _parts(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the first and the last byte of each part."""
    for turn, start in enumerate(range(0, size, SIZE)):
        yield turn, start, min(start + SIZE, size)
