"""Where arrays are on this backend, and what its kernels require of them: float32, C-contiguous.

Most take arrays of bfloat16, too, which NumPy holds as uint16 (`HALF`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...bfloat16 import rounded, widened
from ...reference import memory

Array = np.ndarray
ALIGNMENT = 64
# How memory holds bfloat16 (`runtime.simd.bfloat16`), and two of them that are multiplied together.
HALF, WORD = np.dtype(np.uint16), np.dtype(np.uint32)


def empty(shape: Sequence[int], dtype: np.dtype | type = np.float32) -> Array:
    """Return memory for a result, not yet filled.

    Parameters
    ----------
    shape : sequence of int
    dtype : NumPy type

    Raises
    ------
    OutOfMemoryError
        The computer has not as much.
    """
    size = math.prod(map(int, shape)) * np.dtype(dtype).itemsize
    raw = memory.empty((size + ALIGNMENT,), np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def upload(array: Any, out: Array | None = None) -> Array:
    """Return the array as the kernels take it: float32, C-contiguous and aligned.

    An array that is so already is returned itself, any other is copied.

    Parameters
    ----------
    array : any shape
    out : like array, optional
        Memory that the values are copied to.
    """
    if out is not None:
        np.copyto(out, array, casting="same_kind")
        return out
    array = np.asarray(array, np.float32)
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = empty(array.shape)
    copy[...] = array
    return copy


def download(array: Array) -> Array:
    """Return the array itself: NumPy's memory is this backend's device."""
    return array


def view(array: Array, shape: Sequence[int], start: int = 0) -> Array:
    """Return a slice of the flat array, reshaped."""
    return array[start : start + math.prod(shape)].reshape(shape)


def flat(op: str, name: str, array: Array, like: Array | None = None) -> Array:
    """Return a one-dimensional view of an input, or a copy where it is read-only or misaligned.

    For Numba such an array has another type, and compiling the kernel again would take seconds. A
    copy takes milliseconds. The array must be bfloat16 if ``like`` is given and is so; where
    ``like`` is the array itself, it may be either.

    Raises
    ------
    TypeError, ValueError
        The array is not C-contiguous float32; the message says how to make it so.
    """
    _check(op, name, array, halves=getattr(like, "dtype", None) == HALF)
    if not (array.flags.writeable and array.flags.aligned):
        array = array.copy()
    return np.asarray(array).reshape(-1)


def changed(op: str, name: str, array: Array) -> Array:
    """Return a one-dimensional view of an array that is changed in place.

    Raises
    ------
    TypeError, ValueError
        The array is not C-contiguous float32 that can be written to.
    """
    _check(op, name, array)
    _check_own(op, name, array)
    return np.asarray(array).reshape(-1)


def result(op: str, shape: Sequence[int], out: Array | None, halves: bool = False) -> Array:
    """Return the caller's ``out``, or new memory where there is none.

    With ``halves``, it may be bfloat16.

    Raises
    ------
    TypeError, ValueError
        ``out`` is not C-contiguous float32 that can be written to.
    """
    if out is None:
        return empty(shape)
    _check(op, "out", out, halves=halves and getattr(out, "dtype", None) == HALF)
    _check_own(op, "out", out)
    return out


def gradient_room(x: Array, place: Array | None) -> Array:
    """Return flat memory for a gradient like ``x``: its place where that may be overwritten."""
    return empty((x.size,)) if place is None else place.reshape(-1)


def empty_like(*arrays: Array | None) -> tuple[Array | None, ...]:
    """Return memory of the shape of each array, for its gradient; None for None."""
    return tuple(None if array is None else empty(array.shape) for array in arrays)


def accumulate(place: Array | None, gradient: Array, more: bool) -> None:
    """Copy a gradient to its place, or with ``more`` add it to what is there; None is no place.

    Either may be bfloat16; a sum is rounded once.
    """
    if place is None:
        return
    wide, found = (widened(a) if a.dtype == HALF else a for a in (place, gradient))
    total = wide + found if more else found
    np.copyto(place, rounded(total) if place.dtype == HALF else total, casting="same_kind")


def _check(op: str, name: str, array: Array, halves: bool = False) -> None:
    """Raise an error for an array that the kernels would read wrongly."""
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{op}: {name} is a {type(array).__name__}, expected a NumPy array of float32; "
            f"use upload({name})"
        )
    if halves and array.dtype != HALF:
        raise TypeError(f"{op}: {name} is {array.dtype}, expected bfloat16 (as uint16), as out is")
    if not halves and array.dtype != np.float32:
        raise TypeError(
            f"{op}: {name} is {array.dtype}, expected float32; "
            f"use upload({name}) or {name}.astype('float32')"
        )
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{op}: {name} has strides {array.strides} for shape {array.shape}, "
            "expected a C-contiguous array; "
            f"use upload({name}) or numpy.ascontiguousarray({name})"
        )


def _check_own(op: str, name: str, array: Array) -> None:
    """Raise an error for an array that cannot be written to as the kernels do."""
    if not (array.flags.writeable and array.flags.aligned):
        raise ValueError(
            f"{op}: {name} is read-only or misaligned, expected memory of its own; "
            "make it with empty(shape)"
        )
