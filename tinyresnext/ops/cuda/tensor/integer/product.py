"""A convolution of integers as a matrix product, by `dp4a`.

It is the product of `conv.gemm` with words of four channels for values: what is copied, where it
lies in shared memory and which sums a thread has are the same, and a word of depth is four products
for each sum. The depth is not split. Sums are integers until the end, which a thread computes for
four neighbouring filters in registers and stores as one word; eight threads store a sector.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from ...conv.gemm import OUTSIDE, PITCH, Tile
from ...conv.pack import BK
from ...conv.windows import SECTOR, Windows, counted, filled, sight
from ...runtime.arrays import DeviceArray, scratch, upload
from ...runtime.kernel import Kernel, floats, int32, ints, uint32
from ...runtime.machine import Launch
from ...words import (
    copies_done,
    copy4,
    floor4,
    keep4,
    load2,
    load4,
    load4_if,
    registers,
    shared,
    store4,
    take4,
)
from ...words.integer import added4, bytes4, dot4, finished4, put_word, word_if, words4
from .ends import BYTES, NUMBERS, STORED, SUMS, End, ended
from .pack import RUN, Words

# With the products for each word that is copied, relative to the first: counted, not timed. A
# thread has 32 sums at most: with more, the compiler does not unroll what follows them.
TILES = {Tile(128, 64, 4, 8): 1.0, Tile(64, 64, 4, 8): 0.75, Tile(32, 32, 4, 4): 0.38}


# --- kernel ---------------------------------------------------------------------------------------


@cache
def dot_kernel(tile: Tile, POINT: bool, SIGNED: int, END: int) -> Kernel:
    """Return the kernel for one shape of tile.

    ``POINT`` is as in `conv.gemm`. ``SIGNED`` is whether the image has negative numbers, and
    ``END`` what is stored (`ends`). Channels of the image are counted in words.
    """
    BM, BN, TM, TN = tile
    WARPS_N = BN // (8 * TN)
    THREADS = 32 * (BM // (4 * TM)) * WARPS_N
    A, B = BM * PITCH, BK * BN  # words of a slice of the left and of the right matrix
    SHARED, COUNT, VALUES = 2 * (A + B), TM * TN, TM * 4
    Q, R = BK // RUN, BN // 4  # copies for a row of each
    DOWN, COPIES = THREADS // Q, BM * Q // THREADS
    DOWN_B, COPIES_B = THREADS // R, BK * R // THREADS

    def run(
        x, weight, factor, bias, residual, y, see, positions, h, w, c_in, h_out, w_out, c_out,
        s_h, s_w, p_h, p_w, narrow, width, wide, depth, deep, across, total, ends,
        add, sign, scale, floor, inverse, low, high,
    ):  # fmt: skip
        s = shared(SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        m0, column = int32(block // uint32(across)) * BM, uint32(block % uint32(across))
        group_tiles = uint32(uint32(width + BN - 1) // uint32(BN))
        group, o0 = int32(column // group_tiles), int32(int32(column % group_tiles) * BN)

        # What this thread copies: where the window of each of its positions begins.
        row, run = int32(thread // Q), int32(thread % Q)
        top = cuda.local.array(COPIES, int32)
        left = cuda.local.array(COPIES, int32)
        at = cuda.local.array(COPIES, int32)
        for i in range(COPIES):
            m = uint32(m0 + row + i * DOWN)
            image, p = m // uint32(h_out * w_out), m % uint32(h_out * w_out)
            r = int32(uint32(p) // uint32(w_out)) * s_h - p_h
            q = int32(uint32(p) % uint32(w_out)) * s_w - p_w
            at[i] = ((int32(image) * h + r) * w + q) * c_in + group * narrow
            top[i] = int32(r) if m < uint32(positions) else int32(OUTSIDE)
            left[i] = int32(q)
        a_to = int32(row * PITCH + run * RUN)
        row_b, column_b = int32(thread // R), int32(thread % R * 4)
        b_to = int32(A + row_b * BN + column_b)
        b_at = int32((group * deep + row_b) * wide + o0 + column_b)
        b_inside = o0 + column_b < wide

        # What it multiplies: rows ty, ty + 4, ... and columns tx to tx + 3, tx + 32 to tx + 35, ...
        lane, warp = int32(thread % 32), int32(thread // 32)
        ty = int32(warp // WARPS_N * 4 * TM + lane // 8)
        tx = int32(warp % WARPS_N * 8 * TN + lane % 8 * 4)
        a, sums = registers(VALUES), registers(COUNT)
        for i in range(COUNT):
            put_word(sums, i, int32(0))

        to, of = int32(0), int32(A + B)
        for step in range(total + 1):
            if step < total:  # start to copy this slice ...
                k = int32(int32(step) * BK + run * RUN)
                offset, tap = k, int32(0)
                if not POINT:
                    offset, tap = load2(see, int32(k // RUN * 2))
                for i in range(COPIES):
                    if POINT:
                        inside = top[i] != OUTSIDE and k < depth
                    else:
                        inside = (
                            offset >= 0
                            and uint32(top[i] + (tap >> 16)) < uint32(h)
                            and uint32(left[i] + (tap & 65535)) < uint32(w)
                        )
                    copy4(s, to + a_to + i * DOWN * PITCH, x, at[i] + offset, inside)
                for i in range(COPIES_B):
                    down = i * DOWN_B
                    copy4(s, to + b_to + down * BN, weight, b_at + down * wide, b_inside)
                b_at = int32(b_at + BK * wide)
            if step > 0:  # ... and multiply the one before
                from_a, from_b = int32(of + ty * PITCH), int32(of + A + tx)
                for _ in range(0, BK, 4):
                    for i in range(TM):
                        keep4(a, 4 * i, load4(s, from_a, 4 * i * PITCH, 16))
                    for q in range(4):
                        for j in range(0, TN, 4):
                            four = words4(s, from_b, q * BN + 8 * j)
                            for i in range(TM):
                                dot4(sums, TN * i + j, a, 4 * i + q, four, SIGNED)
                    from_a, from_b = int32(from_a + 4), int32(from_b + 4 * BN)
            copies_done()
            cuda.syncthreads()
            to, of = of, to

        for j in range(0, TN, 4):
            o = int32(o0 + tx + 8 * j)
            if o < width:
                o = int32(group * width + o)
                by = load4_if(factor, o, ends != 0, 16)
                more = load4_if(bias, o, ends != 0, 16)
                for i in range(TM):
                    m = int32(m0 + ty + 4 * i)
                    if m < positions:
                        into = int32(m * c_out + o)
                        if END == SUMS:
                            store4(y, into, take4(sums, TN * i + j), 16)
                        else:
                            made = finished4(sums, TN * i + j, by, more)
                            if add != 0:
                                word = word_if(residual, into >> 2, True)
                                made = added4(made, word, sign, scale)
                            made = floor4(made, floor)
                            if END == BYTES:
                                put_word(y, into >> 2, bytes4(made, inverse, low, high))
                            else:
                                store4(y, into, made, 16)

    kind = f"{'_point' if POINT else ''}{'_signed' if SIGNED else ''}_{STORED[END]}"
    parameters = (*[floats] * 6, ints, *[int32] * 19, *NUMBERS)
    return Kernel(f"dot_{BM}x{BN}x{TM}x{TN}{kind}", run, parameters, THREADS)


# --- launcher -------------------------------------------------------------------------------------


def blocks(win: Windows, tile: Tile) -> int:
    """Return how many tiles a convolution has."""
    return -(-win.positions // tile.BM) * -(-win.width // tile.BN) * win.groups


def chosen(win: Windows, processors: int) -> Tile:
    """Choose the tile: of all that busy every processor the largest, else that with most blocks."""
    busy = [tile for tile in TILES if blocks(win, tile) >= processors]
    return max(busy, key=TILES.__getitem__) if busy else max(TILES, key=lambda t: blocks(win, t))


def product(
    x: DeviceArray, weight: Words, end: End, out: DeviceArray, win: Windows
) -> list[Launch]:
    """Return the launches of a convolution; ``win`` counts channels, and all arrays begin at 16."""
    if win.positions == 0:
        return []
    # Up to 32 filters lie side by side; rows of more are whole sectors, or sums are stored.
    row = 4 if win.groups == 1 and win.c_out <= 32 else 4 * SECTOR // out.dtype.itemsize
    ends = win.width % row == 0
    x, launches = filled(x, win.groups, 4 * RUN)
    c_out = win.c_out if ends else win.groups * weight.wide
    win = counted(win._replace(c_in=x.shape[-1] // 4, c_out=c_out))
    tile = chosen(win, x.machine.multiprocessors)
    y = out if ends else scratch(x.machine, (1, win.positions, c_out), "int32")
    kernel = dot_kernel(tile, win.point, int(x.dtype == "int8"), end.kind if ends else SUMS)
    total = weight.deep // BK
    numbers = (
        win.positions, win.h, win.w, win.c_in, win.h_out, win.w_out, win.c_out, win.s_h, win.s_w,
        win.p_h, win.p_w, win.narrow, win.width, weight.wide, win.depth, weight.deep,
        -(-win.width // tile.BN) * win.groups, total, int(ends), *end.numbers,
    )  # fmt: skip
    see = None if win.point else upload(x.machine, sight(win, RUN, total * BK))
    arrays = (x, weight.data, end.factor, end.bias, end.residual, y, see)
    launches.append(Launch(kernel, blocks(win, tile), (*arrays, *numbers)))
    return launches if ends else [*launches, *ended(y, end, out, win.groups)]
