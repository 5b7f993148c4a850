"""Squares in shared memory: what a block loads, its threads use 16 times.

A block computes 16 x 16 results. For every 16 channels it copies a square of the image and one of
the weight to shared memory, and each value is then read 16 times from there. Global memory is at
rest; but each multiply-add still waits for two loads.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import shared

SIDE = 16
SHARED = 2 * SIDE * SIDE


@cache
def kernel() -> Kernel:
    def run(x, weight, bias, y, m, n, k, across):
        s = shared(SHARED)
        row, column = int32(cuda.threadIdx.x // SIDE), int32(cuda.threadIdx.x % SIDE)
        position = int32(int32(cuda.blockIdx.x // across) * SIDE + row)
        o = int32(int32(cuda.blockIdx.x % across) * SIDE + column)
        at, total = int32(row * SIDE + column), float32(0)
        for start in range(0, k, SIDE):
            c, d = int32(start + column), int32(start + row)
            s[at] = x[int32(position * k + c)] if position < m and c < k else float32(0)
            s[int32(SIDE * SIDE + at)] = weight[int32(d * n + o)] if d < k and o < n else float32(0)
            cuda.syncthreads()
            for i in range(SIDE):
                value = s[int32(row * SIDE + i)]
                total += value * s[int32(SIDE * SIDE + i * SIDE + column)]
            cuda.syncthreads()
        if position < m and o < n:
            total += bias[o]
            y[int32(position * n + o)] = float32(0) if total < float32(0) else total

    return Kernel("rung_3_shared", run, (*[floats] * 4, *[int32] * 4), SIDE * SIDE)


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    (m, k), n = x.shape, bias.size
    across = -(-n // SIDE)
    return [Launch(kernel(), -(-m // SIDE) * across, (x, weight, bias, out, m, n, k, across))]
