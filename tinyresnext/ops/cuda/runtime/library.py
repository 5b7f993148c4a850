"""NVIDIA's driver library: the few of its functions that are needed, each called with a check.

Numba compiles kernels; everything else is done here, with the driver itself. So nothing of Numba's
runtime is needed, nor its notion of a current device, and a plan is a graph that the driver starts
in one call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from dataclasses import dataclass, field
from typing import Any, Protocol

from ....errors import DeviceError, OutOfMemoryError

NAMES = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
# Codes of errors that have an explanation of their own.
OUT_OF_MEMORY, NOT_INITIALISED, TAKEN, NO_DEVICE = 2, 3, 46, 100
UNSUPPORTED_PTX, SYSTEM_MISMATCH = 222, 803
# After these the driver refuses everything else that this process asks for.
LOST = {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911}
# What a function takes: a pointer or a handle, a number, a number without sign, a size, an address.
_TYPES = {"p": c_void_p, "i": c_int, "u": c_uint, "n": c_size_t, "a": c_uint64, "s": c_char_p}
FUNCTIONS = {
    "cuInit": "u",
    "cuDriverGetVersion": "p",
    "cuGetErrorName": "ip",
    "cuGetErrorString": "ip",
    "cuDeviceGetCount": "p",
    "cuDeviceGet": "pi",
    "cuDeviceGetName": "pii",
    "cuDeviceGetAttribute": "pii",
    "cuDevicePrimaryCtxRetain": "pi",
    "cuCtxPushCurrent_v2": "p",
    "cuCtxPopCurrent_v2": "p",
    "cuMemGetInfo_v2": "pp",
    "cuMemAlloc_v2": "pn",
    "cuMemFree_v2": "a",
    "cuMemAllocHost_v2": "pn",
    "cuMemFreeHost": "p",
    "cuMemcpyHtoDAsync_v2": "apnp",
    "cuMemcpyDtoHAsync_v2": "panp",
    "cuStreamCreate": "pu",
    "cuStreamDestroy_v2": "p",
    "cuStreamSynchronize": "p",
    "cuStreamWaitEvent": "ppu",
    "cuStreamBeginCapture_v2": "pi",
    "cuStreamEndCapture": "pp",
    "cuEventCreate": "pu",
    "cuEventDestroy_v2": "p",
    "cuEventRecord": "pp",
    "cuEventSynchronize": "p",
    "cuModuleLoadDataEx": "ppupp",
    "cuModuleGetFunction": "pps",
    "cuLaunchKernel": "puuuuuuuppp",
    "cuGraphInstantiateWithFlags": "ppa",
    "cuGraphDestroy": "p",
    "cuGraphLaunch": "pp",
    "cuGraphExecDestroy": "p",
}


class Library(Protocol):
    """Anything that has the functions: the real library, or what stands in its place in a test."""

    def __getattr__(self, name: str) -> Any:
        """Return a function of the driver by its name; it returns an error code."""


class DriverError(Exception):
    """A function of the driver failed.

    Attributes
    ----------
    function : str
    code : int
    name : str
        Of the error, such as ``CUDA_ERROR_INVALID_VALUE``.
    """

    def __init__(self, function: str, code: int, name: str, text: str) -> None:
        super().__init__(f"{function} failed with {name} ({code}): {text}")
        self.function, self.code, self.name = function, code, name


class ForkedError(DeviceError):
    """The process was forked from one that had used the GPU.

    Parameters
    ----------
    opened : bool
        Whether a GPU was open there, or may have been.
    """

    def __init__(self, opened: bool = True) -> None:
        super().__init__(
            "this process was forked from one that had already used the GPU, here or in another "
            "library, and CUDA does not survive that; start processes with multiprocessing's "
            "'spawn' or 'forkserver', use the GPU for the first time after the fork, or compute on "
            "the device 'cpu'"
        )
        self.opened = opened


class Driver:
    """The driver, every call of it checked.

    Parameters
    ----------
    library : Library
    """

    def __init__(self, library: Library) -> None:
        self._library = library

    def __call__(self, function: str, *arguments: Any) -> None:
        """Call a function of `FUNCTIONS`.

        Raises
        ------
        DriverError
            It returned an error.
        """
        code = getattr(self._library, function)(*arguments)
        if code:
            raise DriverError(function, code, *self.described(code))

    def described(self, code: int) -> tuple[str, str]:
        """Return the name and the text of an error."""
        found = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = c_char_p()
            getattr(self._library, function)(code, byref(text))
            found.append((text.value or b"an unknown error").decode("ascii", "replace"))
        return found[0], found[1]

    def number(self, function: str, *arguments: Any) -> int:
        """Call a function that writes a number to its first argument, and return that."""
        found = c_int()
        self(function, byref(found), *arguments)
        return found.value

    def handle(self, function: str, *arguments: Any) -> c_void_p:
        """Call a function that writes a handle to its first argument, and return that."""
        found = c_void_p()
        self(function, byref(found), *arguments)
        return found


@contextmanager
def explained(device: str) -> Iterator[None]:
    """Raise `DeviceError` for what the driver reports inside the ``with`` block.

    Raises
    ------
    OutOfMemoryError
        There is not enough memory; everything else goes on.
    DeviceError
        Anything else; the text says what can be done.
    """
    try:
        yield
    except DriverError as error:
        if error.code == OUT_OF_MEMORY:
            raise _full(device, error.function) from error
        remedy = "run it again, and report it if it comes again"
        if error.code in LOST:
            remedy = "this process cannot use the GPU any more: start it again, and report it"
        if error.code == TAKEN:
            remedy = (
                "another process has the GPU for itself (its compute mode is exclusive): end that, "
                "or compute on another device"
            )
        raise DeviceError(f"{device}: {error}; {remedy}") from error


def _full(device: str, function: str) -> OutOfMemoryError:
    """Return the error for a function of the driver that finds no memory."""
    if function == "cuMemAllocHost_v2":
        return OutOfMemoryError(
            f"this computer has no memory left for copies to {device} and back, which cannot be "
            "swapped out; end what else uses its memory"
        )
    fewer = "give a smaller mini-batch or smaller images, or "
    if function == "cuDevicePrimaryCtxRetain":  # nothing of ours is there yet
        fewer = ""
    return OutOfMemoryError(f"{device} has not enough memory; {fewer}end what else uses the GPU")


def load() -> Library:
    """Return the driver's library, with the types of its functions.

    Raises
    ------
    DeviceError
        There is none, or it lacks a function.
    """
    name = NAMES.get(sys.platform)
    if name is None:
        raise DeviceError(
            f"NVIDIA has no driver of CUDA for {sys.platform}; compute on the device 'cpu'"
        )
    try:
        library = getattr(ctypes, "WinDLL" if sys.platform == "win32" else "CDLL")(name)
    except OSError:
        raise DeviceError(
            f"NVIDIA's driver is not there ({name} cannot be loaded); install the driver of the "
            "GPU, in a container start it with access to the GPU (docker run --gpus all), or "
            "compute on the device 'cpu'"
        ) from None
    for function, types in FUNCTIONS.items():
        try:
            found = getattr(library, function)
        except AttributeError:
            raise DeviceError(
                f"NVIDIA's driver is too old: it has no {function}; install one for CUDA 13 "
                "or later, or compute on the device 'cpu'"
            ) from None
        found.argtypes, found.restype = [_TYPES[one] for one in types], c_int
    return library


@dataclass
class Connection:
    """The driver, ready for calls.

    Attributes
    ----------
    driver : Driver
    devices : int
        How many there are.
    process : int
        Which initialised it: a process that is forked from that one cannot use it.
    opened : bool
        Whether kernels have been loaded on a device.
    """

    driver: Driver
    devices: int
    process: int = field(default_factory=os.getpid)
    opened: bool = False


def connected() -> Connection:
    """Initialise the driver, once a process.

    Raises
    ------
    ForkedError
        The process that this one was forked from has done so.
    DeviceError
        There is no driver or no device; the text says why.
    """
    found = connected_once()
    if found.process != os.getpid():
        raise ForkedError(found.opened)
    return found


@functools.cache
def connected_once() -> Connection:
    """Initialise the driver; as `connected`. Errors are not kept."""
    driver = Driver(load())
    try:
        driver("cuInit", 0)
        count = driver.number("cuDeviceGetCount")
    except DriverError as error:
        if error.code == NOT_INITIALISED:
            raise ForkedError() from error
        if error.code == SYSTEM_MISMATCH:
            raise DeviceError(
                f"NVIDIA's driver and its library do not belong together ({error.name}): the "
                "driver was updated; restart the computer, or compute on the device 'cpu'"
            ) from error
        if error.code != NO_DEVICE:
            raise DeviceError(
                f"NVIDIA's driver does not start: {error}; look whether nvidia-smi shows the GPU, "
                "or compute on the device 'cpu'"
            ) from error
        count = 0
    if count == 0:
        raise DeviceError(
            f"NVIDIA's driver finds no GPU{hidden()}; look whether nvidia-smi shows one, or "
            "compute on the device 'cpu'"
        )
    return Connection(driver, count)


def hidden() -> str:
    """Return the words that say which GPUs are visible, if not all are."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
