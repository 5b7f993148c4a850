"""What both losses share: labels and weights on the device, and the mean over samples.

A target is ``kept * label + even``. Where ``weighted`` is zero there are no weights.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ... import shapes
from ..runtime.arrays import DeviceArray, check, upload
from ..runtime.kernel import Kernel, float32, floats, int32
from ..words import warp_sum
from .head import THREADS


@cache
def mean_kernel() -> Kernel:
    """Return the kernel of the sum of a few values over how many ``terms`` these are, one block."""

    def run(values, out, count, terms):
        total, i = float32(0), int32(cuda.threadIdx.x)
        while i < count:
            total += values[i]
            i = int32(i + int32(THREADS))
        total = warp_sum(total)
        if int32(cuda.threadIdx.x) == int32(0):
            out[0] = total / terms

    return Kernel("mean", run, (floats, floats, int32, float32), THREADS)


def placed(
    op: str,
    x: DeviceArray,
    labels: Any,
    smoothing: float,
    weights: Any,
    out: DeviceArray | None,
) -> tuple[DeviceArray, DeviceArray | None]:
    """Return labels and weights on the device; the numbers of classes become one-hot rows.

    Numbers are given in NumPy's memory, where they can be checked.
    """
    known = labels
    if isinstance(labels, DeviceArray):  # the rules look at values of whole numbers only
        known = np.broadcast_to(np.zeros((), np.float32), labels.shape)
    getattr(shapes, op)(x, labels=known, smoothing=smoothing, weights=weights, out=out)
    if not isinstance(labels, DeviceArray):
        labels = np.asarray(labels)
        if labels.ndim == 1:
            labels = np.eye(x.shape[1], dtype=np.float32)[labels]
        labels = upload(x.machine, labels)
    if weights is not None and not isinstance(weights, DeviceArray):
        weights = upload(x.machine, np.asarray(weights, np.float32))
    if weights is not None:
        check(op, x=x, weights=weights)
    return labels, weights
