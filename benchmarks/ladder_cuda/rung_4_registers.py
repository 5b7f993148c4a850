"""A tile of results in the registers of each thread: 16 multiply-adds for eight loads.

A thread computes 4 x 4 results of the 64 x 64 of its block. For each channel it loads four values
of the image and four weights, and every pair of them is multiplied. Its rows and columns lie 16
apart, so that the threads of a warp ask different banks of the shared memory.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import registers, shared

SIDE, DEEP, EACH = 64, 16, 4
LINES = SIDE // EACH  # threads in each direction
THREADS = LINES * LINES
PITCH = DEEP + 1  # of a row of the image's part: rows begin in different banks
WEIGHTS = SIDE * PITCH
SHARED = WEIGHTS + DEEP * SIDE
SUMS = EACH * EACH


@cache
def kernel() -> Kernel:
    def run(x, weight, bias, y, m, n, k, across):
        s, a, b, sums = shared(SHARED), registers(EACH), registers(EACH), registers(SUMS)
        thread = int32(cuda.threadIdx.x)
        ty, tx = int32(thread // LINES), int32(thread % LINES)
        m0 = int32(int32(cuda.blockIdx.x // across) * SIDE)
        o0 = int32(int32(cuda.blockIdx.x % across) * SIDE)
        for i in range(SUMS):
            sums[i] = float32(0)
        for start in range(0, k, DEEP):
            for i in range(0, SIDE * DEEP, THREADS):
                at = int32(i + thread)
                row, c = int32(at // DEEP), int32(at % DEEP)
                seen = m0 + row < m and start + c < k
                value = x[int32((m0 + row) * k + start + c)] if seen else float32(0)
                s[int32(row * PITCH + c)] = value
                c, o = int32(at // SIDE), int32(at % SIDE)
                seen = start + c < k and o0 + o < n
                value = weight[int32((start + c) * n + o0 + o)] if seen else float32(0)
                s[int32(WEIGHTS + c * SIDE + o)] = value
            cuda.syncthreads()
            for c in range(DEEP):
                for i in range(EACH):
                    a[i] = s[int32((ty + i * LINES) * PITCH + c)]
                    b[i] = s[int32(WEIGHTS + c * SIDE + tx + i * LINES)]
                for i in range(EACH):
                    for j in range(EACH):
                        sums[i * EACH + j] += a[i] * b[j]
            cuda.syncthreads()
        for i in range(EACH):
            for j in range(EACH):
                position, o = int32(m0 + ty + i * LINES), int32(o0 + tx + j * LINES)
                if position < m and o < n:
                    total = sums[i * EACH + j] + bias[o]
                    y[int32(position * n + o)] = float32(0) if total < float32(0) else total

    return Kernel("rung_4_registers", run, (*[floats] * 4, *[int32] * 4), THREADS)


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    (m, k), n = x.shape, bias.size
    across = -(-n // SIDE)
    return [Launch(kernel(), -(-m // SIDE) * across, (x, weight, bias, out, m, n, k, across))]
