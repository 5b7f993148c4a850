"""The cross entropy of sigmoids: each output has a probability of its own."""

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
from ..words import warp_sum
from .head import THREADS, rows_in_sectors
from .labels import mean_kernel, placed

# --- kernels --------------------------------------------------------------------------------------


@cache
def binary_losses_kernel() -> Kernel:
    """Return the kernel of each sample's sum of ``max(x, 0) - x * target + log(1 + exp(-|x|))``."""

    def run(x, labels, weights, losses, kept, even, classes, wide, weighted):
        start = int32(int32(cuda.blockIdx.x) * wide)
        end, loss = int32(start + classes), float32(0)
        i = int32(start + int32(cuda.threadIdx.x))
        while i < end:
            value = x[i]
            positive = float32(0) if value <= float32(0) else value
            small = math.exp(-value if value > float32(0) else value)
            term = positive - value * (labels[i] * kept + even) + math.log1p(small)
            if weighted != int32(0):
                term *= weights[i]
            loss += term
            i = int32(i + int32(THREADS))
        loss = warp_sum(loss)
        if int32(cuda.threadIdx.x) == int32(0):
            losses[int32(cuda.blockIdx.x)] = loss

    kinds = (*(floats,) * 4, float32, float32, *(int32,) * 3)
    return Kernel("binary_cross_entropy", run, kinds, THREADS)


@cache
def binary_gradient_kernel() -> Kernel:
    """Return the kernel of ``dy * (p - target) / terms``, p the probability of each output."""

    def run(dy, x, labels, weights, dx, kept, even, terms, count, weighted, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            value = x[i]
            small = math.exp(-value if value > float32(0) else value)
            upper = small if value < float32(0) else float32(1)
            difference = upper / (float32(1) + small) - (labels[i] * kept + even)
            if weighted != int32(0):
                difference *= weights[i]
            gradient = dy[0] * difference / terms
            if more != int32(0):
                gradient += dx[i]
            dx[i] = gradient

    kinds = ((floats,) * 5, (float32,) * 3, (int32,) * 3)
    return Kernel("binary_cross_entropy_gradient", run, sum(kinds, ()), THREADS)


# --- public ops -----------------------------------------------------------------------------------


def binary_cross_entropy(
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute each sample's sum, and the mean of all terms."""
    y = empty(check("binary_cross_entropy", x=x), ()) if out is None else out
    bind_binary_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=y)()
    return y


def bind_binary_cross_entropy(
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
    out: DeviceArray,
) -> Call:
    """Bind two launches, behind copies where rows are filled up."""
    rows, each = placed("binary_cross_entropy", x, labels, smoothing, weights, out)
    machine, (n, classes) = check("binary_cross_entropy", x=x, labels=rows, out=out), x.shape
    losses, weighted = scratch(machine, (n,)), int(each is not None)
    (x, first), (rows, second) = rows_in_sectors(x), rows_in_sectors(rows)
    each, third = (None, []) if each is None else rows_in_sectors(each)
    numbers = 1 - smoothing, smoothing / 2, classes, x.shape[1], weighted
    launch = Launch(binary_losses_kernel(), n, (x, rows, each, losses, *numbers))
    last = Launch(mean_kernel(), 1, (losses, out, n, n * classes))
    return Call(machine, [*first, *second, *third, launch, last], out)


def binary_cross_entropy_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
) -> tuple[DeviceArray | None, ...]:
    """Compute the probability minus the target, divided by the number of terms."""
    out = empty_like(x)
    bind_binary_cross_entropy_backward(
        dy, y, x, labels=labels, smoothing=smoothing, weights=weights, out=out, more=(False,)
    )()
    return out


def bind_binary_cross_entropy_backward(
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
    """Bind one launch."""
    op = "binary_cross_entropy"
    rows, each = placed(op, x, labels, smoothing, weights, None)
    machine = check(f"{op}_backward", dy=dy, x=x, labels=rows, dx=out[0])
    blocks, weighted = 0 if out[0] is None else -(-x.size // THREADS), int(each is not None)
    numbers = 1 - smoothing, smoothing / 2, x.size, x.size, weighted, int(more[0])
    arguments = dy, x, rows, each, out[0], *numbers
    return Call(machine, [Launch(binary_gradient_kernel(), blocks, arguments)])
