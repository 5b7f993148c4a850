"""Sums over the positions of each channel: means, variances, and what gradients of norms need.

Sums over positions are taken of runs of ``RUN`` positions, then of a task's runs, then of all tasks
in float64: no sum is longer than a few hundred terms. The variance is taken around the mean of a
few values of the channel: far from a mean of zero, the difference of the mean of squares and the
square of the mean would have no digits left. Where these few lie far from the others, the sums are
taken once more, around the mean of all. No sum depends on which thread took it or how many threads
there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..bfloat16 import widened
from .runtime.crew import Step
from .runtime.memory import HALF, Array, empty, flat
from .runtime.simd import aligned, stored, value
from .runtime.tasks import finished, in_tasks, next_task

RUN = 32  # positions that are summed in one go
VALUES = 32 * 1024  # of a task, about
SAMPLE = 16  # positions whose mean is the origin of a variance, about
# The origin may lie two standard deviations from the mean: rounding errors grow by the square.
FAR = 4


class Sums(NamedTuple):
    """The numbers of a pass over all positions: ``[positions, channels]``."""

    positions: int
    channels: int
    mask_by_x: int  # 1 where a ReLU follows the norm: the mask is computed from x
    mask_by_y: int  # 1 where a ReLU follows an addition: the mask is computed from y
    length: int  # positions of a task
    tasks: int


# --- kernels --------------------------------------------------------------------------------------
# Indices are unsigned: a negative one would count from the end, and testing for that keeps loops
# from becoming vectors. So does reading a value only under a condition.


@in_tasks(Sums)
def _moments(x, origin, out, g, counters):
    """Sum ``x - origin`` and its square over the positions of each task: ``out[task] = [2, c]``."""
    c, four = np.uintp(g.channels), np.uintp(4)
    sums = aligned(2 * g.channels)
    task = next_task(counters)
    while task < g.tasks:
        first, last = np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.positions))
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
                    d0, d1 = value(x[p + k]) - origin[k], value(x[p + c + k]) - origin[k]
                    d2 = value(x[p + c + c + k]) - origin[k]
                    d3 = value(x[p + c + c + c + k]) - origin[k]
                    sums[k] += (d0 + d1) + (d2 + d3)
                    sums[c + k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
                first += four
            while first < end:
                p = first * c
                for k in range(c):
                    d0 = value(x[p + k]) - origin[k]
                    sums[k] += d0
                    sums[c + k] += d0 * d0
                first += np.uintp(1)
            for k in range(c + c):
                out[place + k] += sums[k]
        task = next_task(counters)
    finished(counters)


@in_tasks(Sums)
def _gradient_sums(x, norm, y, dy, out, g, counters):
    """Sum ``dy`` and ``dy * (x - mean)`` over the positions of each task.

    ``norm`` begins with ``[mean, factor, shift]``. The gradient of a ReLU is taken first: with
    ``g.mask_by_x`` from the sign of the normalised ``x``; with ``g.mask_by_y`` from the sign of
    ``y``, and then it is written over ``dy``.
    """
    c = np.uintp(g.channels)
    sums = aligned(2 * g.channels)
    task = next_task(counters)
    while task < g.tasks:
        first, last = np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.positions))
        place = np.uintp(task * 2) * c
        for k in range(c + c):
            out[place + k] = np.float32(0)
        while first < last:
            end = min(first + np.uintp(RUN), last)
            for k in range(c + c):
                sums[k] = np.float32(0)
            while first < end:
                p = first * c
                if g.mask_by_y:
                    for k in range(c):
                        d = value(dy[p + k])
                        d = d if value(y[p + k]) > 0 else np.float32(0)
                        dy[p + k] = stored(d, dy)
                        sums[k] += d
                        sums[c + k] += d * (value(x[p + k]) - norm[k])
                elif g.mask_by_x:
                    for k in range(c):
                        centred, d = value(x[p + k]) - norm[k], value(dy[p + k])
                        d = d if centred * norm[c + k] + norm[c + c + k] > 0 else np.float32(0)
                        sums[k] += d
                        sums[c + k] += d * centred
                else:
                    for k in range(c):
                        d = value(dy[p + k])
                        sums[k] += d
                        sums[c + k] += d * (value(x[p + k]) - norm[k])
                first += np.uintp(1)
            for k in range(c + c):
                out[place + k] += sums[k]
        task = next_task(counters)
    finished(counters)


# --- launchers ------------------------------------------------------------------------------------


def cut(values: int, channels: int, *, mask_by_x: bool = False, mask_by_y: bool = False) -> Sums:
    """Cut into tasks of so many positions that their partial sums are few."""
    positions = values // channels
    length = max(RUN, VALUES // channels)
    tasks = -(-positions // length)
    return Sums(positions, channels, int(mask_by_x), int(mask_by_y), length, tasks)


def bind_gradient_sums(
    x: Array, norm: Array, y: Array, dy: Array, g: Sums
) -> Callable[[], tuple[Array, Array]]:
    """Prepare the sums of ``dy`` and of ``dy * (x - mean)`` over each channel, in float64.

    Parameters
    ----------
    x, y, dy : flat, float32 or bfloat16
        With ``g.mask_by_y`` the gradient before the ReLU is written over ``dy``.
    norm : flat float32
        Begins with the mean, the factor and the shift of each channel.
    g : Sums
    """
    partial = empty((g.tasks, 2, g.channels))
    step = Step(_gradient_sums, g, x=x, norm=norm, y=y, dy=dy, out=partial.reshape(-1))
    return lambda: _add_up(step, partial)


def _bind_moments(x: Array, origin: Array) -> Callable[[], tuple[Array, Array]]:
    """Prepare the sums of ``x - origin`` and of its square over each channel, in float64."""
    g = cut(x.size, len(origin))
    partial = empty((g.tasks, 2, g.channels))
    step = Step(_moments, g, x=x, origin=origin, out=partial.reshape(-1))
    return lambda: _add_up(step, partial)


def _add_up(step: Step, partial: Array) -> tuple[Array, Array]:
    """Compute the partial sums of all tasks, and add them."""
    step()
    first, second = partial.sum(0, dtype=np.float64)
    return first, second


def bind_moments(x: Array) -> Callable[[], tuple[Array, Array]]:
    """Prepare the mean and the biased variance of each channel, in float64."""
    c = x.shape[-1]
    source, origin = flat("batch_norm_train", "x", x, x), empty((c,))
    add = _bind_moments(source, origin)
    positions = x.size // c
    # An odd distance comes to all columns of an image, where these are a power of two.
    sample = source.reshape(-1, c)[:: positions // SAMPLE | 1]

    def around_origin() -> tuple[Array, Array, bool]:
        distance, squares = add()
        distance /= positions
        squares /= positions
        square = distance * distance
        var = np.maximum(squares - square, 0)
        return distance, var, bool((square <= FAR * var).all())  # NaN is far

    def moments() -> tuple[Array, Array]:
        np.add.reduce(widened(sample) if sample.dtype == HALF else sample, 0, out=origin)
        np.divide(origin, len(sample), out=origin)
        distance, var, near = around_origin()
        if not near:
            origin[:] += distance
            distance, var, _ = around_origin()
        return distance + origin, var

    return moments


def bind_channel_sums(x: Array, out: Array, more: bool) -> Callable[[], None]:
    """Prepare the sum of each channel over all positions; ``more`` adds it to ``out``."""
    add = _bind_moments(flat("conv2d_backward", "dy", x, x), np.zeros(x.shape[-1], np.float32))

    def channel_sums() -> None:
        total, _ = add()
        np.copyto(out, out + total if more else total, casting="same_kind")

    return channel_sums
