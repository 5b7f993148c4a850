"""Grouped convolution for narrow groups, ResNeXt's own layer (Equation 2, Figure 3c), directly.

A group of 4 to 32 channels is too narrow for a tile of filters. So a thread computes four channels
of ``LINES`` x ``COLUMNS`` neighbouring positions. The 32 threads of a warp have neighbouring fours
of channels, 128 of them. The channels of a group are taken four at a time, and each thread of a
group begins with another four, so what a warp reads of the image at one time lies side by side. The
weights for all 128 filters (nine taps, 18 KiB) are in shared memory, and the next are copied
meanwhile. Each value of the image is used for four filters and up to three columns, each weight for
all positions of the thread.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ..pool.window import in_sectors
from ..runtime.arrays import DeviceArray
from ..runtime.kernel import (
    KINDS,
    Kernel,
    ending,
    float32,
    floats,
    halves,
    int32,
    pointer,
    uint32,
)
from ..runtime.machine import Launch
from ..words import (
    add4,
    copies_done,
    copy4,
    floor4,
    floor4_or_nan,
    keep4,
    load4,
    load4_if,
    registers,
    shared,
    store4,
    sum4,
    take4,
    typed,
)
from .pack import SLAB, Slabs
from .windows import Windows, aligned

WARPS = 4
NARROWEST, WIDEST = 4, 32  # channels of a group
TAPS = 3  # in one direction, at most: their weights have room in shared memory
LINES = 2


def suits(win: Windows) -> bool:
    """Return whether a convolution is computed here, and not as a matrix product.

    With fewer filters than channels, a group would read whole sectors only in part.
    """
    return (
        win.groups > 1
        and win.narrow % 4 == win.width % 4 == 0
        and win.narrow <= min(WIDEST, win.width)
        and max(win.k_h, win.k_w) <= TAPS
    )


# --- kernel ---------------------------------------------------------------------------------------


@cache
def grouped_kernel(
    K_H: int, K_W: int, STRIDE: int, COLUMNS: int, ALIGN: int, kind: Any = floats
) -> Kernel:
    """Return the kernel for one size of filters.

    ``STRIDE`` is the horizontal one where a thread has several columns, ``ALIGN`` 16, or 4 where
    image, bias, residual or result do not begin at a multiple of 16 bytes; ``kind`` is the type of
    image, weight, residual and result.
    """
    THREADS, SEEN = 32 * WARPS, (COLUMNS - 1) * STRIDE + K_W
    SLICE = K_H * K_W * 4 * SLAB  # weights of four channels for 128 filters
    TYPE, SIZE = KINDS.index(kind), 4 if kind == floats else 2  # bytes of a value
    WORDS = SLICE * SIZE // 4
    SHARED = 2 * WORDS
    SUMS, VALUES = LINES * COLUMNS * 4, LINES * SEEN * 4
    floored = floor4_or_nan if kind == halves else floor4

    def run(
        x, weight, bias, residual, y, n, h, w, c_in, h_out, w_out, c_out, s_h, s_w, p_h, p_w,
        narrow, width, slabs, apart, tiles, shift, add, floor,
    ):  # fmt: skip
        s = shared(SHARED)
        weights = typed(s, TYPE)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        lane, slab = int32(thread % 32), int32(block % uint32(slabs))
        tile = uint32(int32(block // uint32(slabs)) * WARPS + thread // 32)
        # The first of this thread's filters, the first channel of its group, and the four channels
        # that it begins with (see `Slabs`).
        o = int32(slab * SLAB + lane * 4)
        first, fours = int32(uint32(o) // uint32(width)) * narrow, int32(narrow // 4)
        begins = int32(uint32(o) % uint32(width) // uint32(4) % uint32(fours))

        # Which positions: some lines and columns of one image. A tile that is not there reads
        # nothing and writes nothing.
        across = uint32((w_out + COLUMNS - 1) // COLUMNS)
        down = uint32((h_out + LINES - 1) // LINES)
        column = int32(uint32(tile % across) * uint32(COLUMNS))
        line = int32(uint32(uint32(tile // across) % down) * uint32(LINES))
        there = tile < uint32(tiles) and o < c_out
        image = int32(uint32(tile // across) // down)
        top, left = int32(line * s_h - p_h), int32(column * s_w - p_w)

        sums, v = registers(SUMS), registers(VALUES)
        for i in range(SUMS):
            sums[i] = float32(0)
        for four in range(fours + 1):
            if four < fours:  # start to copy the weights of these four channels ...
                to, of = int32(four % 2 * WORDS), int32((slab * fours + four) * apart)
                for i in range(thread * 4, WORDS, THREADS * 4):
                    copy4(s, int32(to + i), weight, int32(of + i), True)
            if four > 0:  # ... and multiply with those of the four before
                of = int32((four - 1) % 2 * SLICE + lane * 4)
                turn = int32(four - 1 + begins)
                channel = int32(first + (turn - fours if turn >= fours else turn) * 4)
                for i in range(K_H):
                    for up in range(LINES):
                        row = int32(top + up * s_h + i)
                        at = int32(((image * h + row) * w + left) * c_in + channel)
                        inside = there and uint32(row) < uint32(h)
                        for j in range(SEEN):
                            seen = inside and uint32(left + j) < uint32(w)
                            keep4(v, 4 * (up * SEEN + j), load4_if(x, at + j * c_in, seen, ALIGN))
                    for j in range(K_W):
                        for e in range(4):
                            values = load4(weights, of, ((i * K_W + j) * 4 + e) * SLAB, 16)
                            for up in range(LINES):
                                for p in range(COLUMNS):
                                    a = 4 * (up * SEEN + p * STRIDE + j) + e
                                    add4(sums, 4 * (up * COLUMNS + p), v, a, values)
            copies_done()
            cuda.syncthreads()

        if there:
            values = load4_if(bias, o, shift != 0, ALIGN)
            for up in range(LINES):
                for p in range(COLUMNS):
                    if line + up < h_out and column + p < w_out:
                        at = int32(((image * h_out + line + up) * w_out + column + p) * c_out + o)
                        made = sum4(take4(sums, 4 * (up * COLUMNS + p)), values)
                        made = sum4(made, load4_if(residual, at, add != 0, ALIGN))
                        store4(y, at, floored(made, floor), ALIGN)

    name = f"grouped_{K_H}x{K_W}_{STRIDE}_{COLUMNS}_{ALIGN}{ending(kind)}"
    return Kernel(name, run, (kind, floats, floats, kind, kind, *[int32] * 18, float32), THREADS)


# --- launcher -------------------------------------------------------------------------------------


def columns_of(stride: int) -> int:
    """Return how many columns a thread takes at once, forward and for gradients of weights."""
    return 7 if stride <= 2 else 1


def direct(
    x: DeviceArray,
    weight: Slabs,
    bias: DeviceArray | None,
    residual: DeviceArray | None,
    out: DeviceArray,
    win: Windows,
    relu: bool = False,
) -> list[Launch]:
    """Return the launches of a convolution that `suits`."""
    if win.positions == 0:
        return []
    columns = columns_of(win.s_w)
    # In 16 bits, every other pixel of 12 channels more than whole sectors would cross one more.
    x, first = in_sectors(x) if x.dtype.itemsize < 4 and win.c_in % 16 == 12 else (x, [])
    align = 16 if aligned(x, residual, out, bias) else 4
    stride = win.s_w if columns > 1 else 1
    kernel = grouped_kernel(win.k_h, win.k_w, stride, columns, align, pointer(x))
    slabs = -(-win.c_out // SLAB)
    tiles = win.n * -(-win.h_out // LINES) * -(-win.w_out // columns)
    numbers = (
        win.n, win.h, win.w, x.shape[-1], win.h_out, win.w_out, win.c_out, win.s_h, win.s_w,
        win.p_h, win.p_w, win.narrow, win.width, slabs, weight.apart * x.dtype.itemsize // 4, tiles,
        int(bias is not None), int(residual is not None), 0.0 if relu else -np.inf,
    )  # fmt: skip
    arrays = (x, weight.data, bias, residual, out)
    return [*first, Launch(kernel, slabs * -(-tiles // WARPS), (*arrays, *numbers))]
