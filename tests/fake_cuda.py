"""NVIDIA's driver, as far as the backend uses it, in Python: for tests where there is no GPU.

Memory of the device is memory of this process, poisoned. What a stream is given happens as late as
the driver may do it: when somebody waits for the stream or for an event. A kernel runs on the
emulator. Whatever the real driver would refuse is refused, and every call is written down.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import types

from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.ops.cuda.runtime import gpu, library
from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.cuda.runtime.kernel import Kernel
from tinyresnext.ops.cuda.runtime.library import FUNCTIONS
from tinyresnext.ops.cuda.runtime.machine import Launch

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_CONTEXT, NOT_FOUND = 1, 2, 3, 201, 500
WHILE_RECORDED = 900
NAMES = {
    2: "OUT_OF_MEMORY",
    3: "NOT_INITIALIZED",
    100: "NO_DEVICE",
    201: "INVALID_CONTEXT",
    222: "UNSUPPORTED_PTX_VERSION",
    700: "ILLEGAL_ADDRESS",
    803: "SYSTEM_DRIVER_MISMATCH",
    900: "STREAM_CAPTURE_UNSUPPORTED",
}
WITHOUT_CONTEXT = {"cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString",
                   "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute",
                   "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2"}  # fmt: skip
NEVER_RECORDED = {"cuMemAlloc_v2", "cuMemFree_v2", "cuMemAllocHost_v2", "cuMemFreeHost",
                  "cuModuleLoadDataEx", "cuStreamSynchronize", "cuEventSynchronize"}  # fmt: skip
ONE = threading.RLock()  # thread at a time is in the driver, and in the emulator


def number(argument: Any) -> int:
    """Return a handle, an address or a number, however ctypes passes it."""
    return int(getattr(argument, "value", argument) or 0)


class FakeCuda:
    """A driver with its devices.

    Parameters
    ----------
    capabilities : sequence of tuple
        One for each device.
    memory : int
        How many bytes each has.
    """

    def __init__(self, capabilities: Any = ((9, 0),), memory: int = 1 << 26, version: int = 13000):
        self.capabilities, self.memory, self.version = capabilities, memory, version
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, int] = {}  # the code that a function returns
        self.most_pinned = 1000  # arrays
        self.process: int | None = None  # that called cuInit; those forked from it are refused
        self.allocated: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.kernels: dict[bytes, Kernel] = {}
        self.log = b""
        self._handles, self._local = itertools.count(1000), threading.local()
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self._recording: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self._functions: dict[int, Kernel] = {}
        self._events: dict[int, tuple[int, Callable[[], None]]] = {}
        self._emulator = FiberMachine(capability=(8, 0))

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in FUNCTIONS:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            assert len(arguments) == len(FUNCTIONS[name]), name
            if name in self.fail:
                if name == "cuStreamEndCapture":  # nothing is recorded any more
                    self._recording.clear()
                    self._local.records = 0
                return self.fail[name]
            if self.process not in (None, os.getpid()) and not name.startswith("cuGetError"):
                return NOT_INITIALIZED
            if name not in WITHOUT_CONTEXT and not self.contexts:
                return NO_CONTEXT
            if name in NEVER_RECORDED and getattr(self._local, "records", 0):
                return WHILE_RECORDED
            own = getattr(self, f"_{name.removeprefix('cu').removesuffix('_v2')}")
            with ONE:
                return own(*arguments) or 0

        return call

    def ptx(self, kernel: Kernel, capability: Any) -> str:
        """Return what stands for the PTX of a kernel: its name, under which it is found."""
        self.kernels[kernel.name.encode()] = kernel
        return f".version 9.0\n.target sm_{capability[0]}{capability[1]}\n.entry {kernel.name}("

    def _handle(self, place: Any) -> int:
        place._obj.value = handle = next(self._handles)
        return handle

    # --- the driver and its devices ---------------------------------------------------------------

    def _Init(self, flags: Any) -> None:
        self.process = os.getpid() if self.capabilities else None

    def _DriverGetVersion(self, place: Any) -> None:
        place._obj.value = self.version

    def _GetErrorName(self, code: int, place: Any) -> None:
        place._obj.value = f"CUDA_ERROR_{NAMES.get(code, 'INVALID_VALUE')}".encode()

    def _GetErrorString(self, code: int, place: Any) -> None:
        place._obj.value = b"it was planted"

    def _DeviceGetCount(self, place: Any) -> None:
        place._obj.value = len(self.capabilities)

    def _DeviceGet(self, place: Any, index: int) -> int:
        place._obj.value = index
        return 0 if index < len(self.capabilities) else 101

    def _DeviceGetName(self, text: Any, size: int, device: int) -> None:
        text.value = b"Fake GPU"

    def _DeviceGetAttribute(self, place: Any, which: int, device: int) -> None:
        major, minor = self.capabilities[device]
        place._obj.value = {75: major, 76: minor, 16: 4}[which]

    def _DevicePrimaryCtxRetain(self, place: Any, device: int) -> None:
        place._obj.value = 77 + device

    @property
    def contexts(self) -> list[int]:
        """Return the stack of contexts of this thread; the last one is current."""
        return self._local.__dict__.setdefault("contexts", [])

    def _CtxPushCurrent(self, context: Any) -> None:
        self.contexts.append(number(context))

    def _CtxPopCurrent(self, place: Any) -> None:
        place._obj.value = self.contexts.pop()

    # --- memory -----------------------------------------------------------------------------------

    def free(self) -> int:
        """Return how many bytes are left."""
        return self.memory - sum(values.size for values in self.allocated.values())

    def _MemGetInfo(self, free: Any, total: Any) -> None:
        free._obj.value, total._obj.value = self.free(), self.memory

    def _MemAlloc(self, place: Any, size: int) -> int:
        if size > self.free():
            return OUT_OF_MEMORY
        raw = np.full(size + 256, 0xFF, np.uint8)
        start = -raw.ctypes.data % 256
        place._obj.value = raw.ctypes.data + start
        self.allocated[place._obj.value] = raw[start : start + size]
        return 0

    def _MemFree(self, address: Any) -> int:
        for stream in self.streams:  # the driver waits for what still uses the memory
            self._run(stream)
        return 0 if self.allocated.pop(number(address), None) is not None else INVALID_VALUE

    def _MemAllocHost(self, place: Any, size: int) -> int:
        if len(self.pinned) >= self.most_pinned:
            return OUT_OF_MEMORY
        values = np.full(size, 0xFF, np.uint8)
        place._obj.value = values.ctypes.data
        self.pinned[values.ctypes.data] = values
        return 0

    def _MemFreeHost(self, memory: Any) -> None:
        del self.pinned[number(memory)]

    def _inside(self, address: int, size: int) -> bool:
        return any(
            start <= address and address + size <= start + values.size
            for start, values in self.allocated.items()
        )

    def _only_pinned(self, memory: Any, size: int) -> None:
        """The driver takes all memory, but copies to and from other memory wait for each other."""
        start = number(memory)
        places = [(begin, begin + values.size) for begin, values in self.pinned.items()]
        there = any(begin <= start and start + size <= end for begin, end in places)
        assert there, "a copy goes past pinned memory"

    def _MemcpyHtoDAsync(self, to: Any, of: Any, size: int, stream: Any) -> int:
        self._only_pinned(of, size)
        if not self._inside(number(to), size):
            return INVALID_VALUE
        return self._later(stream, lambda: ctypes.memmove(number(to), number(of), size))

    def _MemcpyDtoHAsync(self, to: Any, of: Any, size: int, stream: Any) -> int:
        self._only_pinned(to, size)
        if not self._inside(number(of), size):
            return INVALID_VALUE
        return self._later(stream, lambda: ctypes.memmove(number(to), number(of), size))

    # --- streams and events -----------------------------------------------------------------------

    def _later(self, stream: Any, work: Callable[[], Any]) -> int:
        queue = self._recording.get(number(stream), self.streams.get(number(stream)))
        if queue is None:
            return INVALID_VALUE
        queue.append(work)
        return 0

    def _run(self, stream: int) -> None:
        while self.streams[stream]:
            self.streams[stream].pop(0)()

    def _StreamCreate(self, place: Any, flags: int) -> None:
        self.streams[self._handle(place)] = []

    def _StreamDestroy(self, stream: Any) -> None:
        self._run(number(stream))
        del self.streams[number(stream)]

    def _StreamSynchronize(self, stream: Any) -> None:
        self._run(number(stream))

    def _EventCreate(self, place: Any, flags: int) -> None:
        self._handle(place)

    def _EventDestroy(self, event: Any) -> None:
        self._events.pop(number(event), None)

    def _EventRecord(self, event: Any, stream: Any) -> int:
        def mark() -> None: ...

        self._events[number(event)] = number(stream), mark
        return self._later(stream, mark)

    def _EventSynchronize(self, event: Any) -> None:
        if number(event) in self._events:
            self._until(*self._events[number(event)])

    def _StreamWaitEvent(self, stream: Any, event: Any, flags: int) -> int:
        if number(event) not in self._events:
            return 0
        place = self._events[number(event)]  # where it was recorded last when it is waited for
        return self._later(stream, lambda: self._until(*place))

    def _until(self, stream: int, mark: Callable[[], None]) -> None:
        """Run what was asked of a stream before a mark, if that is still to come."""
        while mark in self.streams.get(stream, ()):
            self.streams[stream].pop(0)()

    # --- kernels and graphs -----------------------------------------------------------------------

    def _ModuleLoadDataEx(
        self, place: Any, image: Any, count: int, options: Any, values: Any
    ) -> int:
        if self.log:
            ctypes.memmove(values[0], self.log, len(self.log))
            return 218
        place._obj.value = next(self._handles)
        return 0

    def _ModuleGetFunction(self, place: Any, module: Any, name: bytes) -> int:
        if name not in self.kernels:
            return NOT_FOUND
        self._functions[self._handle(place)] = self.kernels[name]
        return 0

    def _LaunchKernel(self, function: Any, *rest: Any) -> int:
        *shape, dynamic, stream, pointers, extra = rest
        kernel = self._functions[number(function)]
        assert shape[1:] == [1, 1, kernel.threads, 1, 1]
        assert dynamic == 0
        assert extra is None
        arguments = [
            self._argument(*pair) for pair in zip(kernel.parameters, pointers, strict=True)
        ]
        launch = Launch(kernel, shape[0], tuple(arguments))
        return self._later(stream, lambda: self._emulator.launch(launch))

    def _argument(self, kind: Any, place: int) -> Any:
        if isinstance(kind, types.CPointer):
            address = ctypes.c_uint64.from_address(place).value
            assert address == 0 or self._inside(address, 4), "an argument is not on the device"
            return DeviceArray(self._emulator, None, address, (1,), np.float32)
        number = ctypes.c_float if kind is types.float32 else ctypes.c_int32
        return number.from_address(place).value

    def _StreamBeginCapture(self, stream: Any, mode: int) -> None:
        assert mode == 1
        self._recording[number(stream)], self._local.records = [], 1

    def _StreamEndCapture(self, stream: Any, place: Any) -> None:
        self.graphs[self._handle(place)] = self._recording.pop(number(stream))
        self._local.records = 0

    def _GraphInstantiateWithFlags(self, place: Any, graph: Any, flags: int) -> None:
        self.graphs[self._handle(place)] = list(self.graphs[number(graph)])

    def _GraphDestroy(self, graph: Any) -> None:
        del self.graphs[number(graph)]

    def _GraphLaunch(self, executable: Any, stream: Any) -> None:
        for work in self.graphs[number(executable)]:
            self._later(stream, work)

    def _GraphExecDestroy(self, executable: Any) -> None:
        del self.graphs[number(executable)]


def installed(monkeypatch: Any, fake: FakeCuda) -> None:
    """Let the backend find this driver, and nothing of a GPU that it knew before."""
    monkeypatch.setattr(library, "load", lambda: fake)
    monkeypatch.setattr(gpu, "ptx", fake.ptx)
    nothing_opened(monkeypatch)


def nothing_opened(monkeypatch: Any) -> None:
    """Let this process have opened no GPU yet."""
    for module, name in ((library, "connected_once"), (gpu, "opened_once")):
        made = functools.cache(getattr(module, name).__wrapped__)
        monkeypatch.setattr(module, name, made)
