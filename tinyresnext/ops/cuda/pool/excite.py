"""The scaling of channels by squeeze and excitation, and its gradients.

The forward pass adds the residual and rectifies on the way: a block ends in one pass over memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from numba import cuda

from ... import shapes
from ..runtime.arrays import STORED, DeviceArray, check, empty, empty_like, same_type
from ..runtime.call import Call
from ..runtime.kernel import Kernel, ending, float32, floats, halves, int32, pointer
from ..runtime.machine import Launch
from ..words import get, put, shared
from ..words.whole import quotient
from .window import THREADS, blocks_of, in_sectors, out_of_sectors

COLUMNS, ROWS = 32, 8  # channels of a block that sums, and threads that share their positions
SUMMING = COLUMNS * ROWS
DX, DR, MORE_DX, MORE_DR = 1, 2, 4, 8  # what the gradient's kernel writes, and what it adds to

# --- kernels --------------------------------------------------------------------------------------


@cache
def excite_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of ``y = x * sigmoid(s) + residual``, and then of the ReLU.

    In float16 minus infinity becomes what is not a number, as in `floor4_or_nan`.
    """
    NARROW = kind == halves

    def run(x, s, residual, y, count, per_sample, c, add, relu):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n = quotient(i, per_sample)
            channel = int32(i - int32(quotient(i, c) * c))
            v = get(s, int32(n * c + channel))
            small = math.exp(-v if v > float32(0) else v)
            scale = (small if v < float32(0) else float32(1)) / (float32(1) + small)
            value = get(x, i) * scale
            if add != int32(0):
                value += get(residual, i)
            if relu != int32(0) and value <= float32(0):
                value = value - value if NARROW else float32(0)
            put(y, i, value)

    return Kernel(f"excite{ending(kind)}", run, (*(kind,) * 4, *(int32,) * 5), THREADS)


@cache
def excite_gradient_kernel() -> Kernel:
    """Return the kernel of the gradients of ``x`` and of the residual; either may lie over ``dy``.

    The bits of ``wanted`` are `DX` and `DR`, and that these are added to what is there.
    """

    def run(s, y, dy, dx, dr, count, per_sample, c, relu, wanted):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n = quotient(i, per_sample)
            channel = int32(i - int32(quotient(i, c) * c))
            d = dy[i]
            if relu != int32(0) and not y[i] > float32(0):
                d = float32(0)
            if wanted & int32(DX) != int32(0):
                v = s[int32(n * c + channel)]
                small = math.exp(-v if v > float32(0) else v)
                gradient = d * ((small if v < float32(0) else float32(1)) / (float32(1) + small))
                if wanted & int32(MORE_DX) != int32(0):
                    gradient += dx[i]
                dx[i] = gradient
            if wanted & int32(DR) != int32(0):
                if wanted & int32(MORE_DR) != int32(0):
                    d += dr[i]
                dr[i] = d

    return Kernel("excite_gradient", run, (*(floats,) * 5, *(int32,) * 5), THREADS)


