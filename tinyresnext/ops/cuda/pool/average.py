"""The pooling that takes the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from numba import cuda

from ... import shapes
from ...checks import Pair
from ..runtime.arrays import STORED, DeviceArray, check, empty, empty_like, same_type
from ..runtime.call import Call
from ..runtime.kernel import Kernel, ending, float32, floats, int32, pointer
from ..runtime.machine import Launch
from ..words import get, put
from ..words.whole import located, reaching
from .window import NUMBERS, THREADS, blocks_of, in_sectors, numbers, out_of_sectors

# --- kernels --------------------------------------------------------------------------------------
# How many places of a window count: those inside the image, or with `padded` inside the padded one.


@cache
def average_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel that divides the sum of each window by the number of places that count."""

    def run(x, y, count, padded, h, w, c, h_out, w_out, k_h, k_w, s_h, s_w, p_h, p_w):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, line, column, channel = located(i, h_out, w_out, c)
            top, left = int32(line * s_h - p_h), int32(column * s_w - p_w)
            total, places = float32(0), int32(0)
            for a in range(k_h):
                row = int32(top + int32(a))
                down = row >= int32(0) and row < h
                for b in range(k_w):
                    column = int32(left + int32(b))
                    inside = down and column >= int32(0) and column < w
                    if inside:
                        at = int32(int32(int32(n * h + row) * w + column) * c + channel)
                        total += get(x, at)
                    beyond = row >= int32(h + p_h) or column >= int32(w + p_w)
                    if inside or (padded != int32(0) and not beyond):
                        places = int32(places + int32(1))
            put(y, i, total / float32(places))

    return Kernel(f"avg_pool{ending(kind)}", run, (kind, kind, int32, int32, *NUMBERS), THREADS)


@cache
def average_gradient_kernel() -> Kernel:
    """Return the kernel of the gradient of each place: a share of that of each of its windows."""

    def run(dy, dx, count, padded, more, h, w, c, h_out, w_out, k_h, k_w, s_h, s_w, p_h, p_w):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, line, column, channel = located(i, h, w, c)
            row, column = int32(line + p_h), int32(column + p_w)
            first_line, last_line = reaching(row, k_h, s_h, h_out)
            first_column, last_column = reaching(column, k_w, s_w, w_out)
            low, down, across = int32(0), int32(h + p_h), int32(w + p_w)
            if padded == int32(0):
                low = int32(1)
            else:
                down, across = int32(down + p_h), int32(across + p_w)
            total = float32(0)
            for u in range(first_line, int32(last_line + int32(1))):
                top = int32(int32(u) * s_h)  # in the padded image
                bottom = int32(top + k_h)
                if bottom > down:
                    bottom = down
                if low != int32(0) and top < p_h:
                    top = p_h
                for v in range(first_column, int32(last_column + int32(1))):
                    left = int32(int32(v) * s_w)
                    right = int32(left + k_w)
                    if right > across:
                        right = across
                    if low != int32(0) and left < p_w:
                        left = p_w
                    places = int32(int32(bottom - top) * int32(right - left))
                    of = int32(int32(n * h_out + int32(u)) * w_out + int32(v))
                    total += dy[int32(of * c + channel)] / float32(places)
            if more != int32(0):
                total += dx[i]
            dx[i] = total

    kinds = (floats, floats, int32, int32, int32, *NUMBERS)
    return Kernel("avg_pool_gradient", run, kinds, THREADS)


# --- public op ------------------------------------------------------------------------------------


def avg_pool2d(
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute the mean of each window, a thread for each."""
    shape = shapes.avg_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    y = empty(check("avg_pool2d", STORED, x=x), shape, x.dtype) if out is None else out
    bind_avg_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, out=y,
    )()  # fmt: skip
    return y


def bind_avg_pool2d(
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: DeviceArray,
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    shapes.avg_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out)
    machine = check("avg_pool2d", STORED, x=x, out=out)
    same_type("avg_pool2d", x=x, out=out)
    (x, first), (y, _, last) = in_sectors(x), out_of_sectors(out)
    given = numbers(x.shape, y.shape, size, stride, padding)
    arguments = (x, y, y.size, int(count_include_pad), *given)
    launch = Launch(average_kernel(pointer(x)), blocks_of(y.size), arguments)
    return Call(machine, [*first, launch, *last], out)


def avg_pool2d_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[DeviceArray | None, ...]:
    """Share each window's gradient among its places."""
    out = empty_like(x)
    bind_avg_pool2d_backward(
        dy, y, x, size=size, stride=stride, padding=padding, count_include_pad=count_include_pad,
        out=out, more=(False,),
    )()  # fmt: skip
    return out


def bind_avg_pool2d_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    machine = check("avg_pool2d_backward", dy=dy, dx=out[0])
    if out[0] is None:
        return Call(machine, [])
    (dy, first), (dx, add, last) = in_sectors(dy), out_of_sectors(out[0], more[0])
    given = numbers(dx.shape, dy.shape, size, stride, padding)
    arguments = (dy, dx, dx.size, int(count_include_pad), int(add), *given)
    launch = Launch(average_gradient_kernel(), blocks_of(dx.size), arguments)
    return Call(machine, [*first, launch, *last])
