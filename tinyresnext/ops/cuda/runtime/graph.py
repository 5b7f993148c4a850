"""Launches that are prepared once: what the driver is given, and a graph of many of them.

To start a kernel from Python takes some microseconds, and a network has dozens: for one image that
is longer than they compute. So the launches of a plan are recorded once, and the driver starts all
of them in one call. Each plan has a stream of its own for them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from ctypes import byref, c_float, c_int32, c_uint64, c_void_p, cast
from typing import Any, NamedTuple, Protocol

from numba.core import types

from .arrays import DeviceArray, Scratch
from .library import Driver, DriverError
from .machine import Launch

THREAD_LOCAL = 1  # other threads may use the driver while this one records
NOT_BLOCKING = 1  # a stream that does not wait for what others do on the default one
NO_TIMES = 2  # an event that is only waited for


class Starter(Protocol):
    """What a plan needs of the thread that runs it."""

    def before(self, lane: Lane) -> None:
        """Let the stream of a plan wait for what the thread has asked for."""

    def behind(self, lane: Lane) -> None:
        """Note that all launches of a plan have been started."""


class Owner(Protocol):
    """What a plan needs of its GPU."""

    def thread(self) -> Starter:
        """Return what this thread has of the GPU."""

    def drop(self, function: str, handle: Any) -> None:
        """Call that function of the driver later, when nothing is being recorded."""


class Prepared(NamedTuple):
    """A launch with all that the driver is given."""

    function: c_void_p
    launch: Launch
    values: list[Any]  # they must live until the kernel has been started
    pointers: Any

    def start(self, driver: Driver, stream: c_void_p) -> None:
        """Start the kernel; nobody waits for it."""
        grid, block = (self.launch.blocks, 1, 1), (self.launch.kernel.threads, 1, 1)
        driver("cuLaunchKernel", self.function, *grid, *block, 0, stream, self.pointers, None)


def prepared(function: c_void_p, launch: Launch) -> Prepared:
    """Return a launch with its arguments as the driver reads them: their addresses."""
    values: list[Any] = []
    given: Iterable[Any] = launch.arguments
    for kind, value in zip(launch.kernel.parameters, given, strict=True):
        if isinstance(kind, types.CPointer):
            values.append(c_uint64(0 if value is None else value.address))
        elif kind is types.float32:
            values.append(c_float(value))
        else:
            values.append(c_int32(value))
    pointers = (c_void_p * len(values))(*(cast(byref(value), c_void_p).value for value in values))
    return Prepared(function, launch, values, pointers)


class Lane:
    """The stream of one plan, and the memory that its launches use.

    Attributes
    ----------
    stream : handle
    ended : handle
        An event behind the last launch of the last run.
    memories : frozenset of int
        Where each allocation begins.
    """

    def __init__(self, driver: Driver, launches: Sequence[Prepared], owner: Owner) -> None:
        self._owner, self._held = owner, deque[tuple[str, c_void_p]]()
        self.stream = driver.handle("cuStreamCreate", NOT_BLOCKING)
        self._held.append(("cuStreamDestroy_v2", self.stream))
        self.ended = driver.handle("cuEventCreate", NO_TIMES)
        self._held.appendleft(("cuEventDestroy_v2", self.ended))
        found = dict(one for each in launches for one in used(each.launch))
        self._starts, self.memories = sorted(found), frozenset(found)
        self._ends = [found[start] for start in self._starts]

    def has(self, address: int) -> bool:
        """Return whether an address lies in the memory that the launches use."""
        place = bisect_right(self._starts, address) - 1
        return place >= 0 and address < self._ends[place]

    def __del__(self) -> None:
        """Leave stream and event to the GPU."""
        for function, handle in self._held:
            self._owner.drop(function, handle)


def used(launch: Launch) -> Iterator[tuple[int, int]]:
    """Yield where the allocation of each array of a launch begins and ends."""
    for array in launch.arguments:
        if isinstance(array, DeviceArray):
            memory = array.memory
            if isinstance(memory, Scratch) and memory.within is not None:
                memory = memory.within
            yield memory.address, memory.address + memory.size


class Chain:
    """The launches of a plan; a call starts all of them on the plan's own stream, in order.

    They begin when what the thread has asked for before has ended, but for other plans that use
    other memory: two plans of a thread run at the same time.
    """

    def __init__(
        self, driver: Driver, launches: Sequence[Prepared], lane: Lane, owner: Owner
    ) -> None:
        # The arrays of the launches must live as long as the graph.
        self._driver, self._launches, self._lane, self._owner = driver, launches, lane, owner
        self._graph = recorded(driver, launches, lane.stream)

    def __call__(self) -> None:
        """Start all launches; nobody waits for them."""
        thread, stream = self._owner.thread(), self._lane.stream
        thread.before(self._lane)
        if self._graph is not None:
            self._driver("cuGraphLaunch", self._graph, stream)
        else:
            for launch in self._launches:
                launch.start(self._driver, stream)
        thread.behind(self._lane)

    def __del__(self) -> None:
        """Leave the graph to the GPU."""
        if getattr(self, "_graph", None) is not None:
            self._owner.drop("cuGraphExecDestroy", self._graph)


def recorded(driver: Driver, launches: Sequence[Prepared], stream: c_void_p) -> c_void_p | None:
    """Return a graph of launches, or None where the driver records none."""
    graph = c_void_p()
    try:
        driver("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    except DriverError:
        return None
    try:
        for launch in launches:
            launch.start(driver, stream)
    finally:
        driver("cuStreamEndCapture", stream, byref(graph))
    try:
        return driver.handle("cuGraphInstantiateWithFlags", graph, 0)
    finally:
        driver("cuGraphDestroy", graph)
