"""The limits of this machine: multiply-adds in a second, and bytes to and from memory.

Every speed is better understood as a part of these two. Both are measured, with loops that do
nothing else; there is no table of processors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...contract import Peak
from .launch import on_threads

# Independent sums: a multiply-add takes four cycles, and up to two begin in each. 12 fit 16
# registers.
SUMS = 12
# NEON and SSE, AVX2, AVX-512. A vector that is too long for the processor becomes several, and
# these do not fit the registers.
LANES = (4, 8, 16)
ROUNDS = 1_000_000  # some milliseconds: the time to wake the threads must not count
BYTES = 128 << 20  # of each array that is read or copied: more than the caches hold


# --- multiply-adds --------------------------------------------------------------------------------


def _chains(lanes: int) -> Any:
    """Return an intrinsic that repeats ``s = s * a + a`` for ``SUMS`` vectors in registers.

    With ``a`` = 1/2 all sums approach 1, so no number becomes so small (denormal) or so large that
    it costs more.
    """
    vector, i64 = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64)

    @intrinsic
    def chains(typing, a, rounds):
        def codegen(context, builder, signature, args):
            a, rounds = args
            name, kind = f"llvm.fmuladd.v{lanes}f32", ir.FunctionType(vector, [vector] * 3)
            multiply_add = cgutils.get_or_insert_function(builder.module, kind, name)
            factor = ir.Constant(vector, ir.Undefined)
            for lane in range(lanes):
                factor = builder.insert_element(factor, a, ir.IntType(32)(lane))
            before, again, done = (
                builder.block,
                builder.append_basic_block("again"),
                builder.append_basic_block("done"),
            )
            builder.branch(again)
            builder.position_at_end(again)
            left, sums = builder.phi(i64), [builder.phi(vector) for _ in range(SUMS)]
            results = [builder.call(multiply_add, [s, factor, factor]) for s in sums]
            for i, (value, result) in enumerate(zip(sums, results, strict=True)):
                value.add_incoming(ir.Constant(vector, [float(i)] * lanes), before)
                value.add_incoming(result, again)
            rest = builder.sub(left, i64(1))
            left.add_incoming(rounds, before)
            left.add_incoming(rest, again)
            builder.cbranch(builder.icmp_signed(">", rest, i64(0)), again, done)
            builder.position_at_end(done)
            total = results[0]
            for result in results[1:]:
                total = builder.fadd(total, result)
            return builder.extract_element(total, ir.IntType(32)(0))

        return types.float32(types.float32, types.intp), codegen

    return chains


def _kernel(lanes: int) -> Callable[[np.ndarray, np.float32, int], None]:
    """Return a kernel that runs the chains once in every thread.

    It stores a number of each, so that the compiler does not remove them.
    """
    chains = _chains(lanes)

    @njit(parallel=True)
    def kernel(out, a, rounds):
        for thread in prange(len(out)):
            out[thread] = chains(a, rounds)

    return kernel


def multiply_adds(counts: Sequence[int], repeats: int = 50, rounds: int = ROUNDS) -> list[float]:
    """Return the GFLOP/s of float32 multiply-adds for each number of threads.

    A multiply-add counts as two operations; the best of all vector lengths is returned.
    """
    best = [0.0] * len(counts)
    for lanes in LANES:
        kernel = _kernel(lanes)
        for i, threads in enumerate(counts):
            out = np.empty(threads, np.float32)
            run = partial(kernel, out, np.float32(0.5), rounds)
            seconds = _shortest(run, threads, repeats)
            best[i] = max(best[i], 2.0 * SUMS * lanes * rounds * threads / seconds / 1e9)
    return best


# --- memory ---------------------------------------------------------------------------------------


@njit(fastmath={"reassoc"})  # so that the sum is computed in vectors
def _sum(x):
    """Read everything once."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i]
    return total


@njit(parallel=True)
def _read(x, out):
    """Read a part in every thread."""
    part = len(x) // len(out)
    for thread in prange(len(out)):
        out[thread] = _sum(x[thread * part : (thread + 1) * part])


@njit(parallel=True)
def _copy(x, y):
    """Copy a part in every thread."""
    for i in prange(len(x)):
        y[i] = x[i]


def bandwidth(threads: int, repeats: int = 10, size: int = BYTES) -> tuple[float, float]:
    """Return the GB/s of reading and of copying arrays of ``size`` bytes on that many threads.

    A copy counts its bytes twice, since each is read and written.
    """
    x, y, out = (
        np.ones(size // 4, np.float32),
        np.ones(size // 4, np.float32),
        np.empty(threads, np.float32),
    )
    read = _shortest(lambda: _read(x, out), threads, repeats)
    copy = _shortest(lambda: _copy(x, y), threads, repeats)
    return x.nbytes / read / 1e9, 2 * x.nbytes / copy / 1e9


# --- both -----------------------------------------------------------------------------------------


def measure(
    counts: Sequence[int], repeats: int = 50, rounds: int = ROUNDS, size: int = BYTES
) -> list[Peak]:
    """Measure the limits for each number of threads.

    Parameters
    ----------
    counts : sequence of int
        From 1 to ``numba.config.NUMBA_NUM_THREADS``.
    repeats : int
        How often each loop runs. The shortest time counts: a disturbance only makes it longer.
    rounds : int
        Multiply-adds in a row in each run.
    size : int
        Bytes of each array that is read or copied.
    """
    speeds = multiply_adds(counts, repeats, rounds)
    return [
        Peak(n, speed, *bandwidth(n, max(2, repeats // 5), size))
        for n, speed in zip(counts, speeds, strict=True)
    ]


def _shortest(run: Callable[[], Any], threads: int, repeats: int) -> float:
    """Return the shortest time of some runs, in seconds, after one that compiles."""
    found = []
    with on_threads(threads):
        run()
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return min(found)
