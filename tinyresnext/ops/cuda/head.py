"""The softmax and the loss, and their gradients. A warp has one sample; its threads share classes.

A thread takes the largest logit, or a sum, of every 32nd class, and exchanges in the warp join
these, in the same order in every run: neither shared memory nor a barrier is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .. import shapes
from .runtime.arrays import DeviceArray, check, empty, empty_like, scratch, upload
from .runtime.call import Call
from .runtime.kernel import Kernel, float32, floats, int32
from .runtime.machine import Launch
from .words import warp_larger, warp_sum
from .words.whole import quotient

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


@cache
def losses_kernel() -> Kernel:
    """Return the kernel of each sample's ``-weight * sum(target * log_p)``.

    The target is ``kept * label + even``; ``log_p = x - m - log(sum(exp(x - m)))``. No logarithm is
    taken of a probability, which may be zero.
    """

    def run(x, labels, weights, losses, kept, even, classes, weighted):
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * classes)
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
        if t == int32(0):
            if weighted != int32(0):
                loss *= weights[int32(cuda.blockIdx.x)]
            losses[int32(cuda.blockIdx.x)] = loss

    kinds = (floats, floats, floats, floats, float32, float32, int32, int32)
    return Kernel("cross_entropy", run, kinds, THREADS)


@cache
def mean_kernel() -> Kernel:
    """Return the kernel of the mean of a few values, for one block."""

    def run(values, out, count):
        total, i = float32(0), int32(cuda.threadIdx.x)
        while i < count:
            total += values[i]
            i = int32(i + int32(THREADS))
        total = warp_sum(total)
        if int32(cuda.threadIdx.x) == int32(0):
            out[0] = total / float32(count)

    return Kernel("mean", run, (floats, floats, int32), THREADS)


@cache
def losses_gradient_kernel() -> Kernel:
    """Return the kernel of ``dy * weight * (softmax(x) - target) / n``; ``y`` is the softmax."""

    def run(dy, y, labels, weights, dx, kept, even, samples, count, classes, weighted, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            gradient = y[i] - (labels[i] * kept + even)
            if weighted != int32(0):
                gradient *= weights[quotient(i, classes)]
            gradient = dy[0] * gradient / samples
            if more != int32(0):
                gradient += dx[i]
            dx[i] = gradient

    kinds = (*(floats,) * 5, float32, float32, float32, int32, int32, int32, int32)
    return Kernel("cross_entropy_gradient", run, kinds, THREADS)


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
    x: DeviceArray, *, labels: Any, smoothing: float = 0.0, weights: Any = None, out: DeviceArray
) -> Call:
    """Bind two launches."""
    rows = _rows(x, labels, smoothing)
    shapes.softmax_cross_entropy(
        x, labels=stand_in(rows), smoothing=smoothing, weights=weights, out=out
    )
    machine, (n, classes) = check("softmax_cross_entropy", x=x, labels=rows, out=out), x.shape
    losses, scale, weighted = (
        scratch(machine, (n,)),
        _scale(rows, weights),
        int(weights is not None),
    )
    given = x, rows, scale, losses, 1 - smoothing, smoothing / classes, classes, weighted
    launches = [Launch(losses_kernel(), n, given), Launch(mean_kernel(), 1, (losses, out, n))]
    return Call(machine, launches, out)


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
    rows = _rows(x, labels, smoothing)
    machine = check("softmax_cross_entropy_backward", dy=dy, x=x, labels=rows, dx=out[0])
    (n, classes), place = x.shape, scratch(machine, x.shape)
    given = dy, place, rows, _scale(rows, weights), out[0], 1 - smoothing, smoothing / classes
    sizes = n, x.size, classes, int(weights is not None), int(more[0])
    blocks = 0 if out[0] is None else -(-x.size // THREADS)
    launches = [Launch(softmax_kernel(), n if blocks else 0, (x, place, classes))]
    return Call(machine, [*launches, Launch(losses_gradient_kernel(), blocks, (*given, *sizes))])


def _rows(x: DeviceArray, labels: Any, smoothing: float) -> DeviceArray:
    """Return the distributions over the classes on the device; those of numbers are one-hot.

    Numbers are given in NumPy's memory, where they can be checked.
    """
    if isinstance(labels, DeviceArray):
        return labels
    shapes.softmax_cross_entropy(x, labels=labels, smoothing=smoothing)
    labels = np.asarray(labels)
    if labels.ndim == 1:
        labels = np.eye(x.shape[1], dtype=np.float32)[labels]
    return upload(x.machine, labels)


def _scale(rows: DeviceArray, weights: Any) -> DeviceArray:
    """Return the weights on the device; without any, the labels stand in their place, unread."""
    if weights is None:
        return rows
    return weights if isinstance(weights, DeviceArray) else upload(rows.machine, weights)


def stand_in(rows: DeviceArray) -> np.ndarray:
    """Return something of the same shape and type for the rules of shapes, which read labels."""
    return np.broadcast_to(np.zeros((), rows.dtype), rows.shape)
