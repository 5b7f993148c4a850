"""Batch normalisation in training, forward and backward, with the addition and the ReLU behind it.

Bound by memory: what counts is how often the values are read and written. Forward they are read
twice (for the statistics, then for the result). Backward, a first pass takes the two sums over each
channel that the gradient needs, and a second one writes it. Whether a ReLU let a value pass is
computed again from ``x``, as the forward pass did it, so its result need not be read; behind an
addition it is read, and the first pass leaves the gradient of the residual.

Sums over positions are taken of runs of ``RUN`` positions, then of a task's runs, then of all tasks
in float64: no sum is longer than a few hundred terms. The variance is taken around the channel's
first value: far from a mean of zero, the difference of the mean of squares and the square of the
mean would have nothing left. No sum depends on which thread took it or how many there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import shapes
from .runtime.crew import Step, Work, compiled, take
from .runtime.memory import Array, empty, flat, result
from .runtime.simd import aligned, copy

RUN = 32  # positions whose sum is taken in one go
VALUES = 32 * 1024  # of a task, about


# --- kernels --------------------------------------------------------------------------------------
# Indices are unsigned: a negative one would count from the end, and asking for that keeps loops
# from becoming vectors. So does reading a value only under a condition.


def _moments(x, origin, bias, residual, out, g, counters):
    """Sums of ``x - origin`` and of its square over each task's ``length`` positions: ``out[task] = [2, c]``."""
    c, four = np.uintp(g.c_out), np.uintp(4)
    sums = aligned(2 * g.c_out)
    task = take(counters, 0)
    while task < g.tasks:
        first, last = np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.n))
        place = np.uintp(task * 2) * c
        for k in range(c + c):
            out[place + k] = np.float32(0)
        while first < last:
            end = min(first + np.uintp(RUN), last)
            for k in range(c + c):
                sums[k] = np.float32(0)
            while first + four <= end:
                p = first * c
                for k in range(c):
                    d0, d1 = x[p + k] - origin[k], x[p + c + k] - origin[k]
                    d2, d3 = x[p + c + c + k] - origin[k], x[p + c + c + c + k] - origin[k]
                    sums[k] += (d0 + d1) + (d2 + d3)
                    sums[c + k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
                first += four
            while first < end:
                p = first * c
                for k in range(c):
                    d0 = x[p + k] - origin[k]
                    sums[k] += d0
                    sums[c + k] += d0 * d0
                first += np.uintp(1)
            for k in range(c + c):
                out[place + k] += sums[k]
        task = take(counters, 0)
    take(counters, 1)


def _normalise(x, weight, bias, residual, out, g, counters):
    """``(x - mean) * factor + shift``, and what comes behind it; ``weight`` is ``[mean, factor, shift]``."""
    c = np.uintp(g.c_out)
    task = take(counters, 0)
    while task < g.tasks:
        for position in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.n))):
            p = np.uintp(position) * c
            if g.add:
                for k in range(c):
                    value = (
                        (x[p + k] - weight[k]) * weight[c + k] + weight[c + c + k] + residual[p + k]
                    )
                    out[p + k] = np.float32(0) if g.relu and value < 0 else value
            else:
                for k in range(c):
                    value = (x[p + k] - weight[k]) * weight[c + k] + weight[c + c + k]
                    out[p + k] = np.float32(0) if g.relu and value < 0 else value
        task = take(counters, 0)
    take(counters, 1)


def _sums(x, weight, y, dy, out, g, counters):
    """Sums of ``dy`` and of ``dy * (x - mean)`` over each task's positions, of ``dy`` behind the ReLU.

    ``g.relu`` is 1 where ``x`` tells what it let pass, and 2 where ``y`` does: then ``dy`` is left
    as it is before it.
    """
    c = np.uintp(g.c_out)
    sums = aligned(2 * g.c_out)
    task = take(counters, 0)
    while task < g.tasks:
        first, last = np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.n))
        place = np.uintp(task * 2) * c
        for k in range(c + c):
            out[place + k] = np.float32(0)
        while first < last:
            end = min(first + np.uintp(RUN), last)
            for k in range(c + c):
                sums[k] = np.float32(0)
            while first < end:
                p = first * c
                if g.relu == 2:
                    for k in range(c):
                        d = dy[p + k]
                        d = d if y[p + k] > 0 else np.float32(0)
                        dy[p + k] = d
                        sums[k] += d
                        sums[c + k] += d * (x[p + k] - weight[k])
                elif g.relu == 1:
                    for k in range(c):
                        centred, d = x[p + k] - weight[k], dy[p + k]
                        d = d if centred * weight[c + k] + weight[c + c + k] > 0 else np.float32(0)
                        sums[k] += d
                        sums[c + k] += d * centred
                else:
                    for k in range(c):
                        d = dy[p + k]
                        sums[k] += d
                        sums[c + k] += d * (x[p + k] - weight[k])
                first += np.uintp(1)
            for k in range(c + c):
                out[place + k] += sums[k]
        task = take(counters, 0)
    take(counters, 1)


