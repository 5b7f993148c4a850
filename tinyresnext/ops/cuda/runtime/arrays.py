"""Arrays on a machine. Nothing but the functions of the backend reaches their values."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ....errors import DeviceError
from ...bfloat16 import HALF, rounded, widened
from .machine import Machine, Memory


class DeviceArray:
    """A contiguous array on a machine.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
        uint16 for bfloat16, which NumPy does not have.
    machine : Machine
    memory : Memory
        Which it is a part of.
    """

    __slots__ = ("_place", "dtype", "machine", "memory", "shape")

    def __init__(
        self, machine: Machine, memory: Memory, address: int, shape: Sequence[int], dtype: Any
    ) -> None:
        self.machine, self.memory, self._place = machine, memory, address
        self.shape, self.dtype = tuple(map(int, shape)), np.dtype(dtype)

    @property
    def address(self) -> int:
        """The place of the first value; that of `scratch` is known once a call is made."""
        within = self.memory.address if isinstance(self.memory, Scratch) else 0
        return within + self._place

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        return (
            f"<{called(self.dtype)} array [{shape}] on {self.machine.name}: download it to see it>"
        )

    # NumPy would take the array for one object and compute nonsense with it.
    __array_ufunc__ = None

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"an array on {self.machine.name} is no NumPy array; download it")


def empty(machine: Machine, shape: Sequence[int], dtype: Any = np.float32) -> DeviceArray:
    """Return new memory on a machine, not filled."""
    kind = HALF if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype)
    memory = machine.allocate(max(1, prod(shape)) * kind.itemsize)
    return DeviceArray(machine, memory, memory.address, shape, kind)


class Scratch:
    """Memory that only one call uses, and only while it runs.

    It has a place when `call.chain` gives it one, for ever, or `call.Call`, while it runs: all
    calls of a plan share the room for theirs, and so do single calls of a thread.

    Attributes
    ----------
    address : int
        A multiple of 256, also before there is a place.
    size : int
        In bytes.
    within : Memory or None
        What it was placed in.
    """

    __slots__ = ("address", "size", "within")

    def __init__(self, size: int) -> None:
        self.address, self.size = 0, size
        self.within: Memory | None = None

    def place(self, within: Memory, start: int) -> None:
        """Lie from byte ``start`` on in an allocation, and keep that alive."""
        self.address, self.within = within.address + start, within


def scratch(machine: Machine, shape: Sequence[int], dtype: Any = np.float32) -> DeviceArray:
    """Return memory for what the launches of one call leave for those that follow them."""
    kind = np.dtype(dtype)
    return DeviceArray(machine, Scratch(max(1, prod(shape)) * kind.itemsize), 0, shape, kind)


def upload(machine: Machine, array: Any, out: DeviceArray | None = None) -> DeviceArray:
    """Copy a NumPy array to a machine, into ``out`` of the same shape if that is given.

    Into ``out`` of bfloat16, all but its own bits (uint16) is rounded here, on the processor.
    """
    values = np.asarray(array)
    if out is None:
        kind = np.float32 if values.dtype.kind == "f" else values.dtype
        out = empty(machine, values.shape, kind)
    if values.shape != out.shape:
        raise ValueError(f"out is {list(out.shape)}, expected {list(values.shape)}")
    if out.dtype == HALF and values.dtype != HALF:
        values = rounded(values)
    if not np.can_cast(values.dtype, out.dtype, "same_kind"):
        raise TypeError(f"out is {out.dtype}, and values of {values.dtype} do not become that")
    if values.size:
        with np.errstate(over="ignore"):  # what is too large for float16 is found in the logits
            out.machine.write(out.address, np.ascontiguousarray(values, out.dtype))
    return out


def download(array: DeviceArray) -> np.ndarray:
    """Return a copy of the values; those of bfloat16 are float32 then."""
    values = np.empty(array.shape, array.dtype)
    if values.size:
        array.machine.read(array.address, values)
    return widened(values) if array.dtype == HALF else values


def view(array: DeviceArray, shape: Sequence[int], start: int = 0) -> DeviceArray:
    """Return the part of a flat array that begins at ``start``, in another shape."""
    if start < 0 or start + prod(shape) > array.size:
        raise ValueError(f"{list(shape)} from {start} on is not inside {array.size} values")
    place = array._place + start * array.dtype.itemsize
    return DeviceArray(array.machine, array.memory, place, shape, array.dtype)


# --- what the words require of arrays -------------------------------------------------------------

STORED = (np.float32, np.float16, HALF)  # what activations are stored in


def check(op: str, types: tuple[Any, ...] = (np.float32,), **given: Any) -> Machine:
    """Return the machine that all given arrays are on; None is no array.

    Parameters
    ----------
    op : str
    types : tuple of NumPy types
        That the arrays may have; `STORED` where activations of 16 bits are taken too.
    given : array or None
        By the name of the argument.

    Raises
    ------
    DeviceError
        One is float16 or bfloat16, and this op takes float32 only.
    TypeError, ValueError
        One is something else, or they are on several machines; the message says what to do.
    """
    machine: Machine | None = None
    for name, array in given.items():
        if array is None:
            continue
        if not isinstance(array, DeviceArray):
            raise TypeError(
                f"{op}: {name} is a {type(array).__name__}, expected an array on the device; "
                f"use upload({name})"
            )
        if array.dtype in STORED[1:] and array.dtype not in types:
            raise not_narrow(op, array.dtype)
        if array.dtype not in types:
            if np.float32 not in types:
                found = f"{op}: {name} is {called(array.dtype)}"
                raise TypeError(f"{found}, expected {' or '.join(str(np.dtype(t)) for t in types)}")
            raise TypeError(
                f"{op}: {name} is {array.dtype}, expected float32; "
                f"use upload({name}.astype('float32'))"
            )
        if machine is not None and array.machine is not machine:
            raise ValueError(
                f"{op}: {name} is on {array.machine.name} and the others on {machine.name}; "
                "download it and upload it there"
            )
        machine = array.machine
    if machine is None:
        raise TypeError(f"{op}: no array was given")
    return machine


def called(dtype: np.dtype) -> str:
    """Return what a type is called; NumPy has bfloat16 as uint16."""
    return "bfloat16" if dtype == HALF else str(dtype)


def not_narrow(what: str, dtype: np.dtype) -> DeviceError:
    """Return the error for what is computed in float32 only."""
    return DeviceError(
        f"{what} is computed in float32 only, and {called(dtype)} is asked for; compute in float32 "
        "(precision='float32', --precision float32)"
    )


def same_type(op: str, **given: DeviceArray | None) -> None:
    """Raise `TypeError` if arrays have several types; None is no array."""
    there = {name: called(array.dtype) for name, array in given.items() if array is not None}
    if len(set(there.values())) > 1:
        said = ", ".join(f"{name} is {dtype}" for name, dtype in there.items())
        raise TypeError(f"{op}: {said}; expected one type")


def empty_like(*arrays: DeviceArray | None) -> tuple[DeviceArray | None, ...]:
    """Return memory of the shape of each array, for its gradient; None for None."""
    return tuple(None if a is None else empty(a.machine, a.shape) for a in arrays)
