"""Where arrays of the reference are: in NumPy's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def empty(shape: Sequence[int], dtype: np.dtype | type = np.float32) -> Array:
    """Return memory for a result, not yet filled."""
    return np.empty(shape, dtype)


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
