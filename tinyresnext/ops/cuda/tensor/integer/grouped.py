"""Grouped convolution of integers for narrow groups, directly, by `dp4a`.

It is the kernel of `conv.grouped`, with words: a group of four channels is one word, so a 3x3 is
nine products of words for a filter, and a thread has the four filters of the group. The threads of
a warp read neighbouring words of the image, 128 bytes, and store neighbouring words of the result.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from ...conv.grouped import LINES, WARPS
from ...conv.pack import SLAB
from ...conv.windows import Windows
from ...runtime.arrays import DeviceArray
from ...runtime.kernel import Kernel, floats, int32, uint32
from ...runtime.machine import Launch
from ...words import copies_done, copy4, floor4, load4_if, registers, shared, store4
from ...words.integer import added4, bytes4, dot4, finished4, put_word, word_if, words4
from .ends import BYTES, NUMBERS, STORED, End
from .pack import Turns

COLUMNS = 4  # of a thread, with strides of one and two

# --- kernel ---------------------------------------------------------------------------------------


@cache
def grouped_dot_kernel(K_H: int, K_W: int, STRIDE: int, WIDE: int, SIGNED: int, END: int) -> Kernel:
    """Return the kernel for one size of filters.

    The first three are as in `conv.grouped`, ``WIDE`` is the number of columns of a thread, and the
    others are as in `product`. Channels of the image are counted in words.
    """
    THREADS, SEEN = 32 * WARPS, (WIDE - 1) * STRIDE + K_W
    SLICE = K_H * K_W * SLAB  # words of four channels for 128 filters
    SHARED = 2 * SLICE
    COUNT, VALUES = LINES * WIDE * 4, LINES * SEEN

    def run(
        x, weight, factor, bias, residual, y, h, w, c_in, h_out, w_out, c_out, s_h, s_w, p_h, p_w,
        fours, width, slabs, tiles, add, sign, scale, floor, inverse, low, high,
    ):  # fmt: skip
        s = shared(SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        lane, slab = int32(thread % 32), int32(block % uint32(slabs))
        tile = uint32(int32(block // uint32(slabs)) * WARPS + thread // 32)
        # The first of this thread's filters, the first word of its group, and the word that it
        # begins with (see `Turns`).
        o = int32(slab * SLAB + lane * 4)
        first = int32(uint32(o) // uint32(width)) * fours
        begins = int32(uint32(o) % uint32(width) // uint32(4) % uint32(fours))

        # Which positions: some lines and columns of one image. A tile that is not there reads
        # nothing and writes nothing.
        across = uint32((w_out + WIDE - 1) // WIDE)
        down = uint32((h_out + LINES - 1) // LINES)
        column = int32(uint32(tile % across) * uint32(WIDE))
        line = int32(uint32(uint32(tile // across) % down) * uint32(LINES))
        there = tile < uint32(tiles) and o < c_out
        image = int32(uint32(tile // across) // down)
        top, left = int32(line * s_h - p_h), int32(column * s_w - p_w)

        sums, v = registers(COUNT), registers(VALUES)
        for i in range(COUNT):
            put_word(sums, i, int32(0))
        for four in range(fours + 1):
            if four < fours:  # start to copy the weights of these four channels ...
                to, of = int32(four % 2 * SLICE), int32((slab * fours + four) * SLICE)
                for i in range(thread * 4, SLICE, THREADS * 4):
                    copy4(s, int32(to + i), weight, int32(of + i), True)
            if four > 0:  # ... and multiply with those of the four before
                of = int32((four - 1) % 2 * SLICE + lane * 4)
                turn = int32(four - 1 + begins)
                channel = int32(first + (turn - fours if turn >= fours else turn))
                for i in range(K_H):
                    for up in range(LINES):
                        row = int32(top + up * s_h + i)
                        at = int32(((image * h + row) * w + left) * c_in + channel)
                        inside = there and uint32(row) < uint32(h)
                        for j in range(SEEN):
                            seen = inside and uint32(left + j) < uint32(w)
                            put_word(v, up * SEEN + j, word_if(x, at + j * c_in, seen))
                    for j in range(K_W):
                        words = words4(s, of, (i * K_W + j) * SLAB)
                        for up in range(LINES):
                            for p in range(WIDE):
                                a = up * SEEN + p * STRIDE + j
                                dot4(sums, 4 * (up * WIDE + p), v, a, words, SIGNED)
            copies_done()
            cuda.syncthreads()

        if there:
            by, more = load4_if(factor, o, there, 16), load4_if(bias, o, there, 16)
            for up in range(LINES):
                for p in range(WIDE):
                    if line + up < h_out and column + p < w_out:
                        at = int32(((image * h_out + line + up) * w_out + column + p) * c_out + o)
                        made = finished4(sums, 4 * (up * WIDE + p), by, more)
                        if add != 0:
                            made = added4(made, word_if(residual, at >> 2, there), sign, scale)
                        made = floor4(made, floor)
                        if END == BYTES:
                            put_word(y, at >> 2, bytes4(made, inverse, low, high))
                        else:
                            store4(y, at, made, 16)

    kind = f"{'_signed' if SIGNED else ''}_{STORED[END]}"
    parameters = (*[floats] * 6, *[int32] * 14, *NUMBERS)
    return Kernel(f"grouped_dot_{K_H}x{K_W}_{STRIDE}_{WIDE}{kind}", run, parameters, THREADS)


# --- launcher -------------------------------------------------------------------------------------


def direct(x: DeviceArray, weight: Turns, end: End, out: DeviceArray, win: Windows) -> list[Launch]:
    """Return the launches of a convolution that `conv.grouped.suits`; all arrays begin at 16."""
    if win.positions == 0:
        return []
    columns, stride = (COLUMNS, win.s_w) if win.s_w <= 2 else (1, 1)
    signed = int(x.dtype == "int8")
    kernel = grouped_dot_kernel(win.k_h, win.k_w, stride, columns, signed, end.kind)
    slabs = -(-win.c_out // SLAB)
    tiles = win.n * -(-win.h_out // LINES) * -(-win.w_out // columns)
    numbers = (
        win.h, win.w, win.c_in // 4, win.h_out, win.w_out, win.c_out, win.s_h, win.s_w, win.p_h,
        win.p_w, win.narrow // 4, win.width, slabs, tiles, *end.numbers,
    )  # fmt: skip
    arrays = (x, weight.data, end.factor, end.bias, end.residual, out)
    return [Launch(kernel, slabs * -(-tiles // WARPS), (*arrays, *numbers))]
