"""A GPU, through NVIDIA's driver: its memory, its streams, its kernels.

The primary context of a device is retained once a process, as all libraries do that share it. A
thread of the process makes it its current one when it first uses the GPU, and has a stream of its
own, as every plan has: what one thread asks for happens in order, but for two plans that have no
memory in common, and two threads do not wait for each other. A copy is done when its call returns,
so what a thread has uploaded is there for all.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import byref, c_char_p, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np

from ....errors import DeviceError, OutOfMemoryError
from .arrays import DeviceArray
from .cache import compiling, ptx
from .graph import Chain, Lane, prepared
from .kernel import Capability, Kernel
from .library import (
    FORKED,
    OUT_OF_MEMORY,
    UNSUPPORTED_PTX,
    Driver,
    DriverError,
    compiler_of,
    connected,
    explained,
    load,
    shown,
)
from .machine import Launch
from .staging import Thread

MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76  # attributes of a device
LEAST: Capability = (7, 5)
LOG_BUFFER, LOG_SIZE = 5, 6  # options of the driver's compiler: where errors go, and how many bytes
LOG = 16 << 10
ENTRY, VERSION = re.compile(r"\.entry\s+([\w$]+)"), re.compile(r"\.version\s+([\d.]+)")


class GpuMemory:
    """One allocation. It is freed when nobody holds it, with the next one of its GPU."""

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

    def thread(self) -> Thread:
        """Return what this thread has of the GPU, with the context current.

        Raises
        ------
        DeviceError
            This process was forked from one that had used the GPU.
        """
        if self._process != os.getpid():
            raise DeviceError(FORKED)
        found: Thread | None = getattr(self._local, "thread", None)
        with explained(self.name):
            # Another library in this process, or another of its GPUs, may have made theirs current.
            self._driver("cuCtxSetCurrent", self._context)
            if found is None:
                found = self._local.thread = Thread(self._driver, self)
        return found

    def drop(self, function: str, handle: Any) -> None:
        """Call a function of the driver with the next allocation, to give something back."""
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
        for collect in (lambda: 0, gc.collect):  # arrays that only refer to each other
            collect()
            self._give_back()
            with suppress(OutOfMemoryError), explained(self.name):
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

    def _give_back(self) -> None:
        """Free what nobody holds any more; the driver waits for what still uses it."""
        self.thread()
        with suppress(IndexError), explained(self.name):  # another thread may take the last one
            while True:
                self._driver(*self._dropped.popleft())

    def free_bytes(self) -> int:
        """Return how many bytes can still be allocated."""
        self._give_back()
        free, total = c_size_t(), c_size_t()
        with explained(self.name):
            self._driver("cuMemGetInfo_v2", byref(free), byref(total))
        return int(free.value)

    def write(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to the device."""
        thread = self.thread()
        with explained(self.name):
            thread.join(address)
            thread.staging.write(address, values)

    def read(self, address: int, out: np.ndarray) -> None:
        """Fill a contiguous array from the device, when all launches before have ended."""
        thread = self.thread()
        with explained(self.name):
            thread.join(address)
            thread.staging.read(address, out)

    def wait(self) -> None:
        """Return when all launches of this thread have ended."""
        thread = self.thread()
        with explained(self.name):
            thread.wait()

    # --- kernels ----------------------------------------------------------------------------------

    def launch(self, launch: Launch) -> None:
        """Start one kernel; the call returns before it has ended."""
        thread, ready = self.thread(), prepared(self.function(launch.kernel), launch)
        with explained(self.name):
            thread.join(*(a.address for a in launch.arguments if isinstance(a, DeviceArray)))
            ready.start(self._driver, thread.stream)

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Return a call that starts all of these: a graph, or where there is none, one by one."""
        self.thread()
        # No module can be loaded while a graph is recorded.
        ready = [prepared(self.function(launch.kernel), launch) for launch in launches]
        with explained(self.name):
            start_all = Chain(self._driver, ready, Lane(self._driver, ready, self), self)

        def run() -> None:
            with explained(self.name):
                start_all()

        return run

    def function(self, kernel: Kernel) -> c_void_p:
        """Return a kernel as the driver knows it; it is compiled and loaded once a process."""
        with self._loading:
            if kernel not in self._functions:
                self.thread()
                with compiling(kernel.name):
                    self._functions[kernel] = self._loaded(kernel)
            return self._functions[kernel]

    def _loaded(self, kernel: Kernel) -> c_void_p:
        """Compile a kernel to PTX, and let the driver compile that."""
        text, log = ptx(kernel, self.capability), ctypes.create_string_buffer(LOG)
        entry = ENTRY.search(text)
        if entry is None:
            raise DeviceError(f"the PTX of {kernel.name} has no entry; report it")
        options = (ctypes.c_int * 2)(LOG_BUFFER, LOG_SIZE)
        values = (c_void_p * 2)(ctypes.addressof(log), LOG)
        image = c_char_p(text.encode())
        with explained(self.name):
            try:
                module = self._driver.handle("cuModuleLoadDataEx", image, 2, options, values)
            except DriverError as error:
                if error.code == OUT_OF_MEMORY:
                    raise
                said = log.value.decode("utf-8", "replace")
                raise self._not_loaded(error, kernel, text, said) from error
            return self._driver.handle("cuModuleGetFunction", module, entry[1].encode())

    def _not_loaded(self, error: DriverError, kernel: Kernel, text: str, said: str) -> DeviceError:
        """Return the error for a kernel that the driver does not take."""
        if error.code != UNSUPPORTED_PTX:
            return DeviceError(
                f"{self} does not take the kernel {kernel.name}: {error}; the "
                f"driver's compiler says: {said or 'nothing'}; report it"
            )
        found, version = VERSION.search(text), shown(self._driver.number("cuDriverGetVersion"))
        return DeviceError(
            f"NVIDIA's driver is too old for these kernels: it is for CUDA {version}, and they are "
            f"PTX {found[1] if found else 'of an unknown version'}; update the driver, or install "
            f"NVIDIA's compiler of its version ({compiler_of(version)})"
        )


# --- opening --------------------------------------------------------------------------------------

OPENING = threading.Lock()


@functools.cache
def first_process() -> int:
    """Return the process that asked for a GPU first; one that is forked from it is told this."""
    return os.getpid()


@functools.cache
def opened_once(index: int) -> Gpu:
    """Return a GPU when a first kernel has been loaded; as `opened`."""
    from ..elementwise import copy_kernel

    driver = Driver(load())
    count = connected(driver)
    if index >= count:
        names = ", ".join(f"cuda:{number}" for number in range(count))
        raise DeviceError(f"there is no device cuda:{index}: this computer has {names}")
    gpu = Gpu(driver, index)
    gpu.function(copy_kernel())  # what lacks for kernels is known before anything is begun
    return gpu


def opened(index: int) -> Gpu:
    """Return a GPU of this process, always the same one, when a first kernel has been loaded.

    Raises
    ------
    DeviceError
        Something that is needed is not there; the text says what, and what to do.
    """
    if first_process() != os.getpid():  # first: another thread had the lock at the fork, perhaps
        raise DeviceError(FORKED)
    with OPENING:
        return opened_once(index)
