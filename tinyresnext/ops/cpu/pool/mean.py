"""The global mean: of each channel over all positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ... import shapes
from ..runtime.crew import Step
from ..runtime.memory import Array, empty_like, flat, result
from ..runtime.simd import aligned, stored, value, working
from ..runtime.tasks import finished, in_tasks, next_task
from .average import bind_avg_pool2d_backward

CHANNELS = 256  # of a task
FEW = 64  # of a task where the positions are those of a block, and may be thousands
RUN = 64  # positions that are summed in float32


class Means(NamedTuple):
    """The numbers of the global mean; a sample has ``shares`` tasks."""

    h: int
    w: int
    c: int
    length: int  # channels of a task
    shares: int
    tasks: int


# --- kernel ---------------------------------------------------------------------------------------


@in_tasks(Means)
def _means(x, out, g, counters):
    """Compute means of some channels of one sample: sums of runs of positions, then of the runs.

    The latter are float64, so that of any number of positions the error is that of a run.
    """
    task, total, run = next_task(counters), working(g.length, np.float64), aligned(g.length)
    positions = g.h * g.w
    several = positions > RUN
    while task < g.tasks:
        n, share = divmod(task, g.shares)
        first = share * g.length
        at, count = n * g.c + first, min(g.length, g.c - first)
        mean = out[at : at + count]
        if several:
            total[:] = 0
        for begin in range(0, positions, RUN):
            run[:] = 0
            for position in range(begin, min(begin + RUN, positions)):
                source = (n * positions + position) * g.c + first
                values = x[source : source + count]
                for c in range(count):
                    run[c] += value(values[c])
            if several:
                for c in range(count):
                    total[c] += np.float64(run[c])
        if several:
            for c in range(count):
                run[c] = np.float32(total[c])
        for c in range(count):
            mean[c] = stored(run[c] / np.float32(positions), out)
        task = next_task(counters)
    finished(counters)


# --- public op ------------------------------------------------------------------------------------


def mean_pool(x: Array, *, keepdims: bool = False, out: Array | None = None) -> Array:
    """Make one pass over each sample; see `tinyresnext.ops.shapes.mean_pool`."""
    y = result("mean_pool", shapes.mean_pool(x, keepdims=keepdims, out=out), out)
    bind_mean_pool(x, keepdims=keepdims, out=y)()
    return y


def bind_mean_pool(x: Array, *, keepdims: bool = False, out: Array) -> Step:
    """Prepare a step."""
    shape = shapes.mean_pool(x, keepdims=keepdims, out=out)
    target = result("mean_pool", shape, out, halves=True).reshape(-1)
    n, h, w, c = x.shape
    length = FEW if keepdims else CHANNELS
    shares = -(-c // length)
    g = Means(h=h, w=w, c=c, length=length, shares=shares, tasks=n * shares)
    return Step(_means, g, x=flat("mean_pool", "x", x, x), out=target)


def mean_pool_backward(
    dy: Array, y: Array, x: Array, *, keepdims: bool = False
) -> tuple[Array | None, ...]:
    """Share each channel's gradient among all positions."""
    out = empty_like(x)
    bind_mean_pool_backward(dy, y, x, keepdims=keepdims, out=out, more=(False,))()
    return out


def bind_mean_pool_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    keepdims: bool = False,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare the gradient of an average over one window."""
    window = x.shape[1:3]
    if not keepdims:
        dy, y = dy[:, None, None], y[:, None, None]
    return bind_avg_pool2d_backward(dy, y, x, size=window, stride=window, out=out, more=more)
