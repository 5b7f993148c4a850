"""Sixteen bytes an instruction, and 8 x 8 results a thread.

A load of 16 bytes is one instruction instead of four. A thread takes four channels of its eight
positions at once (they lie side by side in the image, and in its copy), and the weights of four
neighbouring filters. A value is now used eight times: 256 multiply-adds for 16 loads. What is left
is that a block waits for its copies before it computes.

``k`` and ``n`` must be multiples of four here.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import (
    add4,
    floor4,
    keep4,
    load4,
    load4_if,
    registers,
    shared,
    store4,
    sum4,
    take4,
)

SIDE, DEEP, EACH, THREADS = 64, 16, 8, 64
PITCH = DEEP + 4
WEIGHTS = SIDE * PITCH
SHARED = WEIGHTS + DEEP * SIDE
SUMS, VALUES = EACH * EACH, EACH * 4
DOWN = SIDE // EACH  # between the rows of a thread


@cache
def kernel() -> Kernel:
    def run(x, weight, bias, y, m, n, k, across):
        s, a, sums = shared(SHARED), registers(VALUES), registers(SUMS)
        thread = int32(cuda.threadIdx.x)
        ty, tx = int32(thread // 8), int32(thread % 8 * 4)
        m0 = int32(int32(cuda.blockIdx.x // across) * SIDE)
        o0 = int32(int32(cuda.blockIdx.x % across) * SIDE)
        for i in range(SUMS):
            sums[i] = float32(0)
        for start in range(0, k, DEEP):
            for i in range(0, SIDE * DEEP, THREADS * 4):
                at = int32(i + thread * 4)
                row, c = int32(at // DEEP), int32(at % DEEP)
                seen = m0 + row < m and start + c < k
                four = load4_if(x, int32((m0 + row) * k + start + c), seen, 16)
                store4(s, int32(row * PITCH + c), four, 16)
                c, o = int32(at // SIDE), int32(at % SIDE)
                seen = start + c < k and o0 + o < n
                four = load4_if(weight, int32((start + c) * n + o0 + o), seen, 16)
                store4(s, int32(WEIGHTS + c * SIDE + o), four, 16)
            cuda.syncthreads()
            of, weights = int32(ty * PITCH), int32(WEIGHTS + tx)
            for _ in range(0, DEEP, 4):
                for i in range(EACH):
                    keep4(a, 4 * i, load4(s, of, i * DOWN * PITCH, 16))
                for c in range(4):
                    for j in range(0, EACH, 4):
                        b = load4(s, weights, c * SIDE + 8 * j, 16)
                        for i in range(EACH):
                            add4(sums, EACH * i + j, a, 4 * i + c, b)
                of, weights = int32(of + 4), int32(weights + 4 * SIDE)
            cuda.syncthreads()
        for j in range(0, EACH, 4):
            o = int32(o0 + tx + 8 * j)
            if o < n:
                b = load4(bias, o, 0, 16)
                for i in range(EACH):
                    position = int32(m0 + ty + i * DOWN)
                    if position < m:
                        four = sum4(take4(sums, EACH * i + j), b)
                        store4(y, int32(position * n + o), floor4(four, float32(0)), 16)

    return Kernel("rung_5_vectors", run, (*[floats] * 4, *[int32] * 4), THREADS)


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    (m, k), n = x.shape, bias.size
    across = -(-n // SIDE)
    return [Launch(kernel(), -(-m // SIDE) * across, (x, weight, bias, out, m, n, k, across))]
