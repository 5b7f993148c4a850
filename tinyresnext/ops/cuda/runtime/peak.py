"""The limits of a GPU, measured: multiply-adds in registers, and memory traffic."""

from __future__ import annotations

import time
from functools import cache

from numba import cuda

from ...contract import Peak
from ..elementwise import THREADS, blocks_of, copy_kernel, zero_kernel
from ..words import load4, registers, sum4
from .arrays import empty
from .kernel import Kernel, float32, floats, int32
from .machine import Launch, Machine

CHAINS, ROUNDS = 16, 4096  # sums of a thread that do not depend on each other, and how long each is
UNROLLED = 8  # rounds without a jump between them
RESIDENT = 2048  # threads of a multiprocessor
LOADS = 8  # of 16 bytes that a thread waits for at a time
READERS = 4  # blocks of a multiprocessor that read: their registers are there at the same time
SIDE_BY_SIDE = 4 * THREADS * LOADS  # values that a block reads in a round
VALUES = 1 << 28  # of an array that no cache holds
SHARE = 8  # at most this part of the free memory
LAUNCHES, REPEATS = 20, 5  # what a start and a wait cost is a small part of that many launches
WARM = 0.05  # seconds: an idle GPU is slow at first


@cache
def multiply_kernel() -> Kernel:
    """Return the kernel of `CHAINS` sums of `ROUNDS` multiply-adds in each thread."""

    def run(out, a, b, rounds):
        sums = registers(CHAINS)
        for k in range(CHAINS):
            sums[k] = float32(k)
        while rounds > int32(0):
            for _ in range(UNROLLED):
                for k in range(CHAINS):
                    sums[k] = sums[k] * a + b
            rounds = int32(rounds - int32(UNROLLED))
        total = float32(0)
        for k in range(CHAINS):
            total += sums[k]
        out[int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))] = total

    return Kernel("peak_multiply", run, (floats, float32, float32, int32), THREADS)


@cache
def read_kernel() -> Kernel:
    """Return the kernel that reads all values, in whole rounds; each thread keeps four sums."""

    def run(x, out, count, step):
        thread = int32(cuda.threadIdx.x)
        i = int32(int32(int32(cuda.blockIdx.x) * int32(SIDE_BY_SIDE)) + int32(thread * int32(4)))
        sums = float32(0), float32(0), float32(0), float32(0)
        while i < count:
            for k in range(LOADS):
                sums = sum4(sums, load4(x, i, k * 4 * THREADS, 16))
            i = int32(i + step)
        own = int32(int32(int32(cuda.blockIdx.x) * int32(THREADS)) + thread)
        out[own] = (sums[0] + sums[1]) + (sums[2] + sums[3])

    return Kernel("peak_read", run, (floats, floats, int32, int32), THREADS)


def measure(machine: Machine) -> Peak:
    """Return the limits; a multiply-add counts as two operations, a copy its bytes twice."""
    blocks = machine.multiprocessors * RESIDENT // THREADS
    readers = machine.multiprocessors * READERS
    most, step = min(VALUES, machine.free_bytes() // SHARE // 4), readers * SIDE_BY_SIDE
    count = max(1, most // step) * step  # all blocks read as much
    x, y = empty(machine, (count,)), empty(machine, (count,))
    out = empty(machine, (blocks * THREADS,))
    machine.launch(Launch(zero_kernel(), blocks_of(count), (x, count)))
    multiply = Launch(multiply_kernel(), blocks, (out, 0.5, 1.0, ROUNDS))
    read = Launch(read_kernel(), readers, (x, out, count, step))
    copy = Launch(copy_kernel(), blocks_of(count), (x, y, count))

    def shortest(launch: Launch) -> float:
        run, found = machine.prepare([launch] * LAUNCHES), list[float]()
        began = time.perf_counter()
        while len(found) < REPEATS:
            start = time.perf_counter()
            run()
            machine.wait()
            if start - began > WARM:
                found.append(time.perf_counter() - start)
        return min(found) / LAUNCHES

    flops = 2.0 * blocks * THREADS * CHAINS * ROUNDS
    bytes_read = 4.0 * count
    return Peak(
        1,
        flops / shortest(multiply) / 1e9,
        bytes_read / shortest(read) / 1e9,
        2 * bytes_read / shortest(copy) / 1e9,
    )
