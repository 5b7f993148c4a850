"""The scaling of channels by squeeze and excitation, and its gradients.

The forward pass adds the residual and rectifies on the way: a block ends in one pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ... import shapes
from ..elementwise import bind_relu_backward
from ..runtime.crew import Chain, Step
from ..runtime.kernel import part
from ..runtime.memory import Array, accumulate, empty, empty_like, flat, result
from ..runtime.simd import aligned, stored, value, working
from ..runtime.tasks import finished, in_tasks, next_task
from .mean import RUN

CHANNELS, POSITIONS = 64, 512  # of a task


class Excitation(NamedTuple):
    """The numbers of the scaling of each channel, and of its gradients."""

    positions: int  # of a sample
    c: int
    shares: int  # of the channels of a sample
    chunks: int  # of its positions
    residual: int  # 1 where a residual is added
    relu: int  # 1 where a ReLU follows
    add: int  # 1 where the gradient is added to what is there
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part(inline=True)
def _scales(task, s, gates, g):
    """Compute the sigmoids of a task's channels at ``task * CHANNELS``; no exponential overflows.

    Return where the values of the first position would begin, how many channels there are, and the
    positions, from ``start`` to before ``stop``.
    """
    n, rest = divmod(task, g.shares * g.chunks)
    share, chunk = divmod(rest, g.chunks)
    first, own = share * CHANNELS, task * CHANNELS
    count = min(CHANNELS, g.c - first)
    for k in range(count):
        v = value(s[n * g.c + first + k])
        small = np.exp(-abs(v))
        gates[own + k] = (small if v < 0 else np.float32(1)) / (np.float32(1) + small)
    start = chunk * POSITIONS
    stop = min(start + POSITIONS, g.positions)
    return n * g.positions * g.c + first, count, start, stop


@in_tasks(Excitation)
def _excite(x, s, residual, gates, out, g, counters):
    """Scale some channels at some positions of a sample, add the residual, and rectify."""
    task = next_task(counters)
    while task < g.tasks:
        first, count, start, stop = _scales(task, s, gates, g)
        own = task * CHANNELS
        scale = gates[own : own + count]
        for p in range(start, stop):
            at = first + p * g.c
            source, target = x[at : at + count], out[at : at + count]
            other = residual[at : at + count]
            if g.residual and g.relu:
                for c in range(count):
                    v = value(source[c]) * scale[c] + value(other[c])
                    target[c] = stored(np.float32(0) if v < 0 else v, out)
            elif g.residual:
                for c in range(count):
                    target[c] = stored(value(source[c]) * scale[c] + value(other[c]), out)
            else:
                for c in range(count):
                    v = value(source[c]) * scale[c]
                    target[c] = stored(np.float32(0) if g.relu and v < 0 else v, out)
        task = next_task(counters)
    finished(counters)


@in_tasks(Excitation)
def _excite_sums(x, s, y, dy, out, g, counters):
    """Compute the gradient of ``s``: sums over all positions, of some channels of a sample.

    As in the global mean, they are sums of runs of positions, and in float64 sums of the runs.
    """
    task, total, run = next_task(counters), working(CHANNELS, np.float64), aligned(CHANNELS)
    while task < g.tasks:
        n, share = divmod(task, g.shares)
        first = share * CHANNELS
        count = min(CHANNELS, g.c - first)
        total[:] = 0
        for begin in range(0, g.positions, RUN):
            run[:] = 0
            for p in range(begin, min(begin + RUN, g.positions)):
                at = (n * g.positions + p) * g.c + first
                for c in range(count):
                    passed = not g.relu or value(y[at + c]) > 0
                    d = value(dy[at + c]) * value(x[at + c])
                    run[c] += d if passed else np.float32(0)
            for c in range(count):
                total[c] += np.float64(run[c])
        for c in range(count):
            own = n * g.c + first + c
            small = np.exp(-abs(value(s[own])))  # a (1 - a) is the same for s and -s
            slope = small / ((np.float32(1) + small) * (np.float32(1) + small))
            out[own] = stored(np.float32(total[c]) * slope, out)
        task = next_task(counters)
    finished(counters)


@in_tasks(Excitation)
def _excite_gradient(s, y, dy, gates, out, g, counters):
    """Scale what a ReLU lets pass: the gradient of ``x``."""
    task = next_task(counters)
    while task < g.tasks:
        first, count, start, stop = _scales(task, s, gates, g)
        own = task * CHANNELS
        for p in range(start, stop):
            at = first + p * g.c
            for c in range(count):
                passed = not g.relu or value(y[at + c]) > 0
                d = value(dy[at + c]) * gates[own + c] if passed else np.float32(0)
                out[at + c] = stored(value(out[at + c]) + d if g.add else d, out)
        task = next_task(counters)
    finished(counters)


# --- public ops -----------------------------------------------------------------------------------


def excite(
    x: Array,
    s: Array,
    residual: Array | None = None,
    *,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Make one pass over the values; see `tinyresnext.ops.shapes.excite`."""
    y = result("excite", shapes.excite(x, s, residual, relu=relu, out=out), out)
    bind_excite(x, s, residual, relu=relu, out=y)()
    return y


