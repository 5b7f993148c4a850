"""Pooling. Channels come last, so a window is walked tap by tap and every tap is a vector over the channels.

Each line of the result is one task; of the global mean, some channels of one picture. A window is
first cut to the part that lies inside the picture; padding is never read, so it cannot win a
maximum and adds nothing to a sum.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import shapes
from ..shapes import Pair, pair
from .runtime.crew import Step, Work, compiled, take
from .runtime.memory import Array, flat, result

CHANNELS = 256  # of a task of the global mean

# --- kernels --------------------------------------------------------------------------------------


def _max_lines(x, weight, bias, residual, out, g, counters):
    """A thread's share: the larger of what is there and what the tap says, where not-a-number wins for good."""
    channels, task = g.c_out, take(counters, 0)
    while task < g.tasks:
        n, line = divmod(task, g.h_out)
        top = line * g.s_h - g.p_h
        for column in range(g.w_out):
            left = column * g.s_w - g.p_w
            at = (task * g.w_out + column) * channels
            best = out[
                at : at + channels
            ]  # slices, since indices into them cannot be negative: so loops become vectors
            best[:] = -np.inf
            for y in range(max(top, 0), min(top + g.k_h, g.h)):
                for z in range(max(left, 0), min(left + g.k_w, g.w)):
                    source = ((n * g.h + y) * g.w + z) * channels
                    tap = x[source : source + channels]
                    for c in range(channels):
                        best[c] = tap[c] if tap[c] > best[c] or tap[c] != tap[c] else best[c]
        task = take(counters, 0)
    take(counters, 1)


def _avg_lines(x, weight, bias, residual, out, g, counters):
    """A thread's share: the sum over the window, divided by the places that count; ``parts`` is 1 if padding does."""
    channels, task = g.c_out, take(counters, 0)
    p_h, p_w = g.p_h * g.parts, g.p_w * g.parts
    while task < g.tasks:
        n, line = divmod(task, g.h_out)
        top = line * g.s_h - g.p_h
        for column in range(g.w_out):
            left = column * g.s_w - g.p_w
            high = min(top + g.k_h, g.h + p_h) - max(top, -p_h)
            wide = min(left + g.k_w, g.w + p_w) - max(left, -p_w)
            at = (task * g.w_out + column) * channels
            total = out[at : at + channels]
            total[:] = 0
            for y in range(max(top, 0), min(top + g.k_h, g.h)):
                for z in range(max(left, 0), min(left + g.k_w, g.w)):
                    source = ((n * g.h + y) * g.w + z) * channels
                    tap = x[source : source + channels]
                    for c in range(channels):
                        total[c] += tap[c]
            for c in range(channels):
                total[c] /= np.float32(high * wide)
        task = take(counters, 0)
    take(counters, 1)


def _means(x, weight, bias, residual, out, g, counters):
    """A thread's share: ``size`` channels of one picture, position after position; ``parts`` of them are a picture."""
    task = take(counters, 0)
    while task < g.tasks:
        n, part = divmod(task, g.parts)
        first = part * g.size
        at, count = n * g.c_out + first, min(g.size, g.c_out - first)
        total = out[at : at + count]
        total[:] = 0
        for position in range(n * g.h * g.w, (n + 1) * g.h * g.w):
            source = position * g.c_out + first
            values = x[source : source + count]
            for c in range(count):
                total[c] += values[c]
        for c in range(count):
            total[c] /= np.float32(g.h * g.w)
        task = take(counters, 0)
    take(counters, 1)


@functools.cache
def _kernel(function: Any) -> Any:
    """Compiled when it is first needed."""
    return compiled(function)


# --- public ops -----------------------------------------------------------------------------------


def max_pool2d(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """Line by line of the result, vectors over the channels."""
    shape = shapes.max_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    y = result("max_pool2d", shape, out)
    bind_max_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=y)()
    return y


def bind_max_pool2d(
    x: Array, *, size: Pair, stride: Pair, padding: Pair = 0, ceil_mode: bool = False, out: Array
) -> Step:
    """All of a call that can be done beforehand."""
    shape = shapes.max_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    return _windows("max_pool2d", _max_lines, x, shape, (size, stride, padding), 0, out)


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
    how = {
        "size": size,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
    }
    y = result("avg_pool2d", shapes.avg_pool2d(x, **how, out=out), out)
    bind_avg_pool2d(x, **how, out=y)()
    return y


def bind_avg_pool2d(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Array,
) -> Step:
    """All of a call that can be done beforehand."""
    how = {
        "size": size,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
    }
    shape = shapes.avg_pool2d(x, **how, out=out)
    return _windows(
        "avg_pool2d",
        _avg_lines,
        x,
        shape,
        (size, stride, padding),
        int(bool(count_include_pad)),
        out,
    )


def mean_pool(x: Array, *, out: Array | None = None) -> Array:
    """One pass over each picture."""
    y = result("mean_pool", shapes.mean_pool(x, out=out), out)
    bind_mean_pool(x, out=y)()
    return y


def bind_mean_pool(x: Array, *, out: Array) -> Step:
    """All of a call that can be done beforehand."""
    n, c = shapes.mean_pool(x, out=out)
    source, target = flat("mean_pool", "x", x), result("mean_pool", (n, c), out).reshape(-1)
    parts = -(-c // CHANNELS)
    g = Work.of(x.shape, (n, 1, 1, c))._replace(size=CHANNELS, parts=parts, tasks=n * parts)
    return Step(_kernel(_means), source, source, source, source, target, g)


def _windows(
    op: str,
    kernel: Any,
    x: Array,
    shape: shapes.Shape,
    how: tuple[Pair, Pair, Pair],
    parts: int,
    out: Array,
) -> Step:
    """A step of `_max_lines` or `_avg_lines`."""
    source, target = flat(op, "x", x), result(op, shape, out).reshape(-1)
    (k_h, k_w), (s_h, s_w) = pair("size", how[0], 1), pair("stride", how[1], 1)
    p_h, p_w = pair("padding", how[2], 0)
    g = Work.of(x.shape, shape)._replace(k_h=k_h, k_w=k_w, s_h=s_h, s_w=s_w, p_h=p_h, p_w=p_w)
    g = g._replace(parts=parts, tasks=shape[0] * shape[1])
    return Step(_kernel(kernel), source, source, source, source, target, g)
