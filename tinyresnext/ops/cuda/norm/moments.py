"""Mean and variance of each channel, in one pass over the values.

The difference of the mean of squares and the square of the mean would have no digits left far from
a mean of zero. So every part of the positions has a mean and a sum of squared distances from it,
and two parts are merged exactly as Chan, Golub and LeVeque (1979) say. No value is special: where
the first one lies far from the others, nothing is lost. A mean is kept as a sum of two numbers, the
second being what the first has lost in rounding.

`merge` is the formula; the first kernel applies it to runs of `RUN` values, to the rows of a block,
the second to all blocks, and then computes what the norm multiplies by and adds.
"""

from __future__ import annotations

import math
from functools import cache

from numba import cuda
from numba.core import types

from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import registers, shared
from ..words.llvm import FOUR, intrinsic
from .tile import COLUMNS, ROWS, THREADS, tiled

RUN = 8  # values whose mean is taken in one go
OWN = 4 * THREADS  # floats of a block: a part for each thread
FEW, MANY = 8, THREADS // 8  # channels and rows of a block of the second kernel


@intrinsic
def merge(typingctx, n, high, low, squares, m, of_high, of_low, of_squares):
    """Merge a part of ``n`` values with another of ``m``, at least one.

    Returns ``(n + m, high, low, squares)``. The mean is ``high + low``, and ``squares`` the sum of
    squared distances from it: with ``d`` the distance of the means, the mean moves by ``d m / (n +
    m)``, and ``squares`` grows by those of the other part and ``d^2 n m / (n + m)``.
    """

    def codegen(context, builder, signature, args):
        n, high, low, squares, m, of_high, of_low, of_squares = args
        add, sub, mul = builder.fadd, builder.fsub, builder.fmul
        both = add(n, m)
        share = builder.fdiv(m, both)
        distance = add(sub(of_high, high), sub(of_low, low))
        squares = add(squares, add(of_squares, mul(mul(distance, distance), mul(n, share))))
        low = add(low, mul(distance, share))
        mean = add(high, low)
        low = sub(low, sub(mean, high))
        return context.make_tuple(builder, FOUR, [both, mean, low, squares])

    return FOUR(*[types.float32] * 8), codegen


# --- kernels --------------------------------------------------------------------------------------


@cache
def parts_kernel() -> Kernel:
    """Return the kernel of each block's part: ``parts[chunk] = [high, low, squares]``."""

    def run(x, parts, positions, channels, length, tiles):
        own = shared(OWN)
        v = registers(RUN)
        column = int32(cuda.threadIdx.x) % int32(COLUMNS)
        row = int32(int32(cuda.threadIdx.x) // int32(COLUMNS))
        chunk = int32(int32(cuda.blockIdx.x) // tiles)
        c = int32((int32(cuda.blockIdx.x) - int32(chunk * tiles)) * int32(COLUMNS) + column)
        first = int32(chunk * length)
        last = int32(first + length)
        if last > positions:
            last = positions
        first = int32(first + row)
        n, high, low, squares = float32(0), float32(0), float32(0), float32(0)
        if c < channels:
            while first < last:
                count = int32((last - first + int32(ROWS - 1)) // int32(ROWS))
                if count > int32(RUN):
                    count = int32(RUN)
                total = float32(0)
                for k in range(RUN):
                    v[k] = float32(0)
                    if int32(k) < count:
                        v[k] = x[int32((first + int32(k * ROWS)) * channels + c)] - high
                    total += v[k]
                m = float32(count)
                mean = total / m
                around = float32(0)
                for k in range(RUN):
                    if int32(k) < count:
                        around += (v[k] - mean) * (v[k] - mean)
                n, high, low, squares = merge(n, high, low, squares, m, high, mean, around)
                first = int32(first + int32(RUN * ROWS))
        t = int32(cuda.threadIdx.x)
        own[t], own[t + THREADS], own[t + 2 * THREADS] = n, high, low
        own[t + 3 * THREADS] = squares
        cuda.syncthreads()
        if row == int32(0) and c < channels:
            for k in range(1, ROWS):
                other = int32(t + int32(k * COLUMNS))
                m = own[other]
                if m > float32(0):
                    n, high, low, squares = merge(
                        n, high, low, squares,
                        m, own[other + THREADS], own[other + 2 * THREADS],
                        own[other + 3 * THREADS],
                    )  # fmt: skip
            at = int32(chunk * int32(3) * channels + c)
            parts[at], parts[at + channels], parts[at + channels + channels] = high, low, squares

    return Kernel("moments_parts", run, (floats, floats, int32, int32, int32, int32), THREADS)


@cache
def whole_kernel() -> Kernel:
    """Return the kernel that merges all parts and computes what follows from them.

    ``norm`` is ``[mean, factor, shift]``, ``statistics`` the mean and the biased variance.
    """

    def run(parts, scale, shift, norm, statistics, eps, positions, channels, length, chunks):
        own = shared(OWN)
        t = int32(cuda.threadIdx.x)
        column, row = t % int32(FEW), int32(t // int32(FEW))
        c = int32(int32(cuda.blockIdx.x) * int32(FEW) + column)
        n, high, low, squares = float32(0), float32(0), float32(0), float32(0)
        if c < channels:
            chunk = row
            while chunk < chunks:
                m = float32(length)
                if chunk == chunks - int32(1):
                    m = float32(positions - int32(chunk * length))
                at = int32(chunk * int32(3) * channels + c)
                n, high, low, squares = merge(
                    n, high, low, squares,
                    m, parts[at], parts[at + channels], parts[at + channels + channels],
                )  # fmt: skip
                chunk = int32(chunk + int32(MANY))
        own[t], own[t + THREADS], own[t + 2 * THREADS] = n, high, low
        own[t + 3 * THREADS] = squares
        cuda.syncthreads()
        if row == int32(0) and c < channels:
            for k in range(1, MANY):
                other = int32(t + int32(k * FEW))
                m = own[other]
                if m > float32(0):
                    n, high, low, squares = merge(
                        n, high, low, squares,
                        m, own[other + THREADS], own[other + 2 * THREADS],
                        own[other + 3 * THREADS],
                    )  # fmt: skip
            mean, var = high + low, squares / float32(positions)
            norm[c] = mean
            norm[c + channels] = scale[c] / math.sqrt(var + eps)
            norm[c + channels + channels] = shift[c]
            statistics[c] = mean
            statistics[c + channels] = var

    pointers, numbers = (floats,) * 5, (float32, int32, int32, int32, int32)
    return Kernel("moments_whole", run, (*pointers, *numbers), THREADS)


# --- launches -------------------------------------------------------------------------------------


def moments(
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    norm: DeviceArray,
    statistics: DeviceArray | None,
    eps: float,
) -> list[Launch]:
    """Return the launches that compute mean and variance of ``x`` [..., c].

    Parameters
    ----------
    norm : at least [3 * c]
        Receives the mean, ``scale / sqrt(var + eps)`` and the shift of each channel.
    statistics : [2, c], optional
        Receives the mean and the biased variance.
    """
    g, machine = tiled(x.shape), x.machine
    parts = scratch(machine, (g.chunks, 3, g.channels))
    kept = scratch(machine, (2, g.channels)) if statistics is None else statistics
    return [
        Launch(parts_kernel(), g.blocks, (x, parts, g.positions, g.channels, g.length, g.tiles)),
        Launch(
            whole_kernel(),
            -(-g.channels // FEW),
            (parts, scale, shift, norm, kept, eps, g.positions, g.channels, g.length, g.chunks),
        ),
    ]
