"""The pooling that takes the largest value of each window."""

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


@cache
def maximum_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of the largest value of each window; one that is not a number wins."""

    def run(x, y, count, h, w, c, h_out, w_out, k_h, k_w, s_h, s_w, p_h, p_w):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, line, column, channel = located(i, h_out, w_out, c)
            top, left = int32(line * s_h - p_h), int32(column * s_w - p_w)
            best = float32(-float("inf"))
            for a in range(k_h):
                row = int32(top + int32(a))
                if row >= int32(0) and row < h:
                    for b in range(k_w):
                        column = int32(left + int32(b))
                        if column >= int32(0) and column < w:
                            at = int32(int32(int32(n * h + row) * w + column) * c + channel)
                            value = get(x, at)
                            if value > best or value != value:
                                best = value
            put(y, i, best)

    return Kernel(f"max_pool{ending(kind)}", run, (kind, kind, int32, *NUMBERS), THREADS)


@cache
def maximum_gradient_kernel() -> Kernel:
    """Return the kernel of the gradient of each place: of the windows whose first largest it is."""

    def run(x, dy, dx, count, more, h, w, c, h_out, w_out, k_h, k_w, s_h, s_w, p_h, p_w):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, line, column, channel = located(i, h, w, c)
            row, column = int32(line + p_h), int32(column + p_w)
            # The windows that have this place: from the first that reaches it to that above it.
            first_line, last_line = reaching(row, k_h, s_h, h_out)
            first_column, last_column = reaching(column, k_w, s_w, w_out)
            total = float32(0)
            for u in range(first_line, int32(last_line + int32(1))):
                for v in range(first_column, int32(last_column + int32(1))):
                    top = int32(int32(int32(u) * s_h) - p_h)
                    left = int32(int32(int32(v) * s_w) - p_w)
                    best, where = float32(0), int32(-1)
                    for a in range(k_h):
                        y_in = int32(top + int32(a))
                        if y_in >= int32(0) and y_in < h:
                            for b in range(k_w):
                                x_in = int32(left + int32(b))
                                if x_in >= int32(0) and x_in < w:
                                    at = int32(int32(int32(n * h + y_in) * w + x_in) * c + channel)
                                    value = x[at]
                                    larger = value > best or (value != value and best == best)
                                    if where < int32(0) or larger:
                                        best, where = value, at
                    if where == i:
                        of = int32(int32(n * h_out + int32(u)) * w_out + int32(v))
                        total += dy[int32(of * c + channel)]
            if more != int32(0):
                total += dx[i]
            dx[i] = total

    kinds = (floats, floats, floats, int32, int32, *NUMBERS)
    return Kernel("max_pool_gradient", run, kinds, THREADS)


# --- public op ------------------------------------------------------------------------------------


def max_pool2d(
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute the maximum of each window, a thread for each."""
    shape = shapes.max_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    y = empty(check("max_pool2d", STORED, x=x), shape, x.dtype) if out is None else out
    bind_max_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=y)()
    return y


def bind_max_pool2d(
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: DeviceArray,
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    shapes.max_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out)
    machine = check("max_pool2d", STORED, x=x, out=out)
    same_type("max_pool2d", x=x, out=out)
    (x, first), (y, _, last) = in_sectors(x), out_of_sectors(out)
    given = numbers(x.shape, y.shape, size, stride, padding)
    launch = Launch(maximum_kernel(pointer(x)), blocks_of(y.size), (x, y, y.size, *given))
    return Call(machine, [*first, launch, *last], out)


def max_pool2d_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
) -> tuple[DeviceArray | None, ...]:
    """Look for the place of the largest value again, window by window."""
    out = empty_like(x)
    bind_max_pool2d_backward(
        dy, y, x, size=size, stride=stride, padding=padding, out=out, more=(False,)
    )()
    return out


def bind_max_pool2d_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind one launch, between copies where pixels are no whole sectors."""
    machine = check("max_pool2d_backward", dy=dy, x=x, dx=out[0])
    if out[0] is None:
        return Call(machine, [])
    (x, first), (dy, second), (dx, add, last) = (
        in_sectors(x),
        in_sectors(dy),
        out_of_sectors(out[0], more[0]),
    )
    given = numbers(x.shape, dy.shape, size, stride, padding)
    arguments = (x, dy, dx, dx.size, int(add), *given)
    launch = Launch(maximum_gradient_kernel(), blocks_of(dx.size), arguments)
    return Call(machine, [*first, *second, launch, *last])
