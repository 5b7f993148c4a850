"""The limits of a GPU, measured: multiply-adds in registers, and memory traffic."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from numba import cuda

from ...contract import Peak
from ..elementwise import THREADS, blocks_of, copy_kernel
from ..words import registers
from .arrays import download, empty, upload, view
from .kernel import Kernel, float32, floats, int32
from .machine import Launch, Machine

CHAINS, ROUNDS = 16, 4096  # sums of a thread that do not depend on each other, and how long each is
RESIDENT = 2048  # threads of a multiprocessor
REPEATS = 5
VALUES = 1 << 26  # of an array that no cache holds
SHARE = 8  # at most this part of the free memory


@cache
def multiply_kernel() -> Kernel:
    """Return the kernel of `CHAINS` sums of `ROUNDS` multiply-adds in each thread."""

    def run(out, a, b, rounds):
        sums = registers(CHAINS)
        for k in range(CHAINS):
            sums[k] = float32(k)
        for _ in range(rounds):
            for k in range(CHAINS):
                sums[k] = sums[k] * a + b
        total = float32(0)
        for k in range(CHAINS):
            total += sums[k]
        out[int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))] = total

    return Kernel("peak_multiply", run, (floats, float32, float32, int32), THREADS)


@cache
def read_kernel() -> Kernel:
    """Return the kernel that reads all values; each thread keeps a sum."""

    def run(x, out, count, threads):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        own, total = i, float32(0)
        while i < count:
            total += x[i]
            i = int32(i + threads)
        out[own] = total

    return Kernel("peak_read", run, (floats, floats, int32, int32), THREADS)


def measure(machine: Machine) -> Peak:
    """Return the limits; a multiply-add counts as two operations, a copy its bytes twice."""
    blocks = machine.multiprocessors * RESIDENT // THREADS
    count = min(VALUES, machine.free_bytes() // SHARE // 4)
    x, y = upload(machine, np.ones(count, np.float32)), empty(machine, (count,))
    out = empty(machine, (blocks * THREADS,))
    multiply = Launch(multiply_kernel(), blocks, (out, 0.5, 1.0, ROUNDS))
    read = Launch(read_kernel(), blocks, (x, out, count, blocks * THREADS))
    copy = Launch(copy_kernel(), blocks_of(count), (x, y, count))

    def shortest(launch: Launch) -> float:
        run, found = machine.prepare([launch]), []
        for _ in range(REPEATS + 1):  # the first one compiles
            start = time.perf_counter()
            run()
            download(view(out, (1,)))  # waits for the kernel
            found.append(time.perf_counter() - start)
        return min(found)

    flops = 2.0 * blocks * THREADS * CHAINS * ROUNDS
    bytes_read = 4.0 * count
    return Peak(
        1,
        flops / shortest(multiply) / 1e9,
        bytes_read / shortest(read) / 1e9,
        2 * bytes_read / shortest(copy) / 1e9,
    )