@cache
def excite_sums_kernel() -> Kernel:
    """Return the kernel of the gradient of ``s``: of `COLUMNS` channels of a sample in a block.

    Pixels of the images have ``wide`` channels, of which ``c`` count.
    """

    def run(x, s, y, dy, ds, positions, c, wide, tiles, relu, more):
        own = shared(SUMMING)
        t = int32(cuda.threadIdx.x)
        column, row = t % int32(COLUMNS), int32(t // int32(COLUMNS))
        n = quotient(int32(cuda.blockIdx.x), tiles)
        channel = int32((int32(cuda.blockIdx.x) - int32(n * tiles)) * int32(COLUMNS) + column)
        total, position = float32(0), row
        if channel < c:
            while position < positions:
                i = int32(int32(n * positions + position) * wide + channel)
                product = dy[i] * x[i]
                if relu != int32(0) and not y[i] > float32(0):
                    product = float32(0)
                total += product
                position = int32(position + int32(ROWS))
        own[t] = total
        cuda.syncthreads()
        if row == int32(0) and channel < c:
            for k in range(1, ROWS):
                total += own[t + int32(k * COLUMNS)]
            at = int32(n * c + channel)
            # a (1 - a) is the same for s and -s.
            small = math.exp(-s[at] if s[at] > float32(0) else s[at])
            total *= small / ((float32(1) + small) * (float32(1) + small))
            if more != int32(0):
                total += ds[at]
            ds[at] = total

    return Kernel("excite_sums", run, (*(floats,) * 5, *(int32,) * 6), SUMMING)


# --- public op ------------------------------------------------------------------------------------


def excite(
    x: DeviceArray,
    s: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    relu: bool = False,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Make one pass over the values."""
    shape = shapes.excite(x, s, residual, relu=relu, out=out)
    y = empty(check("excite", STORED, x=x), shape, x.dtype) if out is None else out
    bind_excite(x, s, residual, relu=relu, out=y)()
    return y


def bind_excite(
    x: DeviceArray,
    s: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    relu: bool = False,
    out: DeviceArray,
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    _, h, w, _ = shapes.excite(x, s, residual, relu=relu, out=out)
    machine = check("excite", STORED, x=x, s=s, residual=residual, out=out)
    same_type("excite", x=x, s=s, residual=residual, out=out)
    (x, first), (s, second) = in_sectors(x), in_sectors(s)
    residual, third = (None, []) if residual is None else in_sectors(residual)
    place, _, last = out_of_sectors(out)
    c = x.shape[-1]
    numbers = (x.size, h * w * c, c, int(residual is not None), int(relu))
    given = (x, s, residual, place, *numbers)
    launch = Launch(excite_kernel(pointer(x)), blocks_of(x.size), given)
    return Call(machine, [*first, *second, *third, launch, *last], out)


def excite_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    s: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    relu: bool = False,
) -> tuple[DeviceArray | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, s, residual)
    bind_excite_backward(dy, y, x, s, residual, relu=relu, out=out, more=(False,) * 3)()
    return out


def bind_excite_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    s: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    relu: bool = False,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind the launches of the gradients that are wanted; what may lie over ``dy`` comes last."""
    dx, ds, dr = (*out, None)[:3]
    dr = None if residual is None else dr
    machine = check("excite_backward", dy=dy, x=x, s=s, dx=dx, ds=ds, dr=dr)
    if dx is ds is dr is None:
        return Call(machine, [])
    (n, h, w, c), tiles = x.shape, -(-x.shape[-1] // COLUMNS)
    (x, first), (dy, second) = in_sectors(x), in_sectors(dy)
    y, third = in_sectors(y) if relu else (y, [])
    launches = [*(first if ds is not None else []), *second, *third]
    if ds is not None:
        numbers = (h * w, c, x.shape[-1], tiles, int(relu), int(more[1]))
        launches.append(Launch(excite_sums_kernel(), n * tiles, (x, s, y, dy, ds, *numbers)))
    if dx is not None or dr is not None:
        launches += _spread(s, y, dy, (dx, dr), h * w, relu, (more[0], dr is not None and more[2]))
    return Call(machine, launches)


def _spread(
    s: DeviceArray,
    y: DeviceArray,
    dy: DeviceArray,
    out: tuple[DeviceArray | None, DeviceArray | None],
    positions: int,
    relu: bool,
    more: tuple[bool, bool],
) -> list[Launch]:
    """Return the launches of the gradients of ``x`` and of the residual, if they are wanted."""
    (s, launches), c, wanted = in_sectors(s), dy.shape[-1], 0
    places: list[DeviceArray | None] = []
    last: list[Launch] = []
    for place, add, bits in zip(out, more, ((DX, MORE_DX), (DR, MORE_DR)), strict=True):
        if place is not None:
            place, add, narrow = out_of_sectors(place, add)
            wanted, last = wanted | bits[0] | (bits[1] if add else 0), [*last, *narrow]
        places.append(place)
    numbers = (dy.size, positions * c, c, int(relu), wanted)
    given = (s, y, dy, *places, *numbers)
    return [*launches, Launch(excite_gradient_kernel(), blocks_of(dy.size), given), *last]