def bind_excite(
    x: Array, s: Array, residual: Array | None = None, *, relu: bool = False, out: Array
) -> Step:
    """Prepare a step."""
    shape = shapes.excite(x, s, residual, relu=relu, out=out)
    target = result("excite", shape, out, halves=True).reshape(-1)
    source = flat("excite", "x", x, out)
    g = _excitation(x, relu=relu, residual=residual is not None)
    other = source if residual is None else flat("excite", "residual", residual, out)
    gates, scale = empty((g.tasks * CHANNELS,)), flat("excite", "s", s, s)
    return Step(_excite, g, x=source, s=scale, residual=other, gates=gates, out=target)


def excite_backward(
    dy: Array,
    y: Array,
    x: Array,
    s: Array,
    residual: Array | None = None,
    *,
    relu: bool = False,
) -> tuple[Array | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, s, residual)
    bind_excite_backward(dy, y, x, s, residual, relu=relu, out=out, more=(False,) * 3)()
    return out


def bind_excite_backward(
    dy: Array,
    y: Array,
    x: Array,
    s: Array,
    residual: Array | None = None,
    *,
    relu: bool = False,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a step for each gradient.

    That of the residual comes last: it may lie over ``dy``.
    """
    dx, ds, dr = (*out, None)[:3]
    gradient, scale = flat("excite", "dy", dy, dy), flat("excite", "s", s, s)
    result_y = flat("excite", "y", y, y) if relu else gradient
    calls: list[Callable[[], None]] = []
    if ds is not None:
        target = empty(s.shape) if more[1] else ds
        g, source = _excitation(x, relu=relu, sums=True), flat("excite", "x", x, x)
        calls.append(
            Step(
                _excite_sums, g, x=source, s=scale, y=result_y, dy=gradient, out=target.reshape(-1)
            )
        )
        if more[1]:
            calls.append(partial(accumulate, ds, target, True))
    if dx is not None:
        g = _excitation(x, relu=relu, add=more[0])
        gates, into = empty((g.tasks * CHANNELS,)), dx.reshape(-1)
        calls.append(
            Step(_excite_gradient, g, s=scale, y=result_y, dy=gradient, gates=gates, out=into)
        )
    if residual is not None and dr is not None:
        if relu:
            calls.append(bind_relu_backward(dy, y, y, out=(dr,), more=(more[2],)))
        elif dr is not dy or more[2]:
            calls.append(partial(accumulate, dr, dy, more[2]))
    return Chain(calls)


def _excitation(
    x: Array, *, relu: bool, residual: bool = False, add: bool = False, sums: bool = False
) -> Excitation:
    """Return the numbers of a kernel; sums go over all positions of a sample in one task."""
    n, h, w, c = x.shape
    shares, chunks = -(-c // CHANNELS), 1 if sums else -(-h * w // POSITIONS)
    tasks = n * shares * chunks
    return Excitation(h * w, c, shares, chunks, int(residual), int(relu), int(add), tasks)
