"""The definition of what is computed with integers of 8 bits.

Sums of products are computed in float64, which has every integer up to 2^53: they are exact. All
that comes after them is float32, one operation after the other, as `shapes.integer` says it.
"""

from __future__ import annotations

import numpy as np

from .. import shapes
from ..checks import Pair
from ..shapes.integer import inverse_of
from .conv import _split
from .windows import place, windows_of

Array = np.ndarray


def quantise(x: Array, *, scale: float, signed: bool = False, out: Array | None = None) -> Array:
    """Multiply, keep within the range, and round to the nearest even.

    Arguments and result are those of `tinyresnext.ops.shapes.quantise`.
    """
    shapes.quantise(x, scale=scale, signed=signed, out=out)
    low, high = (-127, 127) if signed else (0, 255)
    with np.errstate(over="ignore"):  # what is too large becomes the end of the range
        y = np.rint(np.clip(x * inverse_of(scale), np.float32(low), np.float32(high)))
    return place(y.astype(np.int8 if signed else np.uint8), out)


def dequantise(x: Array, *, scale: float, out: Array | None = None) -> Array:
    """Multiply by the scale; see `tinyresnext.ops.shapes.dequantise`."""
    shapes.dequantise(x, scale=scale, out=out)
    return place(x.astype(np.float32) * np.float32(scale), out)


def pack_int8(weight: Array, groups: int) -> Array:
    """Return the weight itself: the reference reads it as it is."""
    return weight


def conv2d_int8(
    x: Array,
    weight: Array,
    factor: Array,
    bias: Array,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Array | None = None,
    residual_scale: float = 1.0,
    relu: bool = False,
    scale: float | None = None,
    out: Array | None = None,
) -> Array:
    """Multiply matrices of integers, and then compute what comes after the sums in float32.

    Arguments and result are those of `tinyresnext.ops.shapes.conv2d_int8`.
    """
    shape = shapes.conv2d_int8(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups, residual=residual,
        out=out,
    )  # fmt: skip
    windows = windows_of(x.astype(np.float64), shape, weight.shape[2:], stride, padding)
    columns, filters = _split(windows, weight.astype(np.float64), groups)
    sums = (columns @ filters.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(shape)
    with np.errstate(over="ignore"):
        y = sums.astype(np.float32) * factor + bias
        if residual is not None:
            y = y + residual.astype(np.float32) * np.float32(residual_scale)
    if relu:
        y = np.maximum(y, np.float32(0))
    return place(y, out) if scale is None else quantise(y, scale=scale, signed=not relu, out=out)
