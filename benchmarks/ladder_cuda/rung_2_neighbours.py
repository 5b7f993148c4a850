"""Neighbouring threads have neighbouring filters.

One line of the kernel before this one changes: which result is whose. A warp now reads 32
neighbouring weights, 128 bytes in four sectors that are used whole, and one value of the image for
all its threads; what it writes lies side by side too.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch

THREADS = 256


@cache
def kernel() -> Kernel:
    def run(x, weight, bias, y, m, n, k):
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        position, o = int32(i // n), int32(i % n)
        if position < m:
            total = bias[o]
            for c in range(k):
                total += x[int32(position * k + c)] * weight[int32(c * n + o)]
            y[int32(position * n + o)] = float32(0) if total < float32(0) else total

    return Kernel("rung_2_neighbours", run, (*[floats] * 4, *[int32] * 3), THREADS)


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    (m, k), n = x.shape, bias.size
    return [Launch(kernel(), -(-m * n // THREADS), (x, weight, bias, out, m, n, k))]
