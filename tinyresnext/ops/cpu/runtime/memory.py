"""Where arrays live on this backend, and the one thing its kernels ask of them: float32, C-contiguous."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray
ALIGNMENT = 64


def empty(shape: Sequence[int], dtype: np.dtype | type = np.float32) -> Array:
    """Memory for a result, not yet filled.

    Parameters
    ----------
    shape : sequence of int
    dtype : NumPy type
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def upload(array: Any, out: Array | None = None) -> Array:
    """Return the array as the kernels take it: itself when it is float32, C-contiguous and aligned, else a converted copy.

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


def flat(op: str, name: str, array: Array) -> Array:
    """A one-dimensional view of an input, or an error that says how to make the array right.

    To Numba a read-only or misaligned array is another type, so another compilation of the kernel:
    seconds. A copy takes milliseconds.
    """
    _check(op, name, array)
    if not (array.flags.writeable and array.flags.aligned):
        array = array.copy()
    return np.asarray(array).reshape(-1)


def result(op: str, shape: Sequence[int], out: Array | None) -> Array:
    """The caller's ``out`` when it can be written to, or new memory."""
    if out is None:
        return empty(shape)
    _check(op, "out", out)
    if not (out.flags.writeable and out.flags.aligned):
        raise ValueError(
            f"{op}: out is read-only or misaligned, expected memory of its own; make it with empty(shape)"
        )
    return out


def _check(op: str, name: str, array: Array) -> None:
    """Refuse what the kernels would read wrongly."""
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{op}: {name} is a {type(array).__name__}, expected a NumPy array of float32; use upload({name})"
        )
    if array.dtype != np.float32:
        raise TypeError(
            f"{op}: {name} is {array.dtype}, expected float32; use upload({name}) or {name}.astype('float32')"
        )
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{op}: {name} has strides {array.strides} for shape {array.shape}, expected a C-contiguous array; "
            f"use upload({name}) or numpy.ascontiguousarray({name})"
        )
