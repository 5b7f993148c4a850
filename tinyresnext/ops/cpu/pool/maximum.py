"""The pooling that takes the largest value of each window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ... import shapes
from ...checks import Pair
from ..runtime.crew import Chain, Step
from ..runtime.kernel import part
from ..runtime.memory import Array, empty_like, flat, result
from ..runtime.simd import aligned, stored, value, working
from ..runtime.tasks import finished, in_tasks, next_task
from .window import Window, begun, ended, room_for, window

# --- kernels --------------------------------------------------------------------------------------


@part(inline=True)
def _larger(item, best):
    """Return the larger of two values of an array; not-a-number is the larger one."""
    v = value(item)
    return item if v > value(best) or v != v else best


@part(inline=True)
def _best_of_three(taps, best):
    """Compare with three neighbouring pixels."""
    channels = len(best)
    first, second, third = taps[:channels], taps[channels : 2 * channels], taps[2 * channels :]
    for c in range(channels):
        best[c] = _larger(third[c], _larger(second[c], _larger(first[c], best[c])))


@in_tasks(Window)
def _max_lines(x, out, g, counters):
    """Compute lines of the result; a maximum that is not-a-number stays so."""
    channels, task = g.c, next_task(counters)
    lowest = stored(np.float32(-np.inf), out)
    while task < g.tasks:
        n, line = divmod(task, g.h_out)
        top = line * g.s_h - g.p_h
        for column in range(g.w_out):
            left = column * g.s_w - g.p_w
            at = (task * g.w_out + column) * channels
            # A slice, since indices into it cannot be negative: so loops become vectors.
            best = out[at : at + channels]
            best[:] = lowest
            begin = max(left, 0)
            end = max(begin, min(left + g.k_w, g.w))
            for y in range(max(top, 0), min(top + g.k_h, g.h)):
                source = ((n * g.h + y) * g.w + begin) * channels
                for _ in range((end - begin) // 3):  # three at a time: the best is in memory
                    _best_of_three(x[source : source + 3 * channels], best)
                    source += 3 * channels
                for _ in range((end - begin) % 3):
                    tap = x[source : source + channels]
                    for c in range(channels):
                        best[c] = _larger(tap[c], best[c])
                    source += channels
        task = next_task(counters)
    finished(counters)


@in_tasks(Window)
def _max_gradient(x, dy, out, g, counters):
    """Add each window's gradient to the place of its first largest value; a task is a sample.

    All channels of a window are compared together, in vectors: which value is the largest so far,
    and where it is.
    """
    channels = np.uintp(g.c)
    largest, where = aligned(g.c), working(g.c, np.uintp)
    task, room = next_task(counters), room_for(out, g)
    while task < g.tasks:
        sums, before = begun(out, room, task, g), np.uintp(task * g.h * g.w * g.c)
        for line in range(g.h_out):
            for column in range(g.w_out):
                top, left = line * g.s_h - g.p_h, column * g.s_w - g.p_w
                first = np.uintp((max(top, 0) * g.w + max(left, 0)) * g.c)
                for c in range(channels):
                    largest[c], where[c] = value(x[before + first + c]), first
                for y in range(max(top, 0), min(top + g.k_h, g.h)):
                    for z in range(max(left, 0), min(left + g.k_w, g.w)):
                        at = np.uintp((y * g.w + z) * g.c)
                        for c in range(channels):
                            v, so_far = value(x[before + at + c]), largest[c]
                            # Not-a-number wins, as it does forward.
                            larger = (v > so_far) | ((v != v) & (so_far == so_far))
                            largest[c] = v if larger else so_far
                            where[c] = at if larger else where[c]
                source = np.uintp(((task * g.h_out + line) * g.w_out + column) * g.c)
                for c in range(channels):
                    sums[where[c] + c] += value(dy[source + c])
        ended(sums, out, task, g)
        task = next_task(counters)
    finished(counters)


# --- public op ------------------------------------------------------------------------------------


def max_pool2d(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """Compute the maximum of each window, line by line of the result, in vectors of channels.

    Arguments and result are those of `tinyresnext.ops.shapes.max_pool2d`.
    """
    shape = shapes.max_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    y = result("max_pool2d", shape, out)
    bind_max_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=y)()
    return y


def bind_max_pool2d(
    x: Array, *, size: Pair, stride: Pair, padding: Pair = 0, ceil_mode: bool = False, out: Array
) -> Step:
    """Prepare a step."""
    shape = shapes.max_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    g = window(x.shape, shape, size, stride, padding, tasks=shape[0] * shape[1])
    target = result("max_pool2d", shape, out, halves=True).reshape(-1)
    return Step(_max_lines, g, x=flat("max_pool2d", "x", x, out), out=target)


def max_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
) -> tuple[Array | None, ...]:
    """Look for the place of the largest value again, window by window."""
    out = empty_like(x)
    bind_max_pool2d_backward(
        dy, y, x, size=size, stride=stride, padding=padding, out=out, more=(False,)
    )()
    return out


def bind_max_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a step."""
    if out[0] is None:
        return Chain([])
    source, gradient = flat("max_pool2d", "x", x, x), flat("max_pool2d", "dy", dy, dy)
    g = window(x.shape, y.shape, size, stride, padding, tasks=x.shape[0], add=more[0])
    return Step(_max_gradient, g, x=source, dy=gradient, out=out[0].reshape(-1))
