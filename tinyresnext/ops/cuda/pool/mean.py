"""The global mean: of each channel over all positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from numba import cuda

from ... import shapes
from ..runtime.arrays import STORED, DeviceArray, check, empty, empty_like, same_type
from ..runtime.call import Call
from ..runtime.kernel import Kernel, ending, float32, floats, int32, pointer
from ..runtime.machine import Launch
from ..words import get, put, shared
from ..words.whole import quotient
from .window import blocks_of, in_sectors, out_of_sectors

COLUMNS, ROWS = 32, 8  # channels of a block, and threads that share the positions of each
THREADS = COLUMNS * ROWS

# --- kernels --------------------------------------------------------------------------------------


@cache
def mean_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of the means of `COLUMNS` channels of a sample; pixels have ``wide``."""

    def run(x, y, positions, c, wide, tiles):
        own = shared(THREADS)
        t = int32(cuda.threadIdx.x)
        column, row = t % int32(COLUMNS), int32(t // int32(COLUMNS))
        n = quotient(int32(cuda.blockIdx.x), tiles)
        channel = int32((int32(cuda.blockIdx.x) - int32(n * tiles)) * int32(COLUMNS) + column)
        total, position = float32(0), row
        if channel < c:
            while position < positions:
                total += get(x, int32(int32(n * positions + position) * wide + channel))
                position = int32(position + int32(ROWS))
        own[t] = total
        cuda.syncthreads()
        if row == int32(0) and channel < c:
            for k in range(1, ROWS):
                total += own[t + int32(k * COLUMNS)]
            put(y, int32(n * c + channel), total / float32(positions))

    return Kernel(f"mean_pool{ending(kind)}", run, (kind, kind, *(int32,) * 4), THREADS)


@cache
def mean_gradient_kernel() -> Kernel:
    """Return the kernel that gives every position an equal share of its channel's gradient."""

    def run(dy, dx, count, positions, c, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            place = quotient(i, c)
            channel = int32(i - int32(place * c))
            n = quotient(place, positions)
            share = dy[int32(n * c + channel)] / float32(positions)
            if more != int32(0):
                share += dx[i]
            dx[i] = share

    return Kernel("mean_pool_gradient", run, (floats, floats, *(int32,) * 4), THREADS)


# --- public op ------------------------------------------------------------------------------------


def mean_pool(
    x: DeviceArray, *, keepdims: bool = False, out: DeviceArray | None = None
) -> DeviceArray:
    """Make one pass over each sample."""
    shape = shapes.mean_pool(x, keepdims=keepdims, out=out)
    y = empty(check("mean_pool", STORED, x=x), shape, x.dtype) if out is None else out
    bind_mean_pool(x, keepdims=keepdims, out=y)()
    return y


def bind_mean_pool(x: DeviceArray, *, keepdims: bool = False, out: DeviceArray) -> Call:
    """Bind one launch, behind a copy where pixels are no whole sectors."""
    shapes.mean_pool(x, keepdims=keepdims, out=out)
    n, *_, c = x.shape
    machine, tiles = check("mean_pool", STORED, x=x, out=out), -(-c // COLUMNS)
    same_type("mean_pool", x=x, out=out)
    x, first = in_sectors(x)
    arguments = (x, out, x.shape[1] * x.shape[2], c, x.shape[-1], tiles)
    return Call(machine, [*first, Launch(mean_kernel(pointer(x)), n * tiles, arguments)], out)


def mean_pool_backward(
    dy: DeviceArray, y: DeviceArray, x: DeviceArray, *, keepdims: bool = False
) -> tuple[DeviceArray | None, ...]:
    """Share each channel's gradient among all positions."""
    out = empty_like(x)
    bind_mean_pool_backward(dy, y, x, keepdims=keepdims, out=out, more=(False,))()
    return out


def bind_mean_pool_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    keepdims: bool = False,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    machine, (_, h, w, _) = check("mean_pool_backward", dy=dy, dx=out[0]), x.shape
    if out[0] is None:
        return Call(machine, [])
    (dy, first), (dx, add, last) = in_sectors(dy), out_of_sectors(out[0], more[0])
    arguments = (dy, dx, dx.size, h * w, dx.shape[-1], int(add))
    launch = Launch(mean_gradient_kernel(), blocks_of(dx.size), arguments)
    return Call(machine, [*first, launch, *last])
