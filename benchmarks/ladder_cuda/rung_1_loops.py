"""One thread for each result, as the definition is written.

Neighbouring threads have neighbouring positions. Then the 32 threads of a warp read 32 different
rows of the image at once, and use four bytes of each 32 that the memory delivers; they write the
same way. Every multiply-add loads two values.
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
        position, o = int32(i % m), int32(i // m)
        if o < n:
            total = bias[o]
            for c in range(k):
                total += x[int32(position * k + c)] * weight[int32(c * n + o)]
            y[int32(position * n + o)] = float32(0) if total < float32(0) else total

    return Kernel("rung_1_loops", run, (*[floats] * 4, *[int32] * 3), THREADS)


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    (m, k), n = x.shape, bias.size
    return [Launch(kernel(), -(-m * n // THREADS), (x, weight, bias, out, m, n, k))]
