"""Launches that are prepared once: a kernel as the driver knows it, and a graph of many launches.

To start a kernel from Python takes some microseconds, and a network has dozens: for one image that
is longer than they compute. So the launches of a plan are recorded once, and the driver starts all
of them in one call. Each plan has a stream of its own for them.
"""

from __future__ import annotations

import ctypes
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ctypes import byref, c_char_p, c_float, c_int32, c_uint64, c_void_p, cast
from typing import Any, NamedTuple, Protocol

from numba.core import types

from ....errors import DeviceError
from .arrays import DeviceArray, Scratch
from .cache import compiler_of, shown
from .kernel import Kernel
from .library import OUT_OF_MEMORY, UNSUPPORTED_PTX, Driver, DriverError
from .machine import Launch

THREAD_LOCAL = 1  # other threads may use the driver while this one records
NOT_BLOCKING = 1  # a stream that does not wait for what others do on the default one
NO_TIMES = 2  # an event that is only waited for
WHILE_RECORDED = range(900, 909)  # codes of what is refused only where it is recorded
LOG_BUFFER, LOG_SIZE = 5, 6  # options of the driver's compiler: where errors go, and how many bytes
LOG = 16 << 10
ENTRY, VERSION = re.compile(r"\.entry\s+([\w$]+)"), re.compile(r"\.version\s+([\d.]+)")


class Starter(Protocol):
    """What a plan needs of the thread that runs it."""

    def before(self, lane: Lane) -> None:
        """Let the stream of a plan wait for what the thread has asked for."""

    def behind(self, lane: Lane) -> None:
        """Note that all launches of a plan have been started."""


class Owner(Protocol):
    """What a plan, or what a thread has, needs of its GPU."""

    def drop(self, function: str, handle: Any) -> None:
        """Call that function of the driver later, when nothing is being recorded."""


class Handles:
    """What was made by the driver. It is left to the GPU when nobody holds this any more."""

    def __init__(self, driver: Driver, owner: Owner) -> None:
        self._driver, self._owner = driver, owner
        self._held = deque[tuple[str, c_void_p]]()

    def made(self, function: str, argument: int, back: str) -> c_void_p:
        """Return what a function of the driver makes; ``back`` is the one that takes it back."""
        handle = self._driver.handle(function, argument)
        self._held.appendleft((back, handle))  # what was made last is given back first
        return handle

    def __del__(self) -> None:
        """Leave all of it to the GPU."""
        for function, handle in self._held:
            self._owner.drop(function, handle)


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


def loaded(driver: Driver, device: str, kernel: Kernel, text: str) -> c_void_p:
    """Return a kernel as the driver knows it, which compiles its PTX.

    Raises
    ------
    DeviceError
        The driver does not take it; the text says what it and its compiler say.
    """
    log, entry = ctypes.create_string_buffer(LOG), ENTRY.search(text)
    if entry is None:
        raise DeviceError(f"the PTX of {kernel.name} has no entry; report it")
    options = (ctypes.c_int * 2)(LOG_BUFFER, LOG_SIZE)
    values = (c_void_p * 2)(ctypes.addressof(log), LOG)
    image = c_char_p(text.encode())
    try:
        module = driver.handle("cuModuleLoadDataEx", image, 2, options, values)
    except DriverError as error:
        if error.code == OUT_OF_MEMORY:
            raise
        if error.code == UNSUPPORTED_PTX:
            found, version = VERSION.search(text), shown(driver.number("cuDriverGetVersion"))
            raise DeviceError(
                f"NVIDIA's driver is too old for these kernels: it is for CUDA {version}, and they "
                f"are PTX {found[1] if found else 'of an unknown version'}; update the driver, or "
                f"install NVIDIA's compiler of its version ({compiler_of(version)})"
            ) from error
        said = log.value.decode("utf-8", "replace")
        raise DeviceError(
            f"{device} does not take the kernel {kernel.name}: {error}; the driver's compiler "
            f"says: {said or 'nothing'}; report it"
        ) from error
    return driver.handle("cuModuleGetFunction", module, entry[1].encode())


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
        self._handles = Handles(driver, owner)
        self.stream = self._handles.made("cuStreamCreate", NOT_BLOCKING, "cuStreamDestroy_v2")
        self.ended = self._handles.made("cuEventCreate", NO_TIMES, "cuEventDestroy_v2")
        found = dict(one for each in launches for one in used(each.launch))
        self._starts, self.memories = sorted(found), frozenset(found)
        self._ends = [found[start] for start in self._starts]

    def has(self, address: int) -> bool:
        """Return whether an address lies in the memory that the launches use."""
        place = bisect_right(self._starts, address) - 1
        return place >= 0 and address < self._ends[place]


def used(launch: Launch) -> Iterator[tuple[int, int]]:
    """Yield where the allocation of each array of a launch begins and ends."""
    for array in launch.arguments:
        if isinstance(array, DeviceArray):
            memory = array.memory
            if isinstance(memory, Scratch) and memory.within is not None:
                memory = memory.within
            yield memory.address, memory.address + memory.size


class Chain:
    """The launches of a plan; `start` starts all of them on the plan's own stream, in order.

    They begin when what the thread has asked for before has ended, but for other plans that use
    other memory: two plans of a thread run at the same time.
    """

    def __init__(
        self, driver: Driver, launches: Sequence[Prepared], lane: Lane, owner: Owner
    ) -> None:
        # The arrays of the launches must live as long as the graph.
        self._driver, self._launches, self._lane, self._owner = driver, launches, lane, owner
        self._graph = recorded(driver, launches, lane.stream)

    def start(self, thread: Starter) -> None:
        """Start all launches for a thread; nobody waits for them."""
        stream = self._lane.stream
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
    """Return a graph of launches, or None where the driver makes none of them.

    Raises
    ------
    DriverError
        A launch fails, and not because it is recorded.
    """
    graph = c_void_p()
    try:
        driver("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    except DriverError:
        return None
    try:
        try:
            for launch in launches:
                launch.start(driver, stream)
        except BaseException:
            with suppress(DriverError):  # a failed launch ends the recording, which says only that
                driver("cuStreamEndCapture", stream, byref(graph))
            raise
        driver("cuStreamEndCapture", stream, byref(graph))
        return driver.handle("cuGraphInstantiateWithFlags", graph, 0)
    except DriverError as error:
        if error.function == "cuLaunchKernel" and error.code not in WHILE_RECORDED:
            raise
        return None
    finally:
        if graph:
            driver("cuGraphDestroy", graph)
