"""Where arrays of the reference are: in NumPy's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import OutOfMemoryError

Array = np.ndarray


def empty(shape: Sequence[int], dtype: np.dtype | type = np.float32) -> Array:
    """Return memory for a result, not yet filled.

    Raises
    ------
    OutOfMemoryError
        The computer has not as much.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError, OverflowError) as error:  # the others if no computer has it
        if min(map(int, shape), default=0) < 0:
            raise
        size = math.prod(map(int, shape)) * np.dtype(dtype).itemsize
        raise OutOfMemoryError(
            f"an array of {size / 2**20:,.0f} MiB does not fit in this computer's memory; give "
            "fewer images at once (a smaller --batch), or smaller ones",
            size,
        ) from error


def upload(array: Any, out: Array | None = None) -> Array:
    """Return the array itself, since NumPy's memory is the device, or ``out`` with its values."""
    if out is None:
        return np.asarray(array)
    np.copyto(out, array, casting="same_kind")
    return out


def download(array: Array) -> Array:
    """Return the array itself."""
    return np.asarray(array)


def view(array: Array, shape: Sequence[int], start: int = 0) -> Array:
    """Return a slice of the flat array, reshaped."""
    return array[start : start + math.prod(shape)].reshape(shape)


def pack(weight: Array, groups: int) -> Array:
    """Return the weight itself: this backend reads the checkpoint's own layout."""
    return weight