def _spread(x, weight, bias, dy, out, g, counters):
    """``dx = factor * (dy - a - b * (x - mean))``; ``weight`` is ``[mean, factor, shift, a, b]``, the rest as in `_sums`.

    A position's values are made in a line of their own: where ``dx`` lies over ``dy``, loops would
    not become vectors.
    """
    c, line = np.uintp(g.c_out), aligned(g.c_out)
    task = take(counters, 0)
    while task < g.tasks:
        for position in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.n))):
            p = np.uintp(position) * c
            if g.relu == 1:
                for k in range(c):
                    centred, d = x[p + k] - weight[k], dy[p + k]
                    d = d if centred * weight[c + k] + weight[c + c + k] > 0 else np.float32(0)
                    line[k] = weight[c + k] * (
                        d - weight[c + c + c + k] - centred * weight[c + c + c + c + k]
                    )
            else:
                for k in range(c):
                    centred = x[p + k] - weight[k]
                    line[k] = weight[c + k] * (
                        dy[p + k] - weight[c + c + c + k] - centred * weight[c + c + c + c + k]
                    )
            copy(line, 0, out, p, c)
        task = take(counters, 0)
    take(counters, 1)


# --- launchers ------------------------------------------------------------------------------------


@functools.cache
def _kernels() -> dict[str, Any]:
    """Compiled when they are first needed."""
    return {f.__name__: compiled(f) for f in (_moments, _normalise, _sums, _spread)}


