"""Launches that are prepared once: what the driver is given, and a graph of many of them.

To start a kernel from Python takes some microseconds, and a network has dozens: for one image that
is longer than they compute. So the launches of a plan are recorded once on a stream, and the driver
starts all of them in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ctypes import byref, c_float, c_int32, c_uint64, c_void_p, cast
from typing import Any, NamedTuple, Protocol

from numba.core import types

from .library import Driver, DriverError
from .machine import Launch

THREAD_LOCAL = 1  # other threads may use the driver while this one records


class Owner(Protocol):
    """What a graph needs of its GPU."""

    @property
    def stream(self) -> c_void_p:
        """The stream of this thread."""

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


class Graph:
    """Launches that were recorded; a call starts all of them on the stream of its thread."""

    def __init__(self, driver: Driver, executable: c_void_p, owner: Owner, kept: object) -> None:
        # The arrays of the launches must live as long as the graph.
        self._driver, self._executable, self._owner, self._kept = driver, executable, owner, kept

    def __call__(self) -> None:
        """Start all launches; nobody waits for them."""
        self._driver("cuGraphLaunch", self._executable, self._owner.stream)

    def __del__(self) -> None:
        """Leave the graph to the GPU."""
        self._owner.drop("cuGraphExecDestroy", self._executable)


def recorded(driver: Driver, launches: Sequence[Prepared], owner: Owner) -> Callable[[], None]:
    """Return a graph of launches; where the driver records none, a call that starts each."""
    stream, graph = owner.stream, c_void_p()

    def one_by_one() -> None:
        for launch in launches:
            launch.start(driver, owner.stream)

    try:
        driver("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    except DriverError:
        return one_by_one
    try:
        for launch in launches:
            launch.start(driver, stream)
    finally:
        driver("cuStreamEndCapture", stream, byref(graph))
    try:
        executable = driver.handle("cuGraphInstantiateWithFlags", graph, 0)
    finally:
        driver("cuGraphDestroy", graph)
    return Graph(driver, executable, owner, launches)
