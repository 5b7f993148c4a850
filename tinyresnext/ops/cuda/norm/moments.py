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
from numba.core import cgutils, types

from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import load4, registers, shared, store4
from ..words.llvm import FLOAT, FOUR, intrinsic
from .tile import COLUMNS, EACH, ROWS, THREADS, even, taken, tiled

RUN = 8  # values whose mean is taken in one go
OWN = 4 * THREADS  # floats of a block: a part for each thread
FEW, MANY = 8, THREADS // 8  # channels and rows of a block of the second kernel


@intrinsic
def merge(typingctx, one, other):
    """Merge two parts ``(n, high, low, squares)``, each of ``n`` values; the second may have none.

    The mean is ``high + low``, and ``squares`` the sum of squared distances from it: with ``d`` the
    distance of the means, the mean moves by ``d m / (n + m)``, and ``squares`` grows by those of
    the other part and ``d^2 n m / (n + m)``.
    """

    def codegen(context, builder, signature, args):
        n, high, low, squares = cgutils.unpack_tuple(builder, args[0])
        m, of_high, of_low, of_squares = cgutils.unpack_tuple(builder, args[1])
        add, sub, mul = builder.fadd, builder.fsub, builder.fmul
        both = add(n, m)
        share = builder.fdiv(m, both)
        distance = add(sub(of_high, high), sub(of_low, low))
        total = add(squares, add(of_squares, mul(mul(distance, distance), mul(n, share))))
        moved = add(low, mul(distance, share))
        mean = add(high, moved)
        merged = both, mean, sub(moved, sub(mean, high)), total
        some = builder.fcmp_ordered(">", m, FLOAT(0))
        each = zip(merged, (n, high, low, squares), strict=True)
        return context.make_tuple(builder, FOUR, [builder.select(some, *pair) for pair in each])

    return FOUR(FOUR, FOUR), codegen


@intrinsic
def part_at(typingctx, memory, i, apart):
    """Return the part whose four numbers begin at ``memory[i]``, each ``apart`` from the last."""

    def codegen(context, builder, signature, args):
        each = [builder.load(at, align=4) for at in _places(builder, *args)]
        return context.make_tuple(builder, FOUR, each)

    return FOUR(floats, types.int32, types.int32), codegen


@intrinsic
def keep(typingctx, memory, i, apart, part):
    """Store a part where `part_at` finds it."""

    def codegen(context, builder, signature, args):
        *place, part = args
        values = cgutils.unpack_tuple(builder, part)
        for at, value in zip(_places(builder, *place), values, strict=True):
            builder.store(value, at, align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int32, types.int32, FOUR), codegen


def _places(builder, memory, i, apart):
    places = [memory]
    for step in (i, apart, apart, apart):
        places.append(builder.gep(places[-1], [step]))
    return [builder.bitcast(at, FLOAT.as_pointer()) for at in places[1:]]


# --- kernels --------------------------------------------------------------------------------------


@cache
def parts_kernel() -> Kernel:
    """Return the kernel of a block's ``parts``, ``n, high, low, squares`` of each channel."""

    def run(x, parts, size, channels, columns, length, tiles, apart):
        own = shared(OWN)
        v = registers(RUN)
        t, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        part, column, c, row, last = taken(t, block, size, channels, columns, length, tiles)
        high = float32(0)
        mine = float32(0), high, high, high
        while row < last:
            count = int32((last - row + int32(ROWS - 1)) // int32(ROWS))
            if count > int32(RUN):
                count = int32(RUN)
            total = float32(0)
            for k in range(RUN):
                v[k] = float32(0)
                if int32(k) < count:
                    v[k] = x[int32((row + int32(k * ROWS)) * columns + column)] - high
                total += v[k]
            m = float32(count)
            mean = total / m
            around = float32(0)
            for k in range(RUN):
                if int32(k) < count:
                    around += (v[k] - mean) * (v[k] - mean)
            mine = merge(mine, (m, high, mean, around))
            high = mine[1]
            row = int32(row + int32(RUN * ROWS))
        keep(own, t, int32(THREADS), mine)
        cuda.syncthreads()
        if t < int32(COLUMNS):
            for k in range(1, ROWS):
                mine = merge(mine, part_at(own, t + int32(k * COLUMNS), int32(THREADS)))
            keep(own, t, int32(THREADS), mine)
        cuda.syncthreads()
        if t < int32(COLUMNS) and t < channels:
            other = int32(t + channels)  # another column of the same channel
            while other < int32(COLUMNS):
                mine = merge(mine, part_at(own, other, int32(THREADS)))
                other = int32(other + channels)
            at = int32((part * apart + c) * int32(EACH))
            store4(parts, at, mine, 16)
            if c == channels - int32(1) and channels < apart:
                none = float32(0)
                store4(parts, int32(at + int32(EACH)), (none, none, none, none), 16)

    return Kernel("moments_parts", run, (floats, floats, *(int32,) * 6), THREADS)


@cache
def whole_kernel() -> Kernel:
    """Return the kernel that merges all parts and computes what follows from them.

    ``norm`` is ``mean, factor, shift, 0`` of each channel, ``statistics`` the mean and the biased
    variance.
    """

    def run(parts, scale, shift, norm, statistics, eps, channels, count, apart):
        own = shared(OWN)
        t = int32(cuda.threadIdx.x)
        column, part = t % int32(FEW), int32(t // int32(FEW))
        c = int32(int32(cuda.blockIdx.x) * int32(FEW) + column)
        none = float32(0)
        mine = none, none, none, none
        while part < count and c < apart:
            here = load4(parts, int32((part * apart + c) * int32(EACH)), 0, 16)
            mine = merge(mine, here)
            part = int32(part + int32(MANY))
        keep(own, t, int32(THREADS), mine)
        cuda.syncthreads()
        if t < int32(FEW) and c < channels:
            for k in range(1, MANY):
                mine = merge(mine, part_at(own, t + int32(k * FEW), int32(THREADS)))
            n, high, low, squares = mine
            mean, var = high + low, squares / n
            each = mean, scale[c] / math.sqrt(var + eps), shift[c], none
            store4(norm, int32(c * int32(EACH)), each, 16)
            statistics[c] = mean
            statistics[c + channels] = var

    pointers, numbers = (floats,) * 5, (float32, *(int32,) * 3)
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
    norm : [even(c), 4]
        Receives the mean, ``scale / sqrt(var + eps)``, the shift and 0 of each channel.
    statistics : [2, c], optional
        Receives the mean and the biased variance.
    """
    g, machine = tiled(x.shape), x.machine
    apart = even(g.channels)
    parts = scratch(machine, (g.parts, apart, EACH))
    kept = scratch(machine, (2, g.channels)) if statistics is None else statistics
    numbers = eps, g.channels, g.parts, apart
    return [
        Launch(parts_kernel(), g.blocks, (x, parts, *g.walk, apart)),
        Launch(whole_kernel(), -(-apart // FEW), (parts, scale, shift, norm, kept, *numbers)),
    ]
