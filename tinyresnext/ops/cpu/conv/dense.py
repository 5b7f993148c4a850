"""Dense convolution: what each position sees, laid side by side (im2col), times the weight.

A task is a block of positions and some panels of filters. It first gathers what the positions see
into shelves, in the layout that the register tile reads (`gemm`); the block is small enough to stay
in the second cache while all the panels are multiplied. For a 1x1 convolution, nine tenths of
ResNeXt's work and all that goes this way now (`forward.way_of`), gathering means copying one run of
channels for each position. Stride and padding only change where a run begins and which part of it
lies in the image, and larger kernels and groups would be the same mechanism.

The epilogue (bias, residual, relu) is applied to sums that are still in registers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..runtime.kernel import part
from ..runtime.launch import threads_now
from ..runtime.memory import Array
from ..runtime.simd import aligned, copy, machine
from ..runtime.tasks import finished, in_tasks, next_task
from .gemm import DEPTH, DEPTH_BITS, PITCH, UNROLL, VECTORS, multiply, panels
from .geometry import Geometry

ROWS = 112  # most positions of a task: enough to use each panel often while it is in the cache
BLOCK = 120 * 1024  # most values of a task's shelves: 480 KiB, half of a second cache of 1 MiB
# With at least so many channels it pays to have the next block fetched early; with fewer, more is
# written than read.
DEEP = 128


class Dense(NamedTuple):
    """The numbers of a dense convolution: its geometry, its epilogue, and how it is cut.

    For each of ``groups * blocks`` blocks of positions there are ``shares`` tasks, each with its
    share of the group's panels.
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
    ahead: int  # positions from a thread's block to its next, about
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part(inline=True)
def _shelve(x, s, a, a_at, k, count, rows):
    """Copy ``count`` values from ``x[s:]`` to depth ``k`` of the row that begins at ``a_at``."""
    end = k + count
    while k < end:
        place = k & (DEPTH - 1)
        some = min(end - k, DEPTH - place)
        copy(x, s, a, a_at + (k >> DEPTH_BITS) * rows * PITCH + place, some)
        s += some
        k += some


@part()
def _clear(a, a_at, k, count, rows):
    """Write ``count`` zeros from depth ``k`` of the row that begins at ``a_at``."""
    for q in range(k, k + count):
        a[a_at + (q >> DEPTH_BITS) * rows * PITCH + (q & (DEPTH - 1))] = 0


@part(inline=True)
def _see(x, g, c0, count, n, line, column, a, a_at, rows):
    """Copy one row of the left matrix: the receptive field in ``count`` channels from ``c0``.

    The row is ``[k_h, k_w, count]``. Every run that is copied lies in line ``y`` of the image
    between columns ``left + low`` and ``left + high``, and both are cut to the image first.
    """
    left, k = column * g.s_w - g.p_w, 0
    top, run = line * g.s_h - g.p_h, g.k_w * count
    if (
        count == g.c_in
        and g.k_h * run <= DEPTH
        and 0 <= left <= g.w - g.k_w
        and 0 <= top <= g.h - g.k_h
    ):
        source = ((n * g.h + top) * g.w + left) * count
        # All inside, all in one shelf: so are the stem's positions, but for those at the border.
        for _ in range(g.k_h):
            copy(x, source, a, a_at + k, run)
            source += g.w * count
            k += run
    for i in range(g.k_h if k == 0 else 0):
        y = line * g.s_h - g.p_h + i
        low, high = max(0, -left), min(g.k_w, g.w - left)
        if y < 0 or y >= g.h or low >= high:
            low, high = g.k_w, g.k_w
        if low > 0:
            _clear(a, a_at, k, low * count, rows)
        k += low * count
        source = ((n * g.h + y) * g.w + left + low) * g.c_in + c0
        if count == g.c_in:  # neighbouring columns follow each other, so they are one run
            _shelve(x, source, a, a_at, k, (high - low) * count, rows)
            k += (high - low) * count
        else:
            for _ in range(low, high):
                _shelve(x, source, a, a_at, k, count, rows)
                k += count
                source += g.c_in
        if high < g.k_w:
            _clear(a, a_at, k, (g.k_w - high) * count, rows)
            k += (g.k_w - high) * count
    if k & (UNROLL - 1):
        _clear(a, a_at, k, UNROLL - (k & (UNROLL - 1)), rows)


