"""Pooling. Channels come last, so a window is walked tap by tap and every tap is a vector over the channels.

Each line of the result is one task. A window is first cut to the part that lies inside the picture; padding is never
read, so it cannot win a maximum and adds nothing to a sum.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .. import shapes
from ..shapes import Pair, pair
from .kernel import kernel
from .launch import launch
from .memory import Array, flat, result

# --- kernels ----------------------------------------------------------------------------------------------------------


@kernel()
def _max_line(x, out, task, size, stride, padding):
    """One line of the result: the larger of what is there and what the tap says, where not-a-number wins for good."""
    _, h, w, channels = x.shape
    n, line = divmod(task, out.shape[1])
    top = line * stride[0] - padding[0]
    for column in range(out.shape[2]):
        left = column * stride[1] - padding[1]
        best = out[n, line, column]
        best[:] = -np.inf
        for y in range(max(top, 0), min(top + size[0], h)):
            for z in range(max(left, 0), min(left + size[1], w)):
                tap = x[n, y, z]
                for c in range(channels):
                    if tap[c] > best[c] or tap[c] != tap[c]:
                        best[c] = tap[c]


@kernel(parallel=True)
def _max_pool2d(x, out, size, stride, padding):
    """Every line of every picture."""
    for task in prange(out.shape[0] * out.shape[1]):
        _max_line(x, out, np.int64(task), size, stride, padding)


@kernel()
def _avg_line(x, out, task, size, stride, padding, include_pad):
    """One line of the result: the sum over the window, divided by the places that count."""
    _, h, w, channels = x.shape
    n, line = divmod(task, out.shape[1])
    top = line * stride[0] - padding[0]
    p_h, p_w = (padding[0], padding[1]) if include_pad else (0, 0)
    for column in range(out.shape[2]):
        left = column * stride[1] - padding[1]
        high = min(top + size[0], h + p_h) - max(top, -p_h)
        wide = min(left + size[1], w + p_w) - max(left, -p_w)
        total = out[n, line, column]
        total[:] = 0
        for y in range(max(top, 0), min(top + size[0], h)):
            for z in range(max(left, 0), min(left + size[1], w)):
                tap = x[n, y, z]
                for c in range(channels):
                    total[c] += tap[c]
        for c in range(channels):
            total[c] /= np.float32(high * wide)


@kernel(parallel=True)
def _avg_pool2d(x, out, size, stride, padding, include_pad):
    """Every line of every picture."""
    for task in prange(out.shape[0] * out.shape[1]):
        _avg_line(x, out, np.int64(task), size, stride, padding, include_pad)


@kernel()
def _mean(x, out):
    """The mean of each channel of one picture ``[positions, c]``: positions in order, channels side by side."""
    out[:] = 0
    for position in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[c] += x[position, c]
    for c in range(x.shape[1]):
        out[c] /= np.float32(x.shape[0])


@kernel(parallel=True)
def _mean_pool(x, out):
    """Every picture."""
    for n in prange(x.shape[0]):
        _mean(x[n], out[n])


# --- public ops -------------------------------------------------------------------------------------------------------


def max_pool2d(
    x: Array, *, size: Pair, stride: Pair, padding: Pair = 0, ceil_mode: bool = False, out: Array | None = None
) -> Array:
    """Line by line of the result, vectors over the channels."""
    shape = shapes.max_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out)
    y, source = result("max_pool2d", shape, out), flat("max_pool2d", "x", x).reshape(x.shape)
    launch(_max_pool2d, source, y, pair("size", size, 1), pair("stride", stride, 1), pair("padding", padding, 0))
    return y


def avg_pool2d(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """Line by line of the result, vectors over the channels."""
    shape = shapes.avg_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad, out=out
    )
    y, source = result("avg_pool2d", shape, out), flat("avg_pool2d", "x", x).reshape(x.shape)
    corner = pair("size", size, 1), pair("stride", stride, 1), pair("padding", padding, 0)
    launch(_avg_pool2d, source, y, *corner, bool(count_include_pad))
    return y


def mean_pool(x: Array, *, out: Array | None = None) -> Array:
    """One pass over each picture."""
    n, c = shapes.mean_pool(x, out=out)
    y = result("mean_pool", (n, c), out)
    launch(_mean_pool, flat("mean_pool", "x", x).reshape(n, x.shape[1] * x.shape[2], c), y)
    return y
