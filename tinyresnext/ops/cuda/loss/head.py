"""The softmax and its gradient. A warp has one sample; its threads share the classes.

A thread takes the largest logit, or a sum, of every 32nd class, and exchanges in the warp join
these, in the same order in every run: neither shared memory nor a barrier is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from numba import cuda

from ... import shapes
from ..runtime.arrays import DeviceArray, check, empty, empty_like
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import warp_larger, warp_sum

THREADS = 32  # of a block: one warp
LOWEST = float("-inf")

# --- kernels --------------------------------------------------------------------------------------


@cache
def softmax_kernel() -> Kernel:
    """Return the kernel of ``exp(x - m) / sum(exp(x - m))``, m the largest value of a row."""

    def run(x, y, classes):
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * classes)
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
        i = int32(start + t)
        while i < end:
            y[i] = math.exp(x[i] - largest) / total
            i = int32(i + int32(THREADS))

    return Kernel("softmax", run, (floats, floats, int32), THREADS)


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


# --- public ops -----------------------------------------------------------------------------------


def softmax(x: DeviceArray, *, out: DeviceArray | None = None) -> DeviceArray:
    """Read each row three times: largest value, sum of exponentials, division."""
    shape = shapes.softmax(x, out=out)
    y = empty(check("softmax", x=x), shape) if out is None else out
    bind_softmax(x, out=y)()
    return y


def bind_softmax(x: DeviceArray, *, out: DeviceArray) -> Call:
    """Bind one launch."""
    n, classes = shapes.softmax(x, out=out)
    machine = check("softmax", x=x, out=out)
    return Call(machine, [Launch(softmax_kernel(), n, (x, out, classes))], out)


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
    """Bind one launch."""
    machine, (n, classes) = check("softmax_backward", dy=dy, y=y, dx=out[0]), x.shape
    blocks, arguments = 0 if out[0] is None else n, (dy, y, out[0], classes, int(more[0]))
    return Call(machine, [Launch(softmax_gradient_kernel(), blocks, arguments)])
