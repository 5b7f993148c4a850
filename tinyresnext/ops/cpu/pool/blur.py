"""The blur pooling: a fixed binomial filter, and a stride."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ... import shapes
from ..runtime.crew import Chain, Step
from ..runtime.kernel import part
from ..runtime.memory import Array, empty_like, flat, result
from ..runtime.simd import aligned, stored, value
from ..runtime.tasks import finished, in_tasks, next_task
from .window import begun, ended, room_for


class Blur(NamedTuple):
    """The numbers of a blur pooling and of its gradient."""

    h: int
    w: int
    c: int
    h_out: int
    w_out: int
    stride: int
    add: int  # 1 where the gradient is added to what is there
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part(inline=True)
def _reflected(place, length):
    """Return the place inside the image that a place one beyond its edge repeats."""
    if place < 0:
        return -place
    return place if place < length else 2 * length - 2 - place


@in_tasks(Blur)
def _blur_lines(x, out, g, counters):
    """Compute lines of the result: nine taps, each weighted, in vectors of channels."""
    task, total = next_task(counters), aligned(g.c)
    while task < g.tasks:
        n, line = divmod(task, g.h_out)
        for column in range(g.w_out):
            at = (task * g.w_out + column) * g.c
            blurred = out[at : at + g.c]
            total[:] = 0
            for i in range(-1, 2):
                y = _reflected(line * g.stride + i, g.h)
                for j in range(-1, 2):
                    z = _reflected(column * g.stride + j, g.w)
                    source = ((n * g.h + y) * g.w + z) * g.c
                    tap = x[source : source + g.c]
                    share = np.float32((2 - abs(i)) * (2 - abs(j)) / 16)
                    for c in range(g.c):
                        total[c] += share * value(tap[c])
            for c in range(g.c):
                blurred[c] = stored(total[c], out)
        task = next_task(counters)
    finished(counters)


@in_tasks(Blur)
def _blur_gradient(dy, out, g, counters):
    """Add each result's gradient, weighted, to the nine places it was made of; a task a sample."""
    task, room = next_task(counters), room_for(out, g)
    while task < g.tasks:
        sums = begun(out, room, task, g)
        for line in range(g.h_out):
            for column in range(g.w_out):
                source = ((task * g.h_out + line) * g.w_out + column) * g.c
                gradient = dy[source : source + g.c]
                for i in range(-1, 2):
                    y = _reflected(line * g.stride + i, g.h)
                    for j in range(-1, 2):
                        z = _reflected(column * g.stride + j, g.w)
                        at = (y * g.w + z) * g.c
                        share = np.float32((2 - abs(i)) * (2 - abs(j)) / 16)
                        place = sums[at : at + g.c]
                        for c in range(g.c):
                            place[c] += share * value(gradient[c])
        ended(sums, out, task, g)
        task = next_task(counters)
    finished(counters)


# --- public op ------------------------------------------------------------------------------------


def blur_pool(x: Array, *, stride: int = 2, out: Array | None = None) -> Array:
    """Filter line by line of the result, in vectors of channels.

    Arguments and result are those of `tinyresnext.ops.shapes.blur_pool`.
    """
    y = result("blur_pool", shapes.blur_pool(x, stride=stride, out=out), out)
    bind_blur_pool(x, stride=stride, out=y)()
    return y


def bind_blur_pool(x: Array, *, stride: int = 2, out: Array) -> Step:
    """Prepare a step."""
    n, h_out, w_out, c = shape = shapes.blur_pool(x, stride=stride, out=out)
    target = result("blur_pool", shape, out, halves=True).reshape(-1)
    _, h, w, _ = x.shape
    g = Blur(h, w, c, h_out, w_out, stride, add=0, tasks=n * h_out)
    return Step(_blur_lines, g, x=flat("blur_pool", "x", x, out), out=target)


def blur_pool_backward(
    dy: Array, y: Array, x: Array, *, stride: int = 2
) -> tuple[Array | None, ...]:
    """Give each value the weighted gradients of the results that it is a part of."""
    out = empty_like(x)
    bind_blur_pool_backward(dy, y, x, stride=stride, out=out, more=(False,))()
    return out


def bind_blur_pool_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    stride: int = 2,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a step."""
    if out[0] is None:
        return Chain([])
    (n, h, w, c), (_, h_out, w_out, _) = x.shape, y.shape
    g = Blur(h, w, c, h_out, w_out, stride, add=int(more[0]), tasks=n)
    return Step(_blur_gradient, g, dy=flat("blur_pool", "dy", dy, dy), out=out[0].reshape(-1))
