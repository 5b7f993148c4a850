"""The softmax and its gradient. A warp has one sample; its threads share the classes.

A thread takes the largest logit, or a sum, of every 32nd class, and exchanges in the warp join
these, in the same order in every run: neither shared memory nor a barrier is needed.

Rows that begin inside a sector of 32 bytes may touch more sectors than they fill. Such rows are
filled up with zeros first: so they lie ``wide`` values apart, of which ``classes`` count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from math import gcd

from numba import cuda

from ... import shapes
from ..pool.window import SECTOR_BYTES, in_sectors, out_of_sectors
from ..runtime.arrays import DeviceArray, check, empty, empty_like
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import warp_larger, warp_sum

THREADS = 32  # of a block: one warp
LOWEST = float("-inf")
SECTOR = SECTOR_BYTES // 4  # values

# --- kernels --------------------------------------------------------------------------------------


@cache
def softmax_kernel() -> Kernel:
    """Return the kernel of ``exp(x - m) / sum(exp(x - m))``, m the largest value of a row.

    What only fills a row up gets a value as well: a copy reads whole sectors.
    """

    def run(x, y, classes, wide):
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * wide)
        end = int32(start + classes)
        largest, total = float32(LOWEST), float32(0)
        i = int32(start + t)
        while i < end:
            if x[i] > largest or x[i] != x[i]:
                largest = x[i]
            i = int32(i + int32(THREADS))
        largest = warp_larger(largest)
        i = int32(start + t)
        while i < end:
            total += math.exp(x[i] - largest)
            i = int32(i + int32(THREADS))
        total = warp_sum(total)
        i, end = int32(start + t), int32(start + wide)
        while i < end:
            y[i] = math.exp(x[i] - largest) / total
            i = int32(i + int32(THREADS))

    return Kernel("softmax", run, (floats, floats, int32, int32), THREADS)


@cache
def softmax_gradient_kernel() -> Kernel:
    """Return the kernel of ``dx = y * (dy - <dy, y>)``."""

    def run(dy, y, dx, classes, more):
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * classes)
        end = int32(start + classes)
        total = float32(0)
        i = int32(start + t)
        while i < end:
            total += dy[i] * y[i]
            i = int32(i + int32(THREADS))
        total = warp_sum(total)
        i = int32(start + t)
        while i < end:
            gradient = y[i] * (dy[i] - total)
            if more != int32(0):
                gradient += dx[i]
            dx[i] = gradient
            i = int32(i + int32(THREADS))

    return Kernel("softmax_gradient", run, (floats, floats, floats, int32, int32), THREADS)


# --- launches -------------------------------------------------------------------------------------


def fitting(classes: int) -> bool:
    """Return whether rows touch no more sectors than they fill, wherever they begin."""
    step = gcd(classes, SECTOR)  # rows begin at multiples of it
    return step == SECTOR or (classes < THREADS and classes % SECTOR == step)


def rows_in_sectors(x: DeviceArray) -> tuple[DeviceArray, list[Launch]]:
    """Return rows that are `fitting`, or filled up, and the launches that copy ``x`` to them."""
    return (x, []) if fitting(x.shape[1]) else in_sectors(x)


def softmax_launches(x: DeviceArray, out: DeviceArray) -> list[Launch]:
    """Return the launches of the softmax of each row of ``x``."""
    (n, classes), (x, first) = x.shape, rows_in_sectors(x)
    out, _, last = (out, False, []) if fitting(classes) else out_of_sectors(out)
    return [*first, Launch(softmax_kernel(), n, (x, out, classes, x.shape[1])), *last]


# --- public ops -----------------------------------------------------------------------------------


def softmax(x: DeviceArray, *, out: DeviceArray | None = None) -> DeviceArray:
    """Read each row three times: largest value, sum of exponentials, division."""
    shape = shapes.softmax(x, out=out)
    y = empty(check("softmax", x=x), shape) if out is None else out
    bind_softmax(x, out=y)()
    return y


def bind_softmax(x: DeviceArray, *, out: DeviceArray) -> Call:
    """Bind one launch, between copies where rows are filled up."""
    shapes.softmax(x, out=out)
    return Call(check("softmax", x=x, out=out), softmax_launches(x, out), out)


def softmax_backward(
    dy: DeviceArray, y: DeviceArray, x: DeviceArray
) -> tuple[DeviceArray | None, ...]:
    """Read each row twice."""
    out = empty_like(x)
    bind_softmax_backward(dy, y, x, out=out, more=(False,))()
    return out


def bind_softmax_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind one launch, between copies where rows are filled up."""
    machine, (n, classes) = check("softmax_backward", dy=dy, y=y, dx=out[0]), x.shape
    if (dx := out[0]) is None:
        return Call(machine, [])
    (dy, first), (y, second) = rows_in_sectors(dy), rows_in_sectors(y)
    # Zeros that fill up change no sum.
    dx, add, last = (dx, more[0], []) if fitting(classes) else out_of_sectors(dx, more[0])
    launch = Launch(softmax_gradient_kernel(), n, (dy, y, dx, y.shape[1], int(add)))
    return Call(machine, [*first, *second, launch, *last])
