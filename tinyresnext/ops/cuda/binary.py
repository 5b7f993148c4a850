"""The binary cross entropy and its gradient. A warp has one sample; its threads share labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from numba import cuda

from .. import shapes
from .head import THREADS, mean_kernel, stand_in
from .runtime.arrays import DeviceArray, check, empty, empty_like, scratch, upload
from .runtime.call import Call
from .runtime.kernel import Kernel, float32, floats, int32
from .runtime.machine import Launch
from .words import warp_sum

# --- kernels --------------------------------------------------------------------------------------


@cache
def terms_kernel() -> Kernel:
    """Return the kernel of each sample's mean of ``max(x, 0) - x * target + log(1 + exp(-|x|))``.

    The target is ``kept * label + even``. Without weights, all terms weigh the same.
    """

    def run(x, labels, weights, losses, kept, even, classes, weighted):
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * classes)
        end, loss = int32(start + classes), float32(0)
        i = int32(start + t)
        while i < end:
            value = x[i]
            small = math.exp(-value if value > float32(0) else value)
            above = float32(0) if value <= float32(0) else value
            term = above - value * (labels[i] * kept + even) + math.log1p(small)
            if weighted != int32(0):
                term *= weights[i]
            loss += term
            i = int32(i + int32(THREADS))
        loss = warp_sum(loss)
        if t == int32(0):
            losses[int32(cuda.blockIdx.x)] = loss / float32(classes)

    kinds = (floats, floats, floats, floats, float32, float32, int32, int32)
    return Kernel("binary_cross_entropy", run, kinds, THREADS)


@cache
def terms_gradient_kernel() -> Kernel:
    """Return the kernel of ``dy * weight * (1 / (1 + exp(-x)) - target) / terms``."""

    def run(dy, x, labels, weights, dx, kept, even, terms, count, weighted, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            value = x[i]
            small = math.exp(-value if value > float32(0) else value)
            part = small if value < float32(0) else float32(1)
            gradient = part / (float32(1) + small) - (labels[i] * kept + even)
            if weighted != int32(0):
                gradient *= weights[i]
            gradient = dy[0] * gradient / terms
            if more != int32(0):
                gradient += dx[i]
            dx[i] = gradient

    kinds = (*(floats,) * 5, float32, float32, float32, int32, int32, int32)
    return Kernel("binary_cross_entropy_gradient", run, kinds, THREADS)


# --- public ops -----------------------------------------------------------------------------------


def binary_cross_entropy(
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute each sample's loss, and their mean."""
    y = empty(check("binary_cross_entropy", x=x), ()) if out is None else out
    bind_binary_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=y)()
    return y


def bind_binary_cross_entropy(
    x: DeviceArray, *, labels: Any, smoothing: float = 0.0, weights: Any = None, out: DeviceArray
) -> Call:
    """Bind two launches."""
    rows, scale = _there(x, labels, smoothing, weights)
    shapes.binary_cross_entropy(
        x, labels=stand_in(rows), smoothing=smoothing, weights=weights, out=out
    )
    machine, (n, classes) = check("binary_cross_entropy", x=x, labels=rows, out=out), x.shape
    losses, weighted = scratch(machine, (n,)), int(weights is not None)
    given = x, rows, scale, losses, 1 - smoothing, smoothing / 2, classes, weighted
    launches = [Launch(terms_kernel(), n, given), Launch(mean_kernel(), 1, (losses, out, n))]
    return Call(machine, launches, out)


def binary_cross_entropy_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Any = None,
) -> tuple[DeviceArray | None, ...]:
    """Make one pass over the values."""
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
    rows, scale = _there(x, labels, smoothing, weights)
    machine = check("binary_cross_entropy_backward", dy=dy, x=x, labels=rows, dx=out[0])
    blocks, weighted = 0 if out[0] is None else -(-x.size // THREADS), int(weights is not None)
    given = dy, x, rows, scale, out[0], 1 - smoothing, smoothing / 2
    sizes = x.size, x.size, weighted, int(more[0])
    return Call(machine, [Launch(terms_gradient_kernel(), blocks, (*given, *sizes))])


def _there(
    x: DeviceArray, labels: Any, smoothing: float, weights: Any
) -> tuple[DeviceArray, DeviceArray]:
    """Return labels and weights on the device; without weights, the labels stand in their place."""
    rows = labels
    if not isinstance(labels, DeviceArray):
        shapes.binary_cross_entropy(x, labels=labels, smoothing=smoothing)
        rows = upload(x.machine, labels)
    if weights is None:
        return rows, rows
    return rows, weights if isinstance(weights, DeviceArray) else upload(x.machine, weights)
