"""The gradient of a weight as a matrix product over positions.

    dweight[o, k] = sum over m of dy[m, o] * a[m, k]

``a`` is the left matrix of `gemm`: a row ``m`` is a position, a column ``k`` a value that it sees
(tap, channel). Both matrices have a position's values side by side, so a slice of `DEEP` positions
is copied to shared memory as it lies, and a thread loads four neighbouring filters and four
neighbouring columns at once. Only a weight has few tiles and many positions, so the positions are
split: each part writes its sums, and `fold` adds them in order.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import cuda

from ..runtime.arrays import DeviceArray, scratch, upload
from ..runtime.kernel import Kernel, float32, floats, int32, ints, uint32
from ..runtime.machine import Launch
from ..words import (
    add4,
    copies_done,
    copy4,
    keep4,
    load2,
    load4,
    registers,
    shared,
    store4,
    take4,
)
from . import fold
from .pack import RUN
from .windows import MOST, SECTOR, Windows, counted, filled, rounded, sight, sparse

DEEP = 16  # positions of a slice


class Tile(NamedTuple):
    """The shape of a tile, and of what one thread of it computes."""

    BM: int  # filters
    BN: int  # values that a position sees
    TM: int
    TN: int


TILES = (Tile(128, 128, 8, 8), Tile(64, 64, 8, 4), Tile(32, 32, 4, 4))
FEW = 64  # positions: with more, what is loaded is most, and half sectors of sums count little
WASTE = 0.75  # of a tile's sums, at least as many have to be wanted ones
STEPS = 8  # slices that a part of the positions has at least
WAVES = 2  # blocks for each processor that splitting aims at


# --- kernel ---------------------------------------------------------------------------------------


@cache
def outer_kernel(tile: Tile, PLAIN: bool) -> Kernel:
    """Return the kernel for one shape of tile.

    A warp, four threads down by eight across, computes ``4 TM`` x ``8 TN`` sums. Four values of
    ``dy`` and of the image are copied at once.
    """
    BM, BN, TM, TN = tile
    WARPS_N = BN // (8 * TN)
    THREADS = 32 * (BM // (4 * TM)) * WARPS_N
    A, B = BM * DEEP, BN * DEEP
    SHARED, SUMS = 2 * (A + B), TM * TN
    Q, R = BM // RUN, BN // RUN  # copies for a position of each
    # Every thread copies the same filter of every DOWN-th position.
    DOWN, COPIES = max(1, THREADS // Q), DEEP * Q // THREADS
    DOWN_B, COPIES_B = max(1, THREADS // R), DEEP * R // THREADS

    def run(
        dy, x, sums_out, see, positions, h, w, c_in, h_out, w_out, c_out, s_h, s_w, p_h, p_w,
        narrow, width, depth, deep, down, across, tiles, length,
    ):  # fmt: skip
        s = shared(SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        part, tile = int32(block // uint32(tiles)), uint32(block % uint32(tiles))
        below, k0 = uint32(tile // uint32(across)), int32(int32(tile % uint32(across)) * BN)
        group, o0 = int32(below // uint32(down)), int32(int32(below % uint32(down)) * BM)
        first = int32(part * length)
        last = int32(first + length) if first + length < positions else int32(positions)

        # What this thread copies: some filters, and some columns, of several positions of a slice.
        row, o = int32(thread // Q), int32(o0 + thread % Q * RUN)
        wanted = o < width
        a_to, a_at = int32(row * BM + thread % Q * RUN), int32(group * width + o)
        row_b, k = int32(thread // R), int32(k0 + thread % R * RUN)
        b_to = int32(A + row_b * BN + thread % R * RUN)
        offset, tap = int32(k), int32(0)
        if PLAIN:
            seen = k < depth
        else:
            offset, tap = load2(see, int32(2 * int32(k // RUN)))
            seen = offset >= 0
        offset = int32(offset + group * narrow)

        # What it multiplies: filters ty to ty + 3, ty + 16 to ty + 19, ... and columns tx to
        # tx + 3, tx + 32 to tx + 35, ... of its warp's part.
        lane, warp = int32(thread % 32), int32(thread // 32)
        ty = int32(warp // WARPS_N * 4 * TM + lane // 8 * 4)
        tx = int32(warp % WARPS_N * 8 * TN + lane % 8 * 4)
        a, sums = registers(TM), registers(SUMS)
        for i in range(SUMS):
            sums[i] = float32(0)

        to, of = int32(0), int32(A + B)
        slices = int32((last - first + DEEP - 1) // DEEP)
        for step in range(slices + 1):
            if step < slices:  # start to copy these positions ...
                for i in range(COPIES):
                    m = int32(first + row + i * DOWN)
                    inside = wanted and m < last
                    copy4(s, to + a_to + i * DOWN * BM, dy, m * c_out + a_at, inside)
                for i in range(COPIES_B):
                    m = int32(first + row_b + i * DOWN_B)
                    at, inside = int32(m * c_in + offset), seen and m < last
                    if not PLAIN:
                        image = uint32(m) // uint32(h_out * w_out)
                        p = uint32(m) % uint32(h_out * w_out)
                        line = int32(int32(uint32(p) // uint32(w_out)) * s_h - p_h)
                        column = int32(int32(uint32(p) % uint32(w_out)) * s_w - p_w)
                        at = int32(((int32(image) * h + line) * w + column) * c_in + offset)
                        inside = (
                            inside
                            and uint32(line + (tap >> 16)) < uint32(h)
                            and uint32(column + (tap & 65535)) < uint32(w)
                        )
                    copy4(s, to + b_to + i * DOWN_B * BN, x, at, inside)
                first = int32(first + DEEP)
            if step > 0:  # ... and multiply those of the slice before
                from_a, from_b = int32(of + ty), int32(of + A + tx)
                for _ in range(0, DEEP, 4):
                    for m in range(4):
                        for i in range(0, TM, 4):
                            keep4(a, i, load4(s, from_a, m * BM + 4 * i, 16))
                        for j in range(0, TN, 4):
                            b = load4(s, from_b, m * BN + 8 * j, 16)
                            for i in range(TM):
                                add4(sums, TN * i + j, a, i, b)
                    from_a, from_b = int32(from_a + 4 * BM), int32(from_b + 4 * BN)
            copies_done()
            cuda.syncthreads()
            to, of = of, to

        for i in range(TM):
            o = int32(o0 + ty + i // 4 * 16 + i % 4)
            into = int32((part * c_out + group * width + o) * deep)
            for j in range(0, TN, 4):
                k = int32(k0 + tx + 8 * j)
                if o < width and k < depth:
                    store4(sums_out, into + k, take4(sums, TN * i + j), 16)

    name = f"outer_{BM}x{BN}x{TM}x{TN}{'_plain' if PLAIN else ''}"
    return Kernel(name, run, (*[floats] * 3, ints, *[int32] * 19), THREADS)


# --- launchers ------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """How a product is cut: the tile, how many of them, and the parts of the positions."""

    tile: Tile
    down: int  # tiles below each other, of a group
    across: int
    tiles: int
    length: int  # positions of a part
    parts: int


def cut(win: Windows, processors: int) -> Cut:
    """Choose the tile, the largest of which the weight fills most, and split the positions."""
    for tile in TILES:
        down, across = -(-win.width // tile.BM), -(-win.depth // tile.BN)
        if win.width * win.depth >= WASTE * down * tile.BM * across * tile.BN:
            break
    tiles, slices = down * across * win.groups, -(-win.positions // DEEP)
    parts = max(1, min(slices // STEPS, WAVES * processors // tiles))
    parts = max(1, min(parts, MOST // (win.c_out * rounded(win.depth, SECTOR))))
    length = -(-slices // parts) * DEEP
    return Cut(tile, down, across, tiles, length, -(-win.positions // length))


def outer(
    x: DeviceArray, dy: DeviceArray, out: DeviceArray, win: Windows, more: bool
) -> list[Launch]:
    """Return the launches of a weight's gradient."""
    # A filter's sums over up to four channels of a 1x1 fill half a sector; eight fill it.
    half = win.groups == 1 and win.depth == win.narrow <= RUN and win.positions < FEW
    x, first = filled(x, win.groups, RUN, half or sparse(win, RUN, win.c_out))
    dy, second = filled(dy, win.groups, RUN)
    wanted, win = win, counted(win._replace(c_in=x.shape[-1], c_out=dy.shape[-1]))
    plan = cut(win, x.machine.multiprocessors)
    sums = scratch(x.machine, (plan.parts, win.c_out, rounded(win.depth, SECTOR)))
    see = None if win.plain else upload(x.machine, sight(win, RUN, plan.across * plan.tile.BN))
    numbers = (
        win.positions, win.h, win.w, win.c_in, win.h_out, win.w_out, win.c_out, win.s_h, win.s_w,
        win.p_h, win.p_w, win.narrow, win.width, win.depth, sums.shape[2], plan.down, plan.across,
        plan.tiles, plan.length,
    )  # fmt: skip
    kernel = outer_kernel(plan.tile, win.plain)
    launch = Launch(kernel, plan.tiles * plan.parts, (dy, x, sums, see, *numbers))
    return [*first, *second, launch, fold.weight(sums, wanted, win, out, more)]