@part()
def _gather(x, g, c0, count, first, last, shelves, a):
    """Copy rows ``first`` to ``last`` of the left matrix (im2col), tile after tile.

    A tile that is not full repeats its last row.
    """
    line, column = divmod(first, g.w_out)
    n, line = divmod(line, g.h_out)
    row, a_at = first, np.int64(0)
    pointwise = (
        g.k_h * g.k_w * g.s_h * g.s_w == 1 and g.p_h + g.p_w == 0 and count & (UNROLL - 1) == 0
    )
    while row < last:
        rows = 2 * g.half if last - row > g.half else g.half
        if pointwise:
            for r in range(row, row + rows):
                _shelve(
                    x, min(r, last - 1) * g.c_in + c0, a, a_at + (r - row) * PITCH, 0, count, rows
                )
        for r in range(rows if not pointwise else 0):
            _see(x, g, c0, count, n, line, column, a, a_at + r * PITCH, rows)
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

    A thread that receives several shares of the same block gathers it once. Where a block is one
    piece of the image, the block that the thread will probably gather next comes into its cache
    while it multiplies with the first panel.
    """
    c_group, width = g.c_in // g.groups, g.c_out // g.groups
    depth = (g.k_h * g.k_w * c_group + UNROLL - 1) // UNROLL * UNROLL
    shelves, count = (depth + DEPTH - 1) // DEPTH, (width + g.panel - 1) // g.panel
    a, scratch = (
        aligned((g.length + 2 * g.half) * shelves * PITCH),
        aligned((2 * g.half + 1) * g.panel),
    )
    floor, held = np.float32(0 if g.relu else -np.inf), np.int64(-1)
    in_a_row = (
        g.k_h * g.k_w * g.s_h * g.s_w == 1
        and g.p_h + g.p_w == 0
        and g.groups == g.shares == 1
        and depth >= DEEP
    )
    task = next_task(counters)
    while task < g.tasks:
        soon = np.int64(-1)
        block, share = divmod(task, g.shares)
        group = block // g.blocks
        first = block % g.blocks * g.length
        last = min(first + g.length, g.n * g.h_out * g.w_out)
        if block != held:
            _gather(x, g, group * c_group, c_group, first, last, shelves, a)
            held = block
            if in_a_row:
                soon = (first + g.ahead) * g.c_in
        for panel in range(share * count // g.shares, (share + 1) * count // g.shares):
            f0, b_at = panel * g.panel, (group * count + panel) * depth * g.panel
            filters = min(g.panel, width - f0)
            f0 += group * width
            multiply(
                a, first, last, g.half, weight, b_at, depth, g.panel, bias, f0, filters, g.c_out,
                residual, g.add, floor, out, scratch, x, soon,
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
    panel, depth = VECTORS * m.lanes, geo.k_h * geo.k_w * (geo.c_in // geo.groups)
    count = -(-geo.width // panel)
    most = max(2 * m.half, min(ROWS, BLOCK // (-(-depth // DEPTH) * PITCH)))
    blocks, threads = -(-geo.positions // most), threads_now()
    blocks = -(-blocks // threads) * threads if blocks > 1 else blocks
    length = -(-geo.positions // (blocks * m.half)) * m.half if blocks else 0
    blocks = -(-geo.positions // length) if length else 0
    shares = min(count, max(1, -(-8 * threads // max(1, blocks * geo.groups))))
    return Dense(
        *geo,
        add=int(add),
        relu=int(relu),
        half=m.half,
        panel=panel,
        length=length,
        blocks=blocks,
        shares=shares,
        ahead=threads * length,
        tasks=geo.groups * blocks * shares,
    )


def pack(weight: Array, groups: int) -> Array:
    """Return the panels of ``[k_h * k_w * c_in/groups, c_out/groups]`` of each group; flat."""
    filters = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 3, 4, 2, 1)
    return panels(filters.reshape(groups, -1, filters.shape[-1]))
