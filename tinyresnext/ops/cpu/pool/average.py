"""The pooling that takes the mean of each window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ... import shapes
from ...checks import Pair
from ..runtime.crew import Chain, Step
from ..runtime.memory import Array, empty_like, flat, result
from ..runtime.simd import aligned, stored, value
from ..runtime.tasks import finished, in_tasks, next_task
from .window import Window, begun, ended, room_for, window

# --- kernels --------------------------------------------------------------------------------------


@in_tasks(Window)
def _avg_lines(x, out, g, counters):
    """Compute lines of the result: the sum of a window over the number of places that count."""
    channels, task, total = g.c, next_task(counters), aligned(g.c)
    p_h, p_w = g.p_h * g.count_pad, g.p_w * g.count_pad
    while task < g.tasks:
        n, line = divmod(task, g.h_out)
        top = line * g.s_h - g.p_h
        for column in range(g.w_out):
            left = column * g.s_w - g.p_w
            high = min(top + g.k_h, g.h + p_h) - max(top, -p_h)
            wide = min(left + g.k_w, g.w + p_w) - max(left, -p_w)
            at = (task * g.w_out + column) * channels
            mean = out[at : at + channels]
            total[:] = 0
            for y in range(max(top, 0), min(top + g.k_h, g.h)):
                for z in range(max(left, 0), min(left + g.k_w, g.w)):
                    source = ((n * g.h + y) * g.w + z) * channels
                    tap = x[source : source + channels]
                    for c in range(channels):
                        total[c] += value(tap[c])
            for c in range(channels):
                mean[c] = stored(total[c] / np.float32(high * wide), out)
        task = next_task(counters)
    finished(counters)


@in_tasks(Window)
def _avg_gradient(dy, out, g, counters):
    """Add an equal share of each window's gradient to all of its places; a task is a sample."""
    task, room = next_task(counters), room_for(out, g)
    while task < g.tasks:
        sums = begun(out, room, task, g)
        for line in range(g.h_out):
            for column in range(g.w_out):
                top, left = line * g.s_h - g.p_h, column * g.s_w - g.p_w
                bottom, right = min(top + g.k_h, g.h), min(left + g.k_w, g.w)
                if g.count_pad:
                    places = (min(top + g.k_h, g.h + g.p_h) - top) * (
                        min(left + g.k_w, g.w + g.p_w) - left
                    )
                else:
                    places = (bottom - max(top, 0)) * (right - max(left, 0))
                source = ((task * g.h_out + line) * g.w_out + column) * g.c
                for y in range(max(top, 0), bottom):
                    for z in range(max(left, 0), right):
                        at = (y * g.w + z) * g.c
                        place = sums[at : at + g.c]
                        for c in range(g.c):
                            place[c] += value(dy[source + c]) / np.float32(places)
        ended(sums, out, task, g)
        task = next_task(counters)
    finished(counters)


# --- public op ------------------------------------------------------------------------------------


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
    """Compute the mean of each window, line by line of the result, in vectors of channels.

    Arguments and result are those of `tinyresnext.ops.shapes.avg_pool2d`.
    """
    shape = shapes.avg_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    y = result("avg_pool2d", shape, out)
    bind_avg_pool2d(
        x,
        size=size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        out=y,
    )()
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
    """Prepare a step."""
    shape = shapes.avg_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    tasks = shape[0] * shape[1]
    g = window(x.shape, shape, size, stride, padding, tasks, count_pad=bool(count_include_pad))
    target = result("avg_pool2d", shape, out, halves=True).reshape(-1)
    return Step(_avg_lines, g, x=flat("avg_pool2d", "x", x, out), out=target)


def avg_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Array | None, ...]:
    """Share each window's gradient among its places."""
    out = empty_like(x)
    bind_avg_pool2d_backward(
        dy,
        y,
        x,
        size=size,
        stride=stride,
        padding=padding,
        count_include_pad=count_include_pad,
        out=out,
        more=(False,),
    )()
    return out


def bind_avg_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a step."""
    if out[0] is None:
        return Chain([])
    count_pad, tasks = bool(count_include_pad), x.shape[0]
    g = window(x.shape, y.shape, size, stride, padding, tasks, count_pad=count_pad, add=more[0])
    return Step(_avg_gradient, g, dy=flat("avg_pool2d", "dy", dy, dy), out=out[0].reshape(-1))
