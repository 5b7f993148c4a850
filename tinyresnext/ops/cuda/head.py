"""The softmax and the loss, and their gradients. A block has one sample; its threads share classes.

All threads of a block need the largest logit and the sum of the exponentials: each takes those of
its own classes, and a tree in shared memory joins them, in the same order in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from .. import shapes
from .runtime.arrays import DeviceArray, check, empty, empty_like, upload
from .runtime.call import Call
from .runtime.kernel import Kernel, float32, floats, int32
from .runtime.machine import Launch
from .words import shared

THREADS, STEPS = 128, 7  # two to the power of STEPS

# --- kernels --------------------------------------------------------------------------------------
# After a tree, the result is in the first place, and a barrier follows before it is written again.


@cache
def softmax_kernel() -> Kernel:
    """Return the kernel of ``exp(x - m) / sum(exp(x - m))``, m the largest of a row."""

    def run(x, y, classes):
        own = shared(THREADS)
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * classes)
        largest = float32(-float("inf"))
        c = t
        while c < classes:
            value = x[start + c]
            if value > largest or value != value:
                largest = value
            c = int32(c + int32(THREADS))
        own[t] = largest
        cuda.syncthreads()
        half = int32(THREADS // 2)
        for _ in range(STEPS):
            if t < half:
                value = own[t + half]
                if value > own[t] or value != value:
                    own[t] = value
            cuda.syncthreads()
            half = int32(half >> int32(1))
        largest = own[0]
        cuda.syncthreads()
        total = float32(0)
        c = t
        while c < classes:
            total += math.exp(x[start + c] - largest)
            c = int32(c + int32(THREADS))
        own[t] = total
        cuda.syncthreads()
        half = int32(THREADS // 2)
        for _ in range(STEPS):
            if t < half:
                own[t] += own[t + half]
            cuda.syncthreads()
            half = int32(half >> int32(1))
        total = own[0]
        c = t
        while c < classes:
            y[start + c] = math.exp(x[start + c] - largest) / total
            c = int32(c + int32(THREADS))

    return Kernel("softmax", run, (floats, floats, int32), THREADS)


@cache
def rows_kernel() -> Kernel:
    """Return the kernel of ``sum(a * b)`` of each row."""

    def run(a, b, out, classes):
        own = shared(THREADS)
        t, start = int32(cuda.threadIdx.x), int32(int32(cuda.blockIdx.x) * classes)
        total = float32(0)
        c = t
        while c < classes:
            total += a[start + c] * b[start + c]
            c = int32(c + int32(THREADS))
        own[t] = total
        cuda.syncthreads()
        half = int32(THREADS // 2)
        for _ in range(STEPS):
            if t < half:
                own[t] += own[t + half]
            cuda.syncthreads()
            half = int32(half >> int32(1))
        if t == int32(0):
            out[int32(cuda.blockIdx.x)] = own[0]

    return Kernel("row_products", run, (floats, floats, floats, int32), THREADS)
