"""A convolution in float16 or bfloat16 as a matrix product on tensor cores, with float32 sums.

It is the product of `conv.gemm`, and its left matrix is not written down either. What differs is
who multiplies: a warp computes ``WM`` x 32 sums by instructions that take 16 x 16 values of the
left matrix and 16 x 8 of the right one (`words.tensor`). Both lie in shared memory in pairs, two
neighbouring depths in a word, as the instruction takes them; rows of the left slice begin 20 words
apart and those of the right one 8 words more than a multiple of 32, so that the 32 words that a
warp loads at once lie in 32 banks.

A thread's sums of one instruction are two neighbouring columns. Columns are dealt to the four
instructions of a group of 32 so that a thread has four neighbours of two, which it stores at once,
and the threads of a row 16 neighbours: whole sectors (`pairs.column_of`). Only what lays the weight
out has to know. Results whose rows are no whole sectors are stored as float32 first, filled up, and
brought to their places by `conv.fold`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ..conv import fold
from ..conv.windows import SECTOR, Windows, aligned, counted, filled, rounded, sight, sparse
from ..elementwise import widened
from ..runtime.arrays import DeviceArray, scratch, upload
from ..runtime.kernel import (
    KINDS,
    Kernel,
    ending,
    float32,
    floats,
    halves,
    int32,
    ints,
    pointer,
    uint32,
)
from ..runtime.machine import Launch
from ..words import (
    copies_done,
    copy4,
    floor4,
    floor4_or_nan,
    load2,
    load4_if,
    registers,
    shared,
    store4,
    sum4,
)
from ..words.tensor import load_pair, multiply
from .pairs import BK, GROUP, RUN, Pairs

SHALLOW = 128  # as in `conv.gemm`: values of two bytes
PITCH = BK // 2 + 4  # words of a row of the left slice
OUTSIDE = -(2**30)  # a line that is in no image, whatever tap is added


class Tile(NamedTuple):
    """The shape of a tile, and the rows of it that a warp computes."""

    BM: int
    BN: int
    WM: int


# With the multiply-adds for each value that is copied, relative to the first: counted, not timed.
TILES = {
    Tile(128, 128, 64): 1.0,
    Tile(128, 64, 32): 0.67,
    Tile(64, 64, 32): 0.5,
    Tile(64, 32, 16): 0.33,
    Tile(32, 32, 16): 0.25,
}


# --- kernels --------------------------------------------------------------------------------------


@cache
def tensor_kernel(tile: Tile, POINT: bool, of: Any = halves, to: Any = halves) -> Kernel:
    """Return the kernel for one shape of tile.

    ``POINT`` is as in `conv.gemm`, ``of`` the type of image and weight, and ``to`` that of the
    result and the residual.
    """
    BM, BN, WM = tile
    TYPE, floored = KINDS.index(of), floor4_or_nan if of == halves else floor4
    WARPS_N, ROWS = BN // GROUP, WM // 16
    HIGH = 32 * (BM // WM) * WARPS_N  # threads
    PITCH_B = BN + 8
    A, B = BM * PITCH, BK // 2 * PITCH_B  # words of a slice of the left and of the right matrix
    SHARED, SUMS, LEFT = 2 * (A + B), ROWS * 16, ROWS * 4
    Q, R = BK // RUN, BN // 4  # copies for a row of each
    DOWN, COPIES = HIGH // Q, BM * Q // HIGH
    DOWN_B, COPIES_B = HIGH // R, BK // 2 * R // HIGH

    def run(
        x, weight, bias, residual, y, see, positions, h, w, c_in, h_out, w_out, c_out,
        s_h, s_w, p_h, p_w, narrow, width, wide, depth, half, across, total, shift, add, floor,
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
        a_to = int32(row * PITCH + run * (RUN // 2))
        row_b, column_b = int32(thread // R), int32(thread % R * 4)
        b_to = int32(A + row_b * PITCH_B + column_b)
        b_at = int32((group * half + row_b) * wide + o0 + column_b)
        b_inside = o0 + column_b < wide

        # What it multiplies: its warp's rows and columns.
        lane, warp = int32(thread % 32), int32(thread // 32)
        g, t = int32(lane // 4), int32(lane % 4)
        first_row = int32(warp // WARPS_N * WM)
        from_a = int32((first_row + g) * PITCH + t)
        from_b = int32(A + t * PITCH_B + warp % WARPS_N * GROUP + g)
        sums = registers(SUMS)
        a = cuda.local.array(LEFT, int32)
        for i in range(SUMS):
            sums[i] = float32(0)

        to, of = int32(0), int32(A + B)
        for step in range(total + 1):
            if step < total:  # start to copy this slice ...
                k = int32(int32(step) * BK + run * RUN)
                for i in range(COPIES):
                    into = int32(to + a_to + i * DOWN * PITCH)
                    if POINT:
                        inside = top[i] != OUTSIDE and k < depth
                        copy4(s, into, x, int32(at[i] + k) >> 1, inside)
                    else:
                        offset, tap = load2(see, int32(k // 4))
                        inside = (
                            offset >= 0
                            and uint32(top[i] + (tap >> 16)) < uint32(h)
                            and uint32(left[i] + (tap & 65535)) < uint32(w)
                        )
                        copy4(s, into, x, int32(at[i] + offset) >> 1, inside)
                for i in range(COPIES_B):
                    down = i * DOWN_B
                    copy4(s, to + b_to + down * PITCH_B, weight, b_at + down * wide, b_inside)
                b_at = int32(b_at + BK // 2 * wide)
            if step > 0:  # ... and multiply the one before
                for deep in range(0, BK // 2, 8):
                    for i in range(ROWS):
                        for q in range(4):  # rows g and g + 8, then the same eight depths on
                            down = (16 * i + q % 2 * 8) * PITCH + deep + q // 2 * 4
                            a[4 * i + q] = load_pair(s, of + from_a, down)
                    for j in range(4):
                        b0 = load_pair(s, of + from_b, deep * PITCH_B + 8 * j)
                        b1 = load_pair(s, of + from_b, (deep + 4) * PITCH_B + 8 * j)
                        for i in range(ROWS):
                            multiply(
                                sums, 16 * i + 4 * j,
                                a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], b0, b1,
                                TYPE,
                            )  # fmt: skip
            copies_done()
            cuda.syncthreads()
            to, of = of, to

        for half_group in range(2):
            o = int32(o0 + warp % WARPS_N * GROUP + 16 * half_group + 4 * t)
            if o < width:
                o = int32(group * width + o)
                four = load4_if(bias, o, shift != 0, 16)
                for i in range(ROWS):
                    for q in range(2):
                        m = int32(m0 + first_row + g + (16 * i + 8 * q))
                        if m < positions:
                            into = int32(m * c_out + o)
                            n = 16 * i + 8 * half_group + 2 * q
                            made = sum4((sums[n], sums[n + 1], sums[n + 4], sums[n + 5]), four)
                            made = sum4(made, load4_if(residual, into, add != 0, 16))
                            store4(y, into, floored(made, floor), 16)

    kind = f"{'' if of == halves else ending(of)}{'_f' if to == floats else ''}"
    name = f"tensor_{BM}x{BN}x{WM}{'_point' if POINT else ''}{kind}"
    pointers = (floats, floats, floats, to, to, ints)
    return Kernel(name, run, (*pointers, *[int32] * 20, float32), HIGH)


# --- launchers ------------------------------------------------------------------------------------


def chosen(win: Windows, processors: int) -> Tile:
    """Choose the tile: of all that busy every processor the largest, else that with most blocks."""
    fitting = [tile for tile in TILES if max(GROUP, win.width) >= tile.BN]
    busy = [tile for tile in fitting if blocks(win, tile) >= processors]
    return max(busy, key=TILES.__getitem__) if busy else max(fitting, key=lambda t: blocks(win, t))


def blocks(win: Windows, tile: Tile) -> int:
    """Return how many tiles a convolution has."""
    return -(-win.positions // tile.BM) * -(-win.width // tile.BN) * win.groups


def product(
    x: DeviceArray,
    weight: Pairs,
    bias: DeviceArray | None,
    residual: DeviceArray | None,
    out: DeviceArray,
    win: Windows,
    relu: bool = False,
) -> list[Launch]:
    """Return the launches of a convolution."""
    if win.positions == 0:
        return []
    # Rows have to be whole sectors. Eights in groups are halves, which count where little is seen.
    narrow = win.width == 8 if win.groups == 1 else win.depth >= SHALLOW
    ends = win.width % (8 if narrow else 4 * SECTOR // out.dtype.itemsize) == 0
    ends = ends and aligned(out, residual, bias)
    sectors = sparse(win, RUN, weight.wide, weight.line)
    x, launches = filled(x, win.groups, RUN, sectors)
    if sectors:  # the eight channels of each tap become 16, too
        few, made = weight.data, scratch(x.machine, (2 * weight.data.size,), weight.data.dtype)
        launches.append(widened(few, made, RUN * weight.wide, 2 * RUN * weight.wide))
        weight = Pairs(made, 2 * weight.deep, weight.wide, weight.line)
    c_out = win.groups * rounded(win.width, 8)
    win = counted(win._replace(c_in=x.shape[-1], c_out=c_out))
    tile = chosen(win, x.machine.multiprocessors)
    y = out if ends else scratch(x.machine, (1, win.positions, c_out))
    kernel = tensor_kernel(tile, win.point, pointer(x), pointer(y))
    shift, add, floor = bias is not None, residual is not None, 0.0 if relu else -np.inf
    across = -(-win.width // tile.BN) * win.groups
    numbers = (
        win.positions, win.h, win.w, win.c_in, win.h_out, win.w_out, win.c_out, win.s_h, win.s_w,
        win.p_h, win.p_w, win.narrow, win.width, weight.wide, win.depth, weight.deep // 2, across,
        weight.deep // BK, int(shift and ends), int(add and ends), floor if ends else -np.inf,
    )  # fmt: skip
    see = None
    if not win.point:
        see = upload(x.machine, sight(win, RUN, weight.deep, weight.line))
    arrays = (x, weight.data, bias, residual if ends else None, y, see)
    launches.append(Launch(kernel, blocks(win, tile), (*arrays, *numbers)))
    return launches if ends else [*launches, *fold.rows(y, bias, residual, out, win, relu)]
