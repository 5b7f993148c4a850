"""The blur pooling: a fixed binomial filter, and a stride."""

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
from ..words import get, put
from ..words.whole import located, quotient
from .window import THREADS, blocks_of, in_sectors, out_of_sectors

# --- kernels --------------------------------------------------------------------------------------


@cache
def blur_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of ``[1 2 1] x [1 2 1] / 16`` around a place, with reflected edges."""

    def run(x, y, count, h, w, c, h_out, w_out, stride):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, line, column, channel = located(i, h_out, w_out, c)
            top, left = int32(line * stride), int32(column * stride)
            total = float32(0)
            for a in range(-1, 2):
                row, down = int32(top + int32(a)), float32(0.5) if a == 0 else float32(0.25)
                if row < int32(0):
                    row = int32(1)
                if row >= h:
                    row = int32(h - int32(2))
                for b in range(-1, 2):
                    column = int32(left + int32(b))
                    if column < int32(0):
                        column = int32(1)
                    if column >= w:
                        column = int32(w - int32(2))
                    across = float32(0.5) if b == 0 else float32(0.25)
                    at = int32(int32(int32(n * h + row) * w + column) * c + channel)
                    total += down * across * get(x, at)
            put(y, i, total)

    return Kernel(f"blur_pool{ending(kind)}", run, (kind, kind, *(int32,) * 7), THREADS)


@cache
def blur_gradient_kernel() -> Kernel:
    """Return the kernel of the gradient of each place, from the results within one of it.

    The place behind an edge's line is read a second time, as the line that the edge reflects.
    """

    def run(dy, dx, count, h, w, c, h_out, w_out, stride, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, row, column, channel = located(i, h, w, c)
            total = float32(0)
            for a in range(-1, 2):
                centre = int32(row + int32(a))
                if centre >= int32(0) and centre < h:
                    u = quotient(centre, stride)
                    down = float32(0.5) if a == 0 else float32(0.25)
                    # The first line reads line 1 twice, the last one the line before it.
                    if a == -1 and centre == int32(0):
                        down += float32(0.25)
                    if a == 1 and centre == int32(h - int32(1)):
                        down += float32(0.25)
                    if int32(u * stride) == centre and u < h_out:
                        for b in range(-1, 2):
                            middle = int32(column + int32(b))
                            if middle >= int32(0) and middle < w:
                                v = quotient(middle, stride)
                                across = float32(0.5) if b == 0 else float32(0.25)
                                if b == -1 and middle == int32(0):
                                    across += float32(0.25)
                                if b == 1 and middle == int32(w - int32(1)):
                                    across += float32(0.25)
                                if int32(v * stride) == middle and v < w_out:
                                    of = int32(int32(n * h_out + u) * w_out + v)
                                    total += down * across * dy[int32(of * c + channel)]
            if more != int32(0):
                total += dx[i]
            dx[i] = total

    return Kernel("blur_pool_gradient", run, (floats, floats, *(int32,) * 8), THREADS)


# --- public op ------------------------------------------------------------------------------------


def blur_pool(x: DeviceArray, *, stride: int = 2, out: DeviceArray | None = None) -> DeviceArray:
    """Filter, a thread for each value of the result."""
    shape = shapes.blur_pool(x, stride=stride, out=out)
    y = empty(check("blur_pool", STORED, x=x), shape, x.dtype) if out is None else out
    bind_blur_pool(x, stride=stride, out=y)()
    return y


def bind_blur_pool(x: DeviceArray, *, stride: int = 2, out: DeviceArray) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    shapes.blur_pool(x, stride=stride, out=out)
    machine = check("blur_pool", STORED, x=x, out=out)
    same_type("blur_pool", x=x, out=out)
    (x, first), (y, _, last) = in_sectors(x), out_of_sectors(out)
    (_, h, w, c), (_, h_out, w_out, _) = x.shape, y.shape
    arguments = (x, y, y.size, h, w, c, h_out, w_out, stride)
    launch = Launch(blur_kernel(pointer(x)), blocks_of(y.size), arguments)
    return Call(machine, [*first, launch, *last], out)


def blur_pool_backward(
    dy: DeviceArray, y: DeviceArray, x: DeviceArray, *, stride: int = 2
) -> tuple[DeviceArray | None, ...]:
    """Add what reaches each value, a thread for each."""
    out = empty_like(x)
    bind_blur_pool_backward(dy, y, x, stride=stride, out=out, more=(False,))()
    return out


def bind_blur_pool_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    stride: int = 2,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    machine = check("blur_pool_backward", dy=dy, dx=out[0])
    if out[0] is None:
        return Call(machine, [])
    (dy, first), (dx, add, last) = in_sectors(dy), out_of_sectors(out[0], more[0])
    (_, h, w, c), (_, h_out, w_out, _) = dx.shape, dy.shape
    arguments = (dy, dx, dx.size, h, w, c, h_out, w_out, stride, int(add))
    launch = Launch(blur_gradient_kernel(), blocks_of(dx.size), arguments)
    return Call(machine, [*first, launch, *last])
