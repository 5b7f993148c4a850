"""A convolution as a matrix product whose left matrix is never written down (implicit im2col).

    y[m, o] = sum over k of a[m, k] * weight[k, o]

A row ``m`` is a position of the result (image, line, column), a column ``k`` one value that it sees
(tap, channel). A block of threads computes a tile of ``BM`` positions by ``BN`` filters of a group:
for every ``BK`` values of depth it copies a slice of both matrices to shared memory while it
multiplies the slice before; each thread keeps ``TM`` x ``TN`` sums in registers.

Where ``a[m, k]`` lies is the sum of two numbers: where the window of position m begins, and how far
k is from there. The second is the same for all positions: a table, made once for a layer (`sight`).
So this covers every kernel size, stride, padding and number of groups; a 1x1 convolution without
padding (`POINT`) needs neither table nor comparison with the border. Where few tiles would leave
processors idle, the depth is split: each part writes its sums, and `fold` adds them in order.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda

from ..elementwise import widened
from ..runtime.arrays import DeviceArray, scratch, upload
from ..runtime.kernel import Kernel, float32, floats, int32, ints, uint32
from ..runtime.machine import Launch
from ..words import (
    add4,
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
    sum4,
    take4,
)
from . import fold
from .pack import BK, RUN, Columns, slices
from .windows import MOST, SECTOR, Windows, aligned, counted, filled, rounded, sight, sparse

PITCH = BK + 4  # of a row of the left slice: four rows that are read at once lie in different banks
OUTSIDE = -(2**30)  # a line that is in no image, whatever tap is added


class Tile(NamedTuple):
    """The shape of a tile, and of what one thread of it computes."""

    BM: int
    BN: int
    TM: int
    TN: int

    @property
    def warps(self) -> int:
        """Return how many warps compute a tile."""
        return (self.BM // (4 * self.TM)) * (self.BN // (8 * self.TN))


# With the part of peak that instructions and wavefronts of shared memory leave: counted, not timed.
TILES = {
    Tile(128, 128, 8, 16): 0.86,
    Tile(64, 128, 8, 16): 0.84,
    Tile(128, 64, 8, 8): 0.80,
    Tile(64, 64, 8, 8): 0.78,
    Tile(32, 64, 4, 8): 0.60,
    Tile(32, 32, 4, 4): 0.45,
}
STEPS = 4  # slices that a part of the depth has at least
BUSY = 8  # warps that keep a processor busy
AROUND = 2  # slices that beginning and ending a tile take as long as
SHALLOW = 64  # values that are seen, of fewer of which what is stored is a large part
SECOND = 400_000  # multiply-adds of a processor in the time of one more launch


# --- kernel ---------------------------------------------------------------------------------------


@cache
def gemm_kernel(tile: Tile, POINT: bool) -> Kernel:
    """Return the kernel for one shape of tile.

    A warp, four threads down by eight across, computes ``4 TM`` x ``8 TN`` sums. Four values of the
    image are copied at once, and four of the result are stored.
    """
    BM, BN, TM, TN = tile
    WARPS_N = BN // (8 * TN)
    THREADS = 32 * (BM // (4 * TM)) * WARPS_N
    A, B = BM * PITCH, BK * BN  # floats of a slice of the left and of the right matrix
    SHARED, SUMS, VALUES = 2 * (A + B), TM * TN, TM * 4
    Q, R = BK // RUN, BN // 4  # copies for a row of each
    # Every thread copies the same column of every DOWN-th row.
    DOWN, COPIES = THREADS // Q, BM * Q // THREADS
    DOWN_B, COPIES_B = THREADS // R, BK * R // THREADS

    def run(
        x, weight, bias, residual, y, see, positions, h, w, c_in, h_out, w_out, c_out,
        s_h, s_w, p_h, p_w, narrow, width, wide, depth, deep, across, tiles, steps, total,
        shift, add, floor,
    ):  # fmt: skip
        s = shared(SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        # Tiles of the same positions follow each other; parts of the depth are furthest apart.
        part, tile = uint32(block // uint32(tiles)), uint32(block % uint32(tiles))
        m0, column = int32(tile // uint32(across)) * BM, uint32(tile % uint32(across))
        group_tiles = uint32(uint32(width + BN - 1) // uint32(BN))
        group, o0 = int32(column // group_tiles), int32(int32(column % group_tiles) * BN)
        first = int32(int32(part) * steps)
        last = int32(first + steps) if first + steps < total else int32(total)

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
            if POINT:
                at[i] = int32(at[i]) if m < uint32(positions) else int32(-1)
            else:
                top[i] = int32(r) if m < uint32(positions) else int32(OUTSIDE)
                left[i] = int32(q)
        a_to = int32(row * PITCH + run * RUN)
        row_b, column_b = int32(thread // R), int32(thread % R * 4)
        b_to = int32(A + row_b * BN + column_b)
        b_at = int32((group * deep + first * BK + row_b) * wide + o0 + column_b)
        b_inside = o0 + column_b < wide

        # What it multiplies: rows ty, ty + 4, ... and columns tx to tx + 3, tx + 32 to tx + 35, ...
        # of its warp's part.
        lane, warp = int32(thread % 32), int32(thread // 32)
        ty = int32(warp // WARPS_N * 4 * TM + lane // 8)
        tx = int32(warp % WARPS_N * 8 * TN + lane % 8 * 4)
        a, sums = registers(VALUES), registers(SUMS)
        for i in range(SUMS):
            sums[i] = float32(0)

        to, of = int32(0), int32(A + B)
        offset, tap = int32(first * BK + run * RUN), int32(0)
        run = int32(first * Q + run)
        if not POINT:
            offset, tap = load2(see, int32(2 * run))
        for step in range(first, last + 1):
            if step < last:  # start to copy this slice ...
                for i in range(COPIES):
                    if POINT:
                        inside = at[i] >= 0 and offset < depth
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
                if POINT:
                    offset = int32(offset + BK)
                else:  # of the next slice: it is there by then
                    run = int32(run + Q)
                    offset, tap = load2(see, int32(2 * run))
            if step > first:  # ... and multiply the one before
                from_a, from_b = int32(of + ty * PITCH), int32(of + A + tx)
                for _ in range(0, BK, 4):
                    for i in range(TM):
                        keep4(a, 4 * i, load4(s, from_a, 4 * i * PITCH, 16))
                    for q in range(4):
                        for j in range(0, TN, 4):
                            b = load4(s, from_b, q * BN + 8 * j, 16)
                            for i in range(TM):
                                add4(sums, TN * i + j, a, 4 * i + q, b)
                    from_a, from_b = int32(from_a + 4), int32(from_b + 4 * BN)
            copies_done()
            cuda.syncthreads()
            to, of = of, to

        for j in range(0, TN, 4):
            o = int32(o0 + tx + 8 * j)
            if o < width:
                o = int32(group * width + o)
                into = int32((int32(part) * positions + m0 + ty) * c_out + o)
                four = load4_if(bias, o, shift != 0, 16)
                for i in range(TM):
                    if m0 + ty + 4 * i < positions:
                        made = sum4(take4(sums, TN * i + j), four)
                        made = sum4(made, load4_if(residual, into, add != 0, 16))
                        store4(y, into, floor4(made, floor), 16)
                    into = int32(into + 4 * c_out)

    name = f"gemm_{BM}x{BN}x{TM}x{TN}{'_point' if POINT else ''}"
    parameters = (*[floats] * 5, ints, *[int32] * 22, float32)
    return Kernel(name, run, parameters, THREADS)


# --- launchers ------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """How a product is cut: the tile, how many of them, and the parts of the depth."""

    tile: Tile
    across: int  # tiles beside each other, of all groups
    tiles: int
    steps: int  # slices of a part
    parts: int


def cut(win: Windows, processors: int) -> Cut:
    """Choose the tile of a product and split its depth.

    Of all tiles, with the depth whole or in parts that make one, two or four blocks for each
    processor, it is the cut that takes the busiest processor the least time (`cost`).
    """
    cuts = [divided(win, t, each * processors) for t in TILES for each in (0, 1, 2, 4)]
    return min(cuts, key=lambda one: cost(one, processors))


def divided(win: Windows, tile: Tile, blocks: int) -> Cut:
    """Return a cut with so many blocks at most, or the depth whole."""
    across = -(-win.width // tile.BN) * win.groups
    tiles, total = -(-win.positions // tile.BM) * across, slices(win.depth)
    parts = min(total // STEPS, blocks // tiles, MOST // (win.positions * win.c_out))
    steps = -(-total // max(1, parts))
    return Cut(tile, across, tiles, steps, -(-total // steps))


def cost(one: Cut, processors: int) -> float:
    """Estimate the time of a cut: multiply-adds of the busiest processor, by its speed."""
    blocks = -(-one.tiles * one.parts // processors)
    work = blocks * (one.steps + AROUND) * BK * one.tile.BM * one.tile.BN
    speed = TILES[one.tile] * min(1, blocks * one.tile.warps / BUSY)
    return work / speed + (SECOND if one.parts > 1 else 0)


def product(
    x: DeviceArray,
    weight: Columns,
    bias: DeviceArray | None,
    residual: DeviceArray | None,
    out: DeviceArray,
    win: Windows,
    relu: bool = False,
) -> list[Launch]:
    """Return the launches of a convolution.

    Sums that are parts of a depth, or whose rows are no whole sectors, are ended by `fold`.
    """
    if win.positions == 0:
        return []
    sectors = sparse(win, RUN, win.c_out, weight.line)
    x, launches = filled(x, win.groups, RUN, sectors)
    if sectors:  # the four channels of each tap become eight, too
        few, made = weight.data, scratch(x.machine, (2 * weight.data.size,))
        launches.append(widened(few, made, RUN * weight.wide, 2 * RUN * weight.wide))
        weight = Columns(made, 2 * weight.deep, weight.wide, weight.line)
    width = max(win.width, weight.wide)
    if win.groups > 1 and win.k_h * win.k_w * x.shape[-1] // win.groups < SHALLOW:
        width = rounded(width, SECTOR)
    ends = win.width % 4 == 0 and win.width == width and aligned(out, residual, bias)
    win = counted(win._replace(c_in=x.shape[-1], c_out=win.groups * width))
    seen, win = win, win._replace(k_w=weight.line or win.k_w)
    plan = cut(win, x.machine.multiprocessors)
    ends = ends and plan.parts == 1
    y = out if ends else scratch(x.machine, (plan.parts, win.positions, win.c_out))
    extra = residual if ends else None
    kernel = gemm_kernel(plan.tile, win.point)
    shift, floor = bias is not None and ends, 0.0 if relu and ends else -np.inf
    numbers = (
        win.positions, win.h, win.w, win.c_in, win.h_out, win.w_out, win.c_out, win.s_h, win.s_w,
        win.p_h, win.p_w, win.narrow, win.width, weight.wide, win.depth, weight.deep, plan.across,
        plan.tiles, plan.steps, slices(win.depth), int(shift), int(extra is not None), floor,
    )  # fmt: skip
    see = None  # one slice more than is multiplied: it is looked up and never copied
    if not win.point:
        see = upload(x.machine, sight(seen, RUN, (slices(win.depth) + 1) * BK, weight.line))
    arrays = (x, weight.data, bias, extra, y, see)
    launches.append(Launch(kernel, plan.tiles * plan.parts, (*arrays, *numbers)))
    return launches if ends else [*launches, *fold.rows(y, bias, residual, out, win, relu)]
