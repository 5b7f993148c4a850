"""The sums over the positions of each channel that the gradients of norms need, and the gradients.

A first pass sums ``dy`` and ``dy * (x - mean)`` over each block's positions, a second kernel adds
the blocks' sums and computes the gradients of scale and shift, and a last pass writes the gradient
of ``x``. The gradient of a ReLU behind the norm is taken on the way: where there is no residual,
whether it let a value pass is computed from ``x`` again, as the forward pass did it; behind an
addition it is read from the sign of ``y``. No sum depends on the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from numba import cuda

from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import load4, shared, store4
from .moments import FEW, MANY
from .tile import COLUMNS, EACH, ROWS, THREADS, taken, tiled, wide

PASSED, BY_X, BY_Y = 0, 1, 2  # where it is known whether a ReLU let a value pass; 0 where is none
OWN = 2 * THREADS  # floats of a block: two sums for each thread
DX, DR, MORE_DX, MORE_DR = 1, 2, 4, 8  # what `spread` writes, and what it adds to


# --- kernels --------------------------------------------------------------------------------------


@cache
def sums_kernel() -> Kernel:
    """Return the kernel that sums a block's ``dy`` and ``dy * (x - mean)``.

    ``norm`` is ``mean, factor, shift, 0`` of each channel, and ``parts`` are pairs of vectors, each
    `wide`. ``mask`` is `PASSED`, `BY_X` or `BY_Y`.
    """

    def run(x, y, dy, norm, parts, mask, size, channels, columns, length, tiles, apart):
        own = shared(OWN)
        t, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        part, column, c, row, last = taken(t, block, size, channels, columns, length, tiles)
        total, centred = float32(0), float32(0)
        mean, factor, shift, _ = load4(norm, int32(c * int32(EACH)), 0, 16)
        while row < last:
            i = int32(row * columns + column)
            away, d = x[i] - mean, dy[i]
            if mask == int32(BY_X) and not away * factor + shift > float32(0):
                d = float32(0)
            if mask == int32(BY_Y) and not y[i] > float32(0):
                d = float32(0)
            total += d
            centred += d * away
            row = int32(row + int32(ROWS))
        own[t], own[t + THREADS] = total, centred
        cuda.syncthreads()
        if t < int32(COLUMNS):
            for k in range(1, ROWS):
                total += own[t + int32(k * COLUMNS)]
                centred += own[t + int32(k * COLUMNS + THREADS)]
            own[t], own[t + THREADS] = total, centred
        cuda.syncthreads()
        if t < int32(COLUMNS) and t < channels:
            other = int32(t + channels)  # another column of the same channel
            while other < int32(COLUMNS):
                total += own[other]
                centred += own[other + THREADS]
                other = int32(other + channels)
            at = int32(part * int32(2) * apart + c)
            parts[at], parts[at + apart] = total, centred
            if c == channels - int32(1):
                for k in range(at + int32(1), at + apart - c):
                    parts[k], parts[k + apart] = float32(0), float32(0)

    pointers, numbers = (floats,) * 5, (int32,) * 7
    return Kernel("norm_sums", run, (*pointers, *numbers), THREADS)


@cache
def gradients_kernel() -> Kernel:
    """Return the kernel that adds all parts, and computes the gradients of one value a channel.

    ``means`` receives for each channel ``mean(dy), mean(dy * (x - mean)) / (var + eps)`` and the
    sums, that of ``dy`` last. Where a bit of ``more`` is set, the gradient of the scale or that of
    the shift is added to what is there.
    """

    def run(parts, var, means, dscale, dshift, eps, positions, channels, count, more, apart):
        own = shared(OWN)
        t = int32(cuda.threadIdx.x)
        column, row = t % int32(FEW), int32(t // int32(FEW))
        c = int32(int32(cuda.blockIdx.x) * int32(FEW) + column)
        total, centred = float32(0), float32(0)
        part = row
        while part < count:
            at = int32(part * int32(2) * apart + c)
            total += parts[at]
            centred += parts[at + apart]
            part = int32(part + int32(MANY))
        own[t], own[t + THREADS] = total, centred
        cuda.syncthreads()
        if row == int32(0) and c < channels:
            for k in range(1, MANY):
                total += own[t + int32(k * FEW)]
                centred += own[t + int32(k * FEW + THREADS)]
            spread, values = var[c] + eps, float32(positions)
            gradient = centred / math.sqrt(spread)
            each = total / values, centred / spread / values, centred, total
            store4(means, int32(c * int32(EACH)), each, 16)
            if more & int32(1) != int32(0):
                gradient += dscale[c]
            dscale[c] = gradient
            if more & int32(2) != int32(0):
                total += dshift[c]
            dshift[c] = total

    pointers, numbers = (floats,) * 5, (float32, *(int32,) * 5)
    return Kernel("norm_gradients", run, (*pointers, *numbers), THREADS)


@cache
def spread_kernel() -> Kernel:
    """Return the kernel of ``dx = factor * (d - a - b * (x - mean))``, d the gradient before ReLU.

    ``norm`` is ``mean, factor, shift, 0`` of each channel, and ``means`` begins with ``a, b``. The
    bits of ``wanted`` are `DX` and `DR`, the gradient of the residual, which is d, and that these
    are added to what is there. Either may lie over ``dy``: a thread reads a place before it writes
    there.
    """

    def run(
        x, y, dy, norm, means, dx, dr, mask, wanted, size, channels, columns, length, tiles
    ):  # fmt: skip
        t, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        _, column, c, row, last = taken(t, block, size, channels, columns, length, tiles)
        mean, factor, shift, _ = load4(norm, int32(c * int32(EACH)), 0, 16)
        a, b, _, _ = load4(means, int32(c * int32(EACH)), 0, 16)
        while row < last:
            i = int32(row * columns + column)
            away, d = x[i] - mean, dy[i]
            if mask == int32(BY_X) and not away * factor + shift > float32(0):
                d = float32(0)
            if mask == int32(BY_Y) and not y[i] > float32(0):
                d = float32(0)
            if wanted & int32(DX) != int32(0):
                gradient = factor * (d - a - b * away)
                if wanted & int32(MORE_DX) != int32(0):
                    gradient += dx[i]
                dx[i] = gradient
            if wanted & int32(DR) != int32(0):
                if wanted & int32(MORE_DR) != int32(0):
                    d += dr[i]
                dr[i] = d
            row = int32(row + int32(ROWS))

    pointers, numbers = (floats,) * 7, (int32,) * 7
    return Kernel("norm_spread", run, (*pointers, *numbers), THREADS)


# --- launches -------------------------------------------------------------------------------------


class Given(NamedTuple):
    """What gradients of a norm are computed from; ``norm`` is as `moments` leaves it."""

    x: DeviceArray
    y: DeviceArray | None
    dy: DeviceArray
    norm: DeviceArray
    var: DeviceArray
    eps: float
    mask: int


def summed(
    given: Given, means: DeviceArray, out: Sequence[DeviceArray | None], more: Sequence[bool]
) -> list[Launch]:
    """Return the launches that sum, and that write the gradients of scale and shift.

    ``means`` is memory of [even(c), 4] values, for `spread`.
    """
    x, y, dy, norm, var, eps, mask = given
    g, machine = tiled(x.shape), x.machine
    apart = wide(g.channels)
    parts = scratch(machine, (g.parts, 2, apart))
    dscale, dshift = (scratch(machine, (g.channels,)) if a is None else a for a in out)
    added = sum(bit for bit, a, add in zip((1, 2), out, more, strict=True) if a and add)
    numbers = eps, g.positions, g.channels, g.parts, added, apart
    return [
        Launch(sums_kernel(), g.blocks, (x, y or x, dy, norm, parts, mask, *g.walk, apart)),
        Launch(gradients_kernel(), apart // FEW, (parts, var, means, dscale, dshift, *numbers)),
    ]


def spread(
    given: Given,
    means: DeviceArray,
    dx: DeviceArray | None,
    dr: DeviceArray | None,
    more: tuple[bool, bool],
) -> list[Launch]:
    """Return the launch that writes the gradients of ``x`` and of the residual."""
    x, y, dy, norm, _, _, mask = given
    g = tiled(x.shape)
    bits = zip((DX, DR, MORE_DX, MORE_DR), (dx, dr, dx and more[0], dr and more[1]), strict=True)
    wanted = sum(bit for bit, on in bits if on)
    numbers = mask, wanted, *g.walk
    blocks = g.blocks if wanted else 0
    return [Launch(spread_kernel(), blocks, (x, y or x, dy, norm, means, dx, dr, *numbers))]
