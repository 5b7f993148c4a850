"""The gradient of the weight of a grouped convolution with narrow groups, directly.

A thread computes the gradients between four filters and four channels of their group, for the taps
of one line: 48 sums for a kernel of 3x3, in registers. (All nine taps at once would be 144, which
with what they are computed from is more than a thread has.) It walks over positions of the result,
``COLUMNS`` neighbours at a time; a value of the image that it loads is used for up to three taps
and four filters. As in `grouped`, a warp has 128 neighbouring filters, and each
thread of a group its own four channels. The positions are split
among blocks and, in a block, among its warps; sums are added in order, first those of the warps in
shared memory, then those of the blocks by `fold`.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, float32, floats, int32, uint32
from ..runtime.machine import Launch
from ..words import (
    add4,
    keep4,
    load4,
    load4_if,
    registers,
    shared,
    store4,
    sum4,
    take4,
)
from . import fold
from .grouped import columns_of
from .pack import SLAB
from .windows import MOST, Windows, aligned

WARPS = 4
STRIPS = 4  # neighbouring positions that a warp walks over, at least so many times
WAVES = 2  # blocks for each processor that splitting aims at


# --- kernel ---------------------------------------------------------------------------------------


@cache
def grouped_outer_kernel(K_W: int, STRIDE: int, COLUMNS: int, ALIGN: int) -> Kernel:
    """Return the kernel for one width of filters; the constants are those of `grouped_kernel`."""
    THREADS, SEEN = 32 * WARPS, (COLUMNS - 1) * STRIDE + K_W
    SUMS, VALUES, GRADIENTS = K_W * 16, SEEN * 4, COLUMNS * 4
    SHARED = SUMS * 32

    def run(
        dy, x, sums_out, h, w, c_in, h_out, w_out, c_out, s_h, s_w, p_h, p_w,
        narrow, width, slabs, fours, k_h, parts, strips, length,
    ):  # fmt: skip
        s = shared(SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        lane, warp = int32(thread % 32), int32(thread // 32)
        part, rest = int32(block % uint32(parts)), uint32(block // uint32(parts))
        rest, tap = uint32(rest // uint32(k_h)), int32(rest % uint32(k_h))
        slab, four = int32(rest // uint32(fours)), int32(rest % uint32(fours))
        o = int32(slab * SLAB + lane * 4)
        turn = int32(uint32(o) % uint32(width) // uint32(4) % uint32(fours) + uint32(four))
        channel = int32(turn - fours if turn >= fours else turn) * 4
        channel = int32(int32(uint32(o) // uint32(width)) * narrow + channel)

        sums, v, d = registers(SUMS), registers(VALUES), registers(GRADIENTS)
        for i in range(SUMS):
            sums[i] = float32(0)
        across = uint32((w_out + COLUMNS - 1) // COLUMNS)
        strip = int32(part * length + warp)
        last = int32(part * length + length) if part * length + length < strips else int32(strips)
        while strip < last and o < c_out:
            line = uint32(strip) // across
            column = int32(uint32(uint32(strip) % across) * uint32(COLUMNS))
            image, line = int32(uint32(line) // uint32(h_out)), int32(uint32(line) % uint32(h_out))
            at = int32(((image * h_out + line) * w_out + column) * c_out + o)
            for p in range(COLUMNS):
                keep4(d, 4 * p, load4_if(dy, int32(at + p * c_out), column + p < w_out, ALIGN))
            left = int32(column * s_w - p_w)
            row = int32(line * s_h - p_h + tap)
            at = int32(((image * h + row) * w + left) * c_in + channel)
            inside = uint32(row) < uint32(h)
            for j in range(SEEN):
                seen = inside and uint32(left + j) < uint32(w)
                keep4(v, 4 * j, load4_if(x, int32(at + j * c_in), seen, ALIGN))
            for p in range(COLUMNS):
                gradient = take4(d, 4 * p)
                for j in range(K_W):
                    for e in range(4):
                        a = 4 * (p * STRIDE + j) + e
                        add4(sums, 16 * j + 4 * e, v, a, gradient)
            strip = int32(strip + WARPS)

        for turn in range(WARPS):
            if warp == turn:
                for i in range(0, SUMS, 4):
                    at = int32(i * 32 + lane * 4)
                    total = take4(sums, i)
                    if turn > 0:
                        total = sum4(load4(s, at, 0, 16), total)
                    if turn < WARPS - 1:
                        store4(s, at, total, 16)
                    else:
                        into = int32(
                            (((part * slabs + slab) * fours + four) * k_h + tap) * SHARED + at
                        )
                        store4(sums_out, into, total, 16)
            cuda.syncthreads()

    name = f"grouped_outer_{K_W}_{STRIDE}_{COLUMNS}_{ALIGN}"
    return Kernel(name, run, (*[floats] * 3, *[int32] * 18), THREADS)


# --- launcher -------------------------------------------------------------------------------------


def grouped_outer(
    x: DeviceArray, dy: DeviceArray, out: DeviceArray, win: Windows, more: bool
) -> list[Launch]:
    """Return the launches of a weight's gradient that `grouped.suits`."""
    columns, fours, slabs = columns_of(win.s_w), win.narrow // 4, -(-win.c_out // SLAB)
    blocks = slabs * fours * win.k_h
    strips = win.n * win.h_out * -(-win.w_out // columns)
    size = slabs * fours * win.k_h * win.k_w * 4 * SLAB
    parts = WAVES * x.machine.multiprocessors // blocks
    parts = min(parts, strips // (WARPS * STRIPS), MOST // size)
    length = -(-strips // max(1, parts))
    parts = -(-strips // length)
    align = 16 if aligned(x, dy) else 4
    stride = win.s_w if columns > 1 else 1
    kernel = grouped_outer_kernel(win.k_w, stride, columns, align)
    sums = scratch(x.machine, (parts, size))
    numbers = (
        win.h, win.w, win.c_in, win.h_out, win.w_out, win.c_out, win.s_h, win.s_w, win.p_h, win.p_w,
        win.narrow, win.width, slabs, fours, win.k_h, parts, strips, length,
    )  # fmt: skip
    launch = Launch(kernel, blocks * parts, (dy, x, sums, *numbers))
    return [launch, fold.slabs(sums, parts, win, out, more)]
