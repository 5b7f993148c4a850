"""A GPU, through NVIDIA's driver: its memory, its streams, its kernels.

The primary context of a device is retained once a process, as all libraries do that share it. It is
the current one of a thread only while the thread is in here. A thread of the process has a stream
of its own, as every plan has: what one thread asks for happens in order, but for two plans that
have no memory in common, and two threads do not wait for each other. A copy is done when its call
returns, so what a thread has uploaded is there for all.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import byref, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np

from ....errors import DeviceError, OutOfMemoryError
from .arrays import DeviceArray
from .cache import compiling, ptx
from .graph import Chain, Lane, loaded, prepared
from .kernel import Capability, Kernel
from .library import Driver, DriverError, ForkedError, connected, explained, hidden
from .machine import Launch, Memory
from .staging import Thread

MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76  # attributes of a device
LEAST: Capability = (7, 5)
KEPT = 256 << 20  # bytes of a thread's room, at most


class GpuMemory:
    """One allocation. It is freed when nobody holds it, with the next one, or for a new thread."""

    def __init__(self, address: int, size: int, gpu: Gpu) -> None:
        self.address, self.size, self._gpu = address, size, gpu

    def __del__(self) -> None:
        """Leave the memory to the GPU: this thread may just record a graph."""
        self._gpu.drop("cuMemFree_v2", c_uint64(self.address))


class Gpu:
    """One device, as a `Machine`.

    Parameters
    ----------
    driver : Driver
    index : int
        As the driver counts the devices that ``CUDA_VISIBLE_DEVICES`` leaves.

    Attributes
    ----------
    name, capability, multiprocessors
        As a `Machine` has them.
    model : str
        What NVIDIA calls it.

    Raises
    ------
    DeviceError
        The device cannot run these kernels.
    """

    def __init__(self, driver: Driver, index: int) -> None:
        self._driver, self._process, self.name = driver, os.getpid(), f"cuda:{index}"
        self._dropped: deque[tuple[str, Any]] = deque()
        self._functions: dict[Kernel, c_void_p] = {}
        self._loading, self._local = threading.Lock(), threading.local()
        with explained(self.name):
            device = driver.number("cuDeviceGet", index)
            text = ctypes.create_string_buffer(256)
            driver("cuDeviceGetName", text, len(text), device)
            self.model = text.value.decode("utf-8", "replace")
            major, minor, self.multiprocessors = (
                driver.number("cuDeviceGetAttribute", which, device)
                for which in (MAJOR, MINOR, MULTIPROCESSORS)
            )
            self.capability: Capability = major, minor
            if self.capability < LEAST:
                raise DeviceError(
                    f"{self} has compute capability {major}.{minor}, and the "
                    f"kernels need {LEAST[0]}.{LEAST[1]} (Turing, 2018) or later; compute on the "
                    "device 'cpu'"
                )
            self._context = driver.handle("cuDevicePrimaryCtxRetain", device)

    def __str__(self) -> str:
        return f"{self.name} ({self.model})"

    # --- threads ----------------------------------------------------------------------------------

    @contextmanager
    def current(self) -> Iterator[Thread]:
        """Give what this thread has of the GPU; in the ``with`` block, the context is current.

        Behind it the one is current that was before: another library's in this process, or that of
        another of its GPUs.

        Raises
        ------
        DeviceError
            This process was forked from one that had used the GPU; or the driver reports an error.
        """
        if self._process != os.getpid():
            raise ForkedError()
        with explained(self.name):
            self._driver("cuCtxPushCurrent_v2", self._context)
            try:
                yield self._thread()
            except BaseException:
                with suppress(DriverError):  # what failed first is what is said
                    self._driver.handle("cuCtxPopCurrent_v2")
                raise
            self._driver.handle("cuCtxPopCurrent_v2")

    def _thread(self) -> Thread:
        """Return what this thread has of the GPU, which is made when it first asks."""
        found: Thread | None = getattr(self._local, "thread", None)
        if found is None:
            self._give_back()  # what threads had that have ended
            found = self._local.thread = Thread(self._driver, self)
        return found

    def drop(self, function: str, handle: Any) -> None:
        """Call a function of the driver later (`_give_back`), to give something back."""
        self._dropped.append((function, handle))

    # --- memory -----------------------------------------------------------------------------------

    def allocate(self, size: int) -> GpuMemory:
        """Return memory, not filled.

        Raises
        ------
        OutOfMemoryError
            There is not as much; nothing has changed.
        """
        address = c_uint64()
        for collect in (lambda: 0, self._spare):
            collect()
            with suppress(OutOfMemoryError), self.current():
                self._give_back()
                self._driver("cuMemAlloc_v2", byref(address), size)
                return GpuMemory(int(address.value), size, self)
        free = self.free_bytes()
        raise OutOfMemoryError(
            f"{self} has {free / 2**20:,.0f} MiB of memory left, and "
            f"{size / 2**20:,.0f} MiB more are needed; give a smaller mini-batch or smaller "
            "images, or end what else uses the GPU",
            size,
            free,
        )

    def room(self, size: int) -> Memory:
        """Return memory for one call of this thread: that of the call before, if it is enough.

        A step of training, which updates many weights, so allocates and frees nothing.
        """
        with self.current() as thread:
            if size > KEPT:
                return self.allocate(size)
            if thread.room is None or thread.room.size < size:
                thread.room = None  # the new one may need its memory
                thread.room = self.allocate(size)
            return thread.room

    def _spare(self) -> None:
        """Drop what this thread can do without, and arrays that only refer to each other."""
        if (found := getattr(self._local, "thread", None)) is not None:
            found.room = None
        gc.collect()

    def _give_back(self) -> None:
        """Free what nobody holds any more; the driver waits for what still uses it."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._driver(*self._dropped.popleft())

    def free_bytes(self) -> int:
        """Return how many bytes can still be allocated."""
        free, total = c_size_t(), c_size_t()
        with self.current():
            self._give_back()
            self._driver("cuMemGetInfo_v2", byref(free), byref(total))
        return int(free.value)

    def write(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to the device."""
        with self.current() as thread:
            thread.join(address)
            thread.staging.write(address, values)

    def read(self, address: int, out: np.ndarray) -> None:
        """Fill a contiguous array from the device, when all launches before have ended."""
        with self.current() as thread:
            thread.join(address)
            thread.staging.read(address, out)

    def wait(self) -> None:
        """Return when all launches of this thread have ended."""
        with self.current() as thread:
            thread.wait()

    # --- kernels ----------------------------------------------------------------------------------

    def launch(self, launch: Launch) -> None:
        """Start one kernel; the call returns before it has ended."""
        with self.current() as thread:
            ready = prepared(self.function(launch.kernel), launch)
            thread.join(*(a.address for a in launch.arguments if isinstance(a, DeviceArray)))
            ready.start(self._driver, thread.stream)

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Return a call that starts all of these: a graph, or where there is none, one by one."""
        with self.current():
            # No module can be loaded while a graph is recorded.
            ready = [prepared(self.function(launch.kernel), launch) for launch in launches]
            chain = Chain(self._driver, ready, Lane(self._driver, ready, self), self)

        def run() -> None:
            with self.current() as thread:
                chain.start(thread)

        return run

    def function(self, kernel: Kernel) -> c_void_p:
        """Return a kernel as the driver knows it; it is compiled and loaded once a process."""
        with self._loading:
            if kernel not in self._functions:
                with self.current(), compiling(kernel.name):
                    text = ptx(kernel, self.capability)
                    self._functions[kernel] = loaded(self._driver, str(self), kernel, text)
            return self._functions[kernel]


# --- opening --------------------------------------------------------------------------------------

OPENING = threading.Lock()


@functools.cache
def opened_once(index: int) -> Gpu:
    """Return a GPU when a first kernel has been loaded; as `opened`."""
    from ..elementwise import copy_kernel

    found = connected()
    if index >= found.devices:
        names = ", ".join(f"cuda:{number}" for number in range(found.devices))
        raise DeviceError(
            f"there is no device cuda:{index}: this process sees {names}{hidden()}; give one of "
            "these"
        )
    gpu = Gpu(found.driver, index)
    gpu.function(copy_kernel())  # what lacks for kernels is known before anything is begun
    return gpu


def opened(index: int) -> Gpu:
    """Return a GPU of this process, always the same one, when a first kernel has been loaded.

    Raises
    ------
    DeviceError
        Something that is needed is not there; the text says what, and what to do.
    """
    connected()  # before the lock: at a fork, another thread may have held it
    with OPENING:
        gpu = opened_once(index)
    connected().opened = True
    return gpu