def _work(values: int, channels: int) -> Work:
    """Tasks of so many positions that their partial sums are few."""
    positions = values // channels
    length = max(RUN, VALUES // channels)
    names = dict.fromkeys(Work._fields, 0) | {"n": positions, "c_out": channels, "length": length}
    return Work(**names)._replace(tasks=-(-positions // length))


def _adding(
    kernel: str, x: Array, weight: Array, y: Array, dy: Array, g: Work
) -> Callable[[], Array]:
    """Prepare a kernel that leaves two sums for each channel; the call returns them, ``[2, c]`` in float64."""
    sums = empty((g.tasks, 2, g.c_out))
    step = Step(_kernels()[kernel], x, weight, y, dy, sums.reshape(-1), g)

    def add() -> Array:
        step()
        return sums.sum(0, dtype=np.float64)

    return add


def bind_moments(x: Array) -> Callable[[], tuple[Array, Array]]:
    """Prepare the mean and the biased variance of each channel, in float64."""
    c = x.shape[-1]
    source, origin = flat("batch_norm_train", "x", x), empty((c,))
    add = _adding("_moments", source, origin, source, source, _work(x.size, c))

    def moments() -> tuple[Array, Array]:
        origin[:] = source[:c]
        s, q = add() / (x.size // c)
        return s + origin, np.maximum(q - s * s, 0)

    return moments


def channel_sums(x: Array, out: Array, more: bool) -> None:
    """Sum each channel over all positions."""
    c = x.shape[-1]
    source = flat("sum", "x", x)
    s, _ = _adding("_moments", source, np.zeros(c, np.float32), source, source, _work(x.size, c))()
    np.copyto(out, out + s if more else s, casting="same_kind")


def _scaled(mean: Array, var: Array, scale: Array, shift: Array, eps: float) -> Array:
    """What the kernels multiply with and add: ``[mean, factor, shift]``."""
    return np.concatenate([mean, scale / np.sqrt(var + eps), shift]).astype(np.float32)


def batch_norm_train(
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Two passes: the statistics, then the result."""
    y = result(
        "batch_norm_train",
        shapes.batch_norm_train(x, scale, shift, residual, statistics=statistics, out=out),
        out,
    )
    bind_batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, out=y
    )()
    return y


def bind_batch_norm_train(
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    out: Array,
) -> Callable[[], None]:
    """Both passes are prepared; between them a few thousand numbers are computed in NumPy."""
    shape = shapes.batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, out=out
    )
    y = result("batch_norm_train", shape, out)
    source, weight = flat("batch_norm_train", "x", x), empty((3 * shape[-1],))
    other = source if residual is None else flat("batch_norm_train", "residual", residual)
    for name, a in (("scale", scale), ("shift", shift)):
        flat("batch_norm_train", name, a)
    g = _work(x.size, shape[-1])._replace(add=int(residual is not None), relu=int(relu))
    moments, second = (
        bind_moments(x),
        Step(_kernels()["_normalise"], source, weight, weight, other, y.reshape(-1), g),
    )

    def normalise() -> None:
        mean, var = moments()
        if statistics is not None:
            statistics[:] = mean, var
        weight[:] = _scaled(mean, var, scale, shift, eps)
        second()

    return normalise


def bind_batch_norm_train_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    out: tuple[Array | None, ...],
    more: tuple[bool, ...],
) -> Callable[[], None]:
    """The gradient of the residual, or that of ``x`` where there is none, may lie over ``dy``."""
    source, given = (
        flat("batch_norm_train_backward", "x", x),
        flat("batch_norm_train_backward", "dy", dy),
    )
    g = _work(x.size, x.shape[-1])._replace(relu=0 if not relu else 1 if residual is None else 2)
    behind = given
    if (
        g.relu == 2
        # the gradient behind the ReLU is written down: where that of the residual goes, if that is
        # wanted
    ):
        direct = out[3] is not None and not more[3]
        behind = out[3].reshape(-1) if direct else empty((x.size,))
    dx = empty((x.size,)) if out[0] is None or more[0] else out[0].reshape(-1)

    c, before = x.shape[-1], y.reshape(-1)
    weight, moments = empty((5 * c,)), bind_moments(x)
    add = _adding("_sums", source, weight, before, behind, g)
    second = Step(_kernels()["_spread"], source, weight, weight, behind, dx, g)
    to_copy = behind is not given and not np.shares_memory(behind, given, max_work=1)
    like_x, like_residual = dx.reshape(x.shape), behind.reshape(x.shape)

    def back() -> None:
        mean, var = moments() if statistics is None else statistics.astype(np.float64)
        weight[: 3 * c] = _scaled(mean, var, scale, shift, eps)
        if to_copy:
            behind[:] = given
        dshift, centred = add()
        rstd = 1 / np.sqrt(var + eps)
        if out[0] is not None:
            weight[3 * c : 4 * c], weight[4 * c :] = dshift / g.n, centred * rstd**2 / g.n
            second()
        found = (like_x, centred * rstd, dshift, None if residual is None else like_residual)
        for place, more_of_it, gradient in zip(out, more, found, strict=False):
            if place is None or gradient is None:
                continue
            if more_of_it:
                np.copyto(place, place + gradient, casting="same_kind")
            elif gradient.ndim == 1 or not np.shares_memory(place, gradient, max_work=1):
                np.copyto(place, gradient, casting="same_kind")

    return back


def batch_norm_train_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
) -> tuple[Array | None, ...]:
    """All gradients."""
    out = (
        empty(x.shape),
        empty(scale.shape),
        empty(shift.shape),
        None if residual is None else empty(x.shape),
    )
    run_it = partial(
        bind_batch_norm_train_backward, dy, y, x, scale, shift, residual, eps=eps, relu=relu
    )
    run_it(statistics=statistics, out=out, more=(False,) * 4)()
    return out


def frozen_backward(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, ...]:
    """The gradients of a batch norm whose statistics are constants."""
    source, given, dx = (
        flat("batch_norm_backward", "x", x),
        flat("batch_norm_backward", "dy", dy),
        empty(x.shape),
    )
    g = _work(x.size, x.shape[-1])
    rstd = 1 / np.sqrt(var.astype(np.float64) + eps)
    weight = _scaled(mean, var.astype(np.float64), scale, scale, eps)
    dshift, centred = _adding("_sums", source, weight, given, given, g)()
    weight = np.concatenate([weight, np.zeros(2 * len(mean), np.float32)])
    Step(_kernels()["_spread"], source, weight, weight, given, dx.reshape(-1), g)()
    statistics = -dshift * scale * rstd, -centred * scale * rstd**3 / 2
    return dx, *(a.astype(np.float32) for a in (centred * rstd, dshift, *statistics))
