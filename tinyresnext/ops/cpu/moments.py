"""Sums over the positions of each channel: means, variances, and what gradients of norms need.

Sums over positions are taken of runs of ``RUN`` positions, then of a task's runs, then of all tasks
in float64: no sum is longer than a few hundred terms. The variance is taken around the mean of a
few values of the channel: far from a mean of zero, the difference of the mean of squares and the
square of the mean would have no digits left. The few are of the first samples of a mini-batch, so
that the sums can be taken while later samples are still being computed (`runtime.crew.chains`).
Where they lie far from the others, the sums are taken once more, around the mean of all. No sum
depends on which thread took it or how many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .runtime.crew import Chain, Pace, Step
from .runtime.memory import Array, empty, flat
from .runtime.simd import aligned, stored, value
from .runtime.tasks import finished, in_tasks, next_task

RUN = 32  # positions that are summed in one go
VALUES = 32 * 1024  # of a task, about
# So many positions, about, of as many first samples have the mean that is the origin of a variance.
FEW = 16
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


class Origin(NamedTuple):
    """The numbers of a mean of a few positions: so many, that far from each other."""

    positions: int
    channels: int
    distance: int
    tasks: int


# --- kernels --------------------------------------------------------------------------------------
# Indices are unsigned: a negative one would count from the end, and testing for that keeps loops
# from becoming vectors. So does reading a value only under a condition.


@in_tasks(Origin)
def _origin(x, out, g, counters):
    """Take the mean of a few positions."""
    c = np.uintp(g.channels)
    task = next_task(counters)
    while task < g.tasks:
        for k in range(c):
            out[k] = np.float32(0)
        for position in range(np.uintp(g.positions)):
            p = np.uintp(position) * np.uintp(g.distance) * c
            for k in range(c):
                out[k] += value(x[p + k])
        for k in range(c):
            out[k] /= np.float32(g.positions)
        task = next_task(counters)
    finished(counters)


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


class Summed(NamedTuple):
    """A step that takes two sums over each channel, and where its tasks leave theirs."""

    step: Step
    partial: Array  # [tasks, 2, channels]

    def total(self) -> tuple[Array, Array]:
        """Return both sums, in float64, when the step is done."""
        first, second = self.partial.sum(0, dtype=np.float64)
        return first, second


def pace_of(x: Array, length: int) -> Pace:
    """Return how a pass over values ``[n, h, w, c]`` goes through samples."""
    n, each = len(x), max(1, x.size // max(1, len(x) * x.shape[-1]))
    return Pace(n, each, tasks=1, length=length, light=True)


def gradient_sums(x: Array, norm: Array, y: Array, dy: Array, g: Sums) -> Summed:
    """Prepare the sums of ``dy`` and of ``dy * (x - mean)`` over each channel.

    Parameters
    ----------
    x : [n, h, w, c] float32 or bfloat16
    norm : flat float32
        Begins with the mean, the factor and the shift of each channel.
    y, dy : flat
        As ``x``. With ``g.mask_by_y`` the gradient before the ReLU is written over ``dy``.
    g : Sums
    """
    partial = empty((g.tasks, 2, g.channels))
    arrays = {"x": x.reshape(-1), "norm": norm, "y": y, "dy": dy, "out": partial.reshape(-1)}
    return Summed(Step(_gradient_sums, g, pace_of(x, g.length), **arrays), partial)


def _sums(x: Array, origin: Array) -> Summed:
    """Prepare the sums of ``x - origin`` and of its square over each channel."""
    g = cut(x.size, len(origin))
    partial = empty((g.tasks, 2, g.channels))
    arrays = {"x": x.reshape(-1), "origin": origin, "out": partial.reshape(-1)}
    return Summed(Step(_moments, g, pace_of(x, g.length), **arrays), partial)


def bind_moments(x: Array) -> tuple[list[Step], Callable[[], tuple[Array, Array]]]:
    """Prepare the mean and the biased variance of each channel, in float64.

    Parameters
    ----------
    x : [n, h, w, c] float32 or bfloat16

    Returns
    -------
    steps : list of Step
    found : function
        Returns both, when the steps are done.
    """
    n, c = len(x), x.shape[-1]
    origin, positions = empty((c,)), x.size // c
    summed, each = _sums(x, origin), max(1, x.size // c // max(1, n))
    first = each * min(n, FEW)
    # An odd distance comes to all columns of an image, where these are a power of two.
    distance = first // FEW | 1
    few = Origin(-(-first // distance), c, distance, tasks=1)
    pace = Pace(n, each, tasks=1, length=first)
    start = Step(_origin, few, pace, x=x.reshape(-1), out=origin)

    def around_origin() -> tuple[Array, Array, bool]:
        distance, squares = summed.total()
        distance /= positions
        squares /= positions
        square = distance * distance
        var = np.maximum(squares - square, 0)
        return distance, var, bool((square <= FAR * var).all())  # NaN is far

    def found() -> tuple[Array, Array]:
        distance, var, near = around_origin()
        if not near:
            origin[:] += distance
            summed.step()
            distance, var, _ = around_origin()
        return distance + origin, var

    return [start, summed.step], found


def bind_channel_sums(x: Array, out: Array, more: bool) -> Chain:
    """Prepare the sum of each channel over all positions; ``more`` adds it to ``out``."""
    c = x.shape[-1]
    source = flat("conv2d_backward", "dy", x, x).reshape(x.shape)
    summed = _sums(source, np.zeros(c, np.float32))

    def add() -> None:
        total, _ = summed.total()
        np.copyto(out, out + total if more else total, casting="same_kind")

    return Chain([summed.step, add])
