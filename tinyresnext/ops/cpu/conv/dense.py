"""1x1 convolution: the channels of each position, times the weight.

A task is a block of positions and some panels of filters. It first gathers the pixels that the
positions see into shelves, in the layout that the register tile reads (`gemm`); the block is small
enough to stay in the second cache while all the panels are multiplied. Nine tenths of ResNeXt's
work go this way (`forward.way_of`). Gathering means copying one run of channels for each position.
A stride or padding only changes which pixel that is, or that it is outside the image.

The epilogue (bias, residual, relu) is applied to sums that are still in registers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..runtime.kernel import part
from ..runtime.launch import threads_now
from ..runtime.memory import Array
from ..runtime.simd import aligned, aligned_like, copy, machine, seen_as
from ..runtime.tasks import finished, in_tasks, next_task
from .gemm import DEPTH, DEPTH_BITS, PITCH, UNROLL, VECTORS, multiply, panels, spread
from .geometry import Geometry

ROWS = 112  # most positions of a task: enough to use each panel often while it is in the cache
BLOCK = 120 * 1024  # most values of a task's shelves: 480 KiB, half of a second cache of 1 MiB
# With at least so many channels it pays to have the next block fetched early; with fewer, more is
# written than read.
DEEP = 128


class Dense(NamedTuple):
    """The numbers of a 1x1 convolution: its geometry, its epilogue, and how it is cut.

    For each of ``blocks`` blocks of positions there are ``shares`` tasks, each with its share of
    the panels.
    """

    n: int
    h: int
    w: int
    c_in: int
    h_out: int
    w_out: int
    c_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    groups: int
    add: int  # 1 where a residual is added
    relu: int
    half: int  # rows of the lower register tile
    panel: int  # filters of a panel
    length: int  # positions of a block
    blocks: int
    shares: int
    threads: int  # from a thread's task to its next, about
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part(inline=True)
def _shelve(x, s, a, a_at, count, rows):
    """Copy ``count`` values from ``x[s:]`` to the row that begins at ``a_at``."""
    for k in range(0, count, DEPTH):
        copy(x, s + k, a, a_at, min(count - k, DEPTH))
        a_at += rows * PITCH


@part()
def _clear(a, a_at, first, last, rows):
    """Write zeros to the depths ``first`` to ``last`` of the row that begins at ``a_at``."""
    for k in range(first, last):
        a[a_at + (k >> DEPTH_BITS) * rows * PITCH + (k & (DEPTH - 1))] = 0


@part()
def _gather(x, g, first, last, shelves, a):
    """Copy rows ``first`` to ``last`` of the left matrix, tile after tile: a pixel for each.

    A tile that is not full repeats its last row. Rows are filled up with zeros to a multiple of
    ``UNROLL``, and a pixel outside the image is zero.
    """
    line, column = divmod(first, g.w_out)
    n, line = divmod(line, g.h_out)
    row, a_at, depth = first, np.int64(0), (g.c_in + UNROLL - 1) // UNROLL * UNROLL
    while row < last:
        rows = 2 * g.half if last - row > g.half else g.half
        for r in range(rows):
            y, q, at = line * g.s_h - g.p_h, column * g.s_w - g.p_w, a_at + r * PITCH
            if 0 <= y < g.h and 0 <= q < g.w:
                _shelve(x, ((n * g.h + y) * g.w + q) * g.c_in, a, at, g.c_in, rows)
                _clear(a, at, g.c_in, depth, rows)
            else:
                _clear(a, at, 0, depth, rows)
            if row + r + 1 < last:
                column += 1
                if column == g.w_out:
                    line, column = line + 1, np.int64(0)
                if line == g.h_out:
                    n, line = n + 1, np.int64(0)
        a_at += rows * shelves * PITCH
        row += rows


@in_tasks(Dense)
def blocks(x, weight, bias, residual, out, g, counters):
    """Multiply blocks of positions by panels of filters.

    A thread that receives several shares of the same block gathers it once.

    What a thread will probably need next comes into its cache while it multiplies. Where a task has
    a share of the panels, weights are large and read from memory, and that is the next panel.
    Where a task has all of them and its block is one piece of the image, it is the next block, with
    the first panel.
    """
    depth = (g.c_in + UNROLL - 1) // UNROLL * UNROLL
    shelves, count = (depth + DEPTH - 1) // DEPTH, (g.c_out + g.panel - 1) // g.panel
    a, shift = aligned_like(weight, (g.length + 2 * g.half) * shelves * PITCH), aligned(g.panel)
    scratch, ahead = aligned_like(out, 2 * g.half * g.panel), seen_as(x, weight)
    floor, held = np.float32(0 if g.relu else -np.inf), np.int64(-1)
    in_a_row = g.s_h * g.s_w == g.shares == 1 and g.p_h + g.p_w == 0 and depth >= DEEP
    task = next_task(counters)
    while task < g.tasks:
        soon = np.int64(-1)
        block, share = divmod(task, g.shares)
        first = block * g.length
        last = min(first + g.length, g.n * g.h_out * g.w_out)
        if block != held:
            _gather(x, g, first, last, shelves, a)
            held = block
            if in_a_row:
                soon = (first + g.threads * g.length) * g.c_in * x.itemsize // 4
        for panel in range(share * count // g.shares, (share + 1) * count // g.shares):
            f0, coming = panel * g.panel, ahead
            step = np.int64(2 * g.half * UNROLL * x.itemsize // 4)
            if g.shares > 1:
                after = panel + 1
                if after == (share + 1) * count // g.shares:
                    after = (share + g.threads) * count // g.shares
                coming, soon = weight, after * g.panel * depth
                step = min(step, spread(g.panel * UNROLL, last - first, 2 * g.half))
            multiply(
                a, first, last, g.half, weight, f0 * depth, depth, g.panel, bias, f0,
                min(g.panel, g.c_out - f0), g.c_out, residual, g.add, floor, out, scratch, shift,
                coming, soon, step,
            )  # fmt: skip
            soon = np.int64(-1)
        task = next_task(counters)
    finished(counters)


# --- launcher -------------------------------------------------------------------------------------


def cut(geo: Geometry, add: bool, relu: bool) -> Dense:
    """Cut into blocks that fit the second cache, and about eight tasks for each thread.

    With that many tasks the threads end at nearly the same time.
    """
    m = machine()
    panel = VECTORS * m.lanes
    count = -(-geo.c_out // panel)
    most = max(2 * m.half, min(ROWS, BLOCK // (-(-geo.c_in // DEPTH) * PITCH)))
    blocks, threads = -(-geo.positions // most), threads_now()
    blocks = -(-blocks // threads) * threads if blocks > 1 else blocks
    length = -(-geo.positions // (blocks * m.half)) * m.half if blocks else 0
    blocks = -(-geo.positions // length) if length else 0
    shares = min(count, max(1, -(-8 * threads // max(1, blocks))))
    return Dense(
        *geo,
        add=int(add),
        relu=int(relu),
        half=m.half,
        panel=panel,
        length=length,
        blocks=blocks,
        shares=shares,
        threads=threads,
        tasks=blocks * shares,
    )


def pack(weight: Array, groups: int) -> Array:
    """Return the panels of ``[c_in, c_out]``; flat. There is one group."""
    return panels(weight.reshape(weight.shape[:2]).T)
