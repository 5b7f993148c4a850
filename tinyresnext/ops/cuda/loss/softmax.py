"""The cross entropy of a softmax: each sample is of one class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from numba import cuda

from ..runtime.arrays import DeviceArray, check, empty, empty_like, scratch
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import warp_larger, warp_sum
from ..words.whole import quotient
from .head import LOWEST, THREADS, rows_in_sectors, softmax_launches
from .labels import mean_kernel, placed

# --- kernels --------------------------------------------------------------------------------------


@cache
def losses_kernel() -> Kernel:
    """Return the kernel of each sample's ``-sum(target * log_p)``.

    Here ``log_p = x - m - log(sum(exp(x - m)))``, m the largest value of a row. No logarithm is
    taken of a probability, which may be zero.
    """

    def run(x, labels, weights, losses, kept, even, classes, wide, weighted):
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * wide)
        end = int32(start + classes)
        largest, total, loss = float32(LOWEST), float32(0), float32(0)
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
        log_total = math.log(warp_sum(total))
        i = int32(start + t)
        while i < end:
            loss -= (labels[i] * kept + even) * (x[i] - largest - log_total)
            i = int32(i + int32(THREADS))
        loss = warp_sum(loss)
        if weighted != int32(0):
            loss *= weights[int32(cuda.blockIdx.x)]
        if t == int32(0):
            losses[int32(cuda.blockIdx.x)] = loss

    kinds = (*(floats,) * 4, float32, float32, *(int32,) * 3)
    return Kernel("cross_entropy", run, kinds, THREADS)


@cache
def losses_gradient_kernel() -> Kernel:
    """Return the kernel of ``dy * (softmax(x) - target) / n``; ``y`` holds the softmax."""

    def run(dy, y, labels, weights, dx, kept, even, samples, count, classes, weighted, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            difference = y[i] - (labels[i] * kept + even)
            if weighted != int32(0):
                difference *= weights[quotient(i, classes)]
            gradient = dy[0] * difference / samples
            if more != int32(0):
                gradient += dx[i]
            dx[i] = gradient

    kinds = ((floats,) * 5, (float32,) * 3, (int32,) * 4)
    return Kernel("cross_entropy_gradient", run, sum(kinds, ()), THREADS)


# --- public ops -----------------------------------------------------------------------------------


def softmax_cross_entropy(
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute each sample's loss, and their mean."""
    y = empty(check("softmax_cross_entropy", x=x), ()) if out is None else out
    bind_softmax_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=y)()
    return y


def bind_softmax_cross_entropy(
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
    out: DeviceArray,
) -> Call:
    """Bind two launches, behind copies where rows are filled up."""
    rows, each = placed("softmax_cross_entropy", x, labels, smoothing, weights, out)
    machine, (n, classes) = check("softmax_cross_entropy", x=x, labels=rows, out=out), x.shape
    losses, weighted = scratch(machine, (n,)), int(each is not None)
    (x, first), (rows, second) = rows_in_sectors(x), rows_in_sectors(rows)
    numbers = 1 - smoothing, smoothing / classes, classes, x.shape[1], weighted
    launch = Launch(losses_kernel(), n, (x, rows, each, losses, *numbers))
    last = Launch(mean_kernel(), 1, (losses, out, n, n))
    return Call(machine, [*first, *second, launch, last], out)


def softmax_cross_entropy_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
) -> tuple[DeviceArray | None, ...]:
    """Compute the probability minus the target, divided by the number of samples."""
    out = empty_like(x)
    bind_softmax_cross_entropy_backward(
        dy, y, x, labels=labels, smoothing=smoothing, weights=weights, out=out, more=(False,)
    )()
    return out


def bind_softmax_cross_entropy_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind a softmax, and one pass over its values."""
    op = "softmax_cross_entropy"
    rows, each = placed(op, x, labels, smoothing, weights, None)
    machine = check(f"{op}_backward", dy=dy, x=x, labels=rows, dx=out[0])
    if out[0] is None:
        return Call(machine, [])
    (n, classes), place = x.shape, scratch(machine, x.shape)
    blocks, weighted = -(-x.size // THREADS), int(each is not None)
    numbers = 1 - smoothing, smoothing / classes, n, x.size, classes, weighted, int(more[0])
    given = dy, place, rows, each, out[0]
    launch = Launch(losses_gradient_kernel(), blocks, (*given, *numbers))
    return Call(machine, [*softmax_launches(x, place), launch])
