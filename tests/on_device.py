"""A backend whose arrays are on a device, as one whose arrays are NumPy's: for the lists of cases.

Every call uploads its arrays and downloads its results, and those arrays that the call writes. So
the tests of ops, which compare NumPy arrays, run on a GPU and on emulators of one. Memory that a
result goes to holds what is not a number before, also where the test gave it: what a kernel leaves
out shows.
"""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinyresnext.ops.cuda import CudaBackend
from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.shapes import OPS

COMPUTING = {*OPS, *(f"{op}_backward" for op in OPS)}
# Switching from one fiber to another is machine code, which is written for this system only.
by_fibers = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the fibers of the emulator are written for Linux on x86-64",
)
ADAPTIVE = {"adamw_step", "lamb_step", "rmsprop_step"}
CLIPS = {"clip_norm_step", "clip_units_step", "clip_value_step"}
UPDATES = {"sgd_step", "muon_step", "average_step", "statistics_step", *ADAPTIVE, *CLIPS}


class OnDevice:
    """The same words, for NumPy arrays.

    Parameters
    ----------
    backend : CudaBackend
    """

    def __init__(self, backend: CudaBackend) -> None:
        self.backend, self.__name__ = backend, backend.__name__

    def __getattr__(self, name: str) -> Any:
        word = getattr(self.backend, name)
        if name in COMPUTING | UPDATES:
            call = self._bound(name, word)
            call.__signature__ = inspect.signature(word)
            return call
        return word

    def _bound(self, name: str, word: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **attrs: Any) -> Any:
            there = There(self.backend)
            if "out" in attrs and isinstance(attrs["out"], np.ndarray):
                there.poisoned(attrs["out"], args, attrs)
            found = word(*map(there.up, args), **{key: there.up(a) for key, a in attrs.items()})
            if name in UPDATES or attrs.get("statistics") is not None:
                there.back()
            return there.down(found, attrs.get("out"))

        return call

    def empty(self, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        """Return memory that holds what is not a number."""
        values = np.empty(shape, dtype)
        values.fill(np.nan if values.dtype.kind == "f" else 0)
        return values

    def upload(self, array: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Return a copy."""
        if out is None:
            return np.array(array)
        np.copyto(out, array)
        return out

    def download(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def view(self, array: np.ndarray, shape: Any, start: int = 0) -> np.ndarray:
        """Return a part of a flat array."""
        return array[start : start + int(np.prod(shape))].reshape(shape)

    def pack(self, weight: np.ndarray, groups: int) -> Any:
        """Return the weight as the device packs it; it stays there."""
        return self.backend.pack(self.backend.upload(weight), groups)

    def bind(self, op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
        """Bind a call that uploads what the arrays then hold, and downloads what it writes."""

        def call() -> Any:
            there = There(self.backend)
            found = self.backend.bind(
                op, *map(there.up, args), **{key: there.up(a) for key, a in attrs.items()}
            )()
            there.back()
            return there.down(found, attrs.get("out"))

        return call

    def chain(self, calls: Any) -> Callable[[], None]:
        """Return one call that makes all of these."""

        def run() -> None:
            for call in calls:
                call()

        return run

    def repeated(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
        """Return the call itself."""
        return call, 1


class There:
    """The arrays of one call, on the device. An array that is given twice is there once."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend, self._known = backend, dict[int, tuple[np.ndarray, DeviceArray]]()

    def up(self, value: Any) -> Any:
        """Return an argument with its arrays on the device."""
        if isinstance(value, (tuple, list)):
            return type(value)(map(self.up, value))
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            return value
        if id(value) not in self._known:
            self._known[id(value)] = value, self._backend.upload(value)
        return self._known[id(value)][1]

    def poisoned(self, out: np.ndarray, args: tuple[Any, ...], attrs: dict[str, Any]) -> None:
        """Place memory of a result that is not an input too."""
        inputs = (*args, *(a for key, a in attrs.items() if key != "out"))
        if not any(a is out for a in inputs):
            nothing = np.full(out.shape, np.nan, np.float32)
            self._known[id(out)] = out, self._backend.upload(nothing)

    def back(self) -> None:
        """Copy what the arrays hold on the device to NumPy's memory."""
        for values, array in self._known.values():
            if values.flags.writeable and values.shape == array.shape:
                np.copyto(values, self._backend.download(array), casting="same_kind")

    def down(self, found: Any, out: Any) -> Any:
        """Return a result in NumPy's memory: in ``out`` where the test gave that."""
        if isinstance(found, tuple):
            return tuple(self.down(one, None) for one in found)
        if not isinstance(found, DeviceArray):
            return found
        for values, array in self._known.values():
            if array is found and values is out:
                np.copyto(values, self._backend.download(found))
                return values
        return self._backend.download(found)


def poison(machine: Any, most: int = 1 << 28) -> None:
    """Fill new memory of a GPU with what is not a number, as the emulators do; not what is huge."""
    allocate = machine.allocate

    def poisoned(size: int) -> Any:
        memory = allocate(size)
        if size <= most:
            machine.write(memory.address, np.full(size, 0xFF, np.uint8))
        return memory

    machine.allocate = machine.room = poisoned  # no call finds what one before it has left
