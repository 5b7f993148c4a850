"""Grouped convolution without tiny matrix products: ResNeXt's own layer (Equation 2, Figure 3c).

With 32 groups of width 4 the matrix product of a group has 4 columns, a quarter of a vector, and
im2col would copy 36 values for 144 multiplications. So there are no matrices here: one *block* of
channels, a vector of as many whole groups as have room, is computed at once for some neighbouring
pixels of a line (`tile`). Where lanes are left over, a block's results are written over the first
channels of the next block, which is computed later; only the last block goes through a scratch
tile.

**Strips.** The image is not padded. A task copies the lines it needs, one block of channels of
them, into a strip with zeros at both ends of each line, ``[lines, columns, block]``: the same reads
that a padding pass would need, but the strip stays in the cache and is read many times. All that
the tile reads lies in the strip, also where the last tile of a line computes more pixels than the
line has.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ...runtime.memory import Array, upload
from ...runtime.simd import aligned, aligned_like, copy, machine
from ...runtime.tasks import Kernel, finished, in_tasks, next_task
from ..geometry import Geometry, taken
from .tile import PIXELS, block_of, strip_tile, turned

STRIP = 8 * 1024  # most values of a strip's output lines, about: 32 KiB in float32


class Strips(NamedTuple):
    """The numbers of a grouped convolution: its geometry, its epilogue, and how it is cut.

    For each of ``n * strips`` strips there are ``shares`` tasks, each with its share of the blocks
    of channels.
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
    block: int  # lanes of a block
    together: int  # groups of a block
    shares: int
    lines: int  # of the result, in a strip
    strips: int  # of an image
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part()
def _cut_strip(x, g, n, y, lines, c0, count, columns, strip):
    """Copy ``count`` channels from ``c0`` of ``lines`` lines from ``y`` on into a strip.

    A line of the strip is ``columns`` wide, with the zeros at its ends. Channels of the block
    beyond ``count`` keep their values: they are other groups, whose results nobody reads.
    """
    for line in range(lines):
        at, inside = line * columns * g.block, 0 <= y + line < g.h
        left = min(g.p_w, columns) if inside else columns
        right = min(left + g.w, columns)
        strip[at : at + left * g.block] = 0
        strip[at + right * g.block : at + columns * g.block] = 0
        source = (n * g.h + y + line) * g.w * g.c_in + c0
        for q in range(left, right):
            copy(x, source, strip, at + q * g.block, count)
            source += g.c_in


@functools.cache
def strips_kernel(inputs: int, width: int, taps: int, stride: int, pixels: int) -> Kernel:
    """Make the kernel for sizes of a group, a kernel's width, a stride and a length of tiles."""

    @in_tasks(Strips, key=(inputs, width, taps, stride, pixels))
    def strips(x, weight, bias, residual, out, g, counters):
        """Compute strips of the result, each for a share of the blocks of channels."""
        columns = ((g.w_out + pixels - 1) // pixels * pixels - 1) * stride + taps
        line = columns * g.block
        strip = aligned_like(
            weight, ((g.lines - 1) * g.s_h + g.k_h) * line + g.block
        )  # see `_permuted`
        scratch, shift = aligned_like(out, pixels * g.block), aligned(g.block)
        strip[:], scratch[:], shift[:] = 0, 0, 0
        floor = np.float32(0 if g.relu else -np.inf)
        count = (g.groups + g.together - 1) // g.together
        task = next_task(counters)
        while task < g.tasks:
            _, n, first, last, begin, end = taken(g, task, count)
            for block in range(begin, end):
                group = block * g.together
                groups, f0 = min(g.together, g.groups - group), group * width
                filters, w_at = groups * width, block * inputs * g.k_h * taps * g.block
                top, lines = first * g.s_h - g.p_h, (last - first - 1) * g.s_h + g.k_h
                _cut_strip(x, g, n, top, lines, group * inputs, groups * inputs, columns, strip)
                copy(bias, f0, shift, 0, filters)
                # Idle lanes may write what a later block of this task writes again.
                over = g.add == 0 and f0 + g.block <= min(end * g.together, g.groups) * width
                # So many tiles of a line are all result.
                whole = g.w_out // pixels if filters == g.block or over else 0
                for y in range(first, last):
                    at = ((n * g.h_out + y) * g.w_out) * g.c_out + f0
                    start = (y - first) * g.s_h * line
                    for _ in range(whole):
                        strip_tile(
                            inputs, width, taps, stride, pixels, strip, start, line, g.k_h, weight,
                            w_at, shift, out, at, g.c_out, residual, g.add, floor,
                        )  # fmt: skip
                        at += pixels * g.c_out
                        start += pixels * stride * g.block
                    for p in range(whole * pixels, g.w_out, pixels):
                        valid = min(pixels, g.w_out - p)
                        if g.add:
                            for q in range(valid):
                                copy(residual, at + q * g.c_out, scratch, q * g.block, filters)
                        strip_tile(
                            inputs, width, taps, stride, pixels, strip, start, line, g.k_h, weight,
                            w_at, shift, scratch, 0, g.block, scratch, g.add, floor,
                        )  # fmt: skip
                        for q in range(valid):
                            copy(scratch, q * g.block, out, at + q * g.c_out, filters)
                        at += pixels * g.c_out
                        start += pixels * stride * g.block
            task = next_task(counters)
        finished(counters)

    return strips


# --- launcher -------------------------------------------------------------------------------------


def instructions(c_group: int, width: int, k_h: int, k_w: int, groups: int) -> float:
    """Return the loads, permutations and multiply-adds for one position of all groups, at stride 1.

    It is infinite where the sums of a tile and the taps of a line do not fit the registers. The way
    is chosen before the lines are known, so those of the longer tile have to fit.
    """
    block, pixels = block_of(c_group, width), min(PIXELS)
    vectors, lines = block.lanes // machine().lanes, k_h * c_group
    if vectors * (max(PIXELS) + k_w) + 1 > machine().registers:
        return np.inf
    values = lines * (pixels - 1 + k_w) * (2 if block.groups > 1 else 1)
    weights = lines * k_w * vectors
    return -(-groups // block.groups) * (lines * k_w * vectors + (values + weights) / pixels)


def cut(geo: Geometry, add: bool, relu: bool) -> Strips:
    """Cut into strips that fit the cache, and about eight tasks for each thread."""
    together, block, _, _ = block_of(geo.c_in // geo.groups, geo.width)
    count, wanted = -(-geo.groups // together), 8 * threads_now()
    h_out = geo.h_out
    strips = min(h_out, -(-h_out * geo.w * geo.s_h * block // STRIP)) if h_out else 0
    shares = min(count, max(1, -(-wanted // max(1, geo.n * strips))))
    lines = -(-h_out // max(1, strips))
    strips = -(-h_out // max(1, lines))
    return Strips(
        *geo,
        add=int(add),
        relu=int(relu),
        block=block,
        together=together,
        shares=shares,
        lines=lines,
        strips=strips,
        tasks=geo.n * shares * strips,
    )


def pack(weight: Array, groups: int) -> Array:
    """Lay out blocks of output channels, idle lanes filled up with zeros.

    Returns
    -------
    flat [blocks, k_h, near, sums, k_w, block]
        ``near * sums`` are a group's input channels: for a lane there are those of the lane's
        quarter, and the output channels that `tile.turned` returns.
    """
    c_out, inputs, k_h, k_w = weight.shape
    width = c_out // groups
    together, size, near, sums = block_of(inputs, width)
    blocks, lane = -(-groups // together), np.arange(size)
    filled = np.zeros((blocks * together * width, inputs, k_h, k_w), np.float32)
    filled[:c_out] = weight
    filters = np.zeros((blocks, size, inputs, k_h, k_w), np.float32)
    filters[:, : together * width] = filled.reshape(blocks, -1, inputs, k_h, k_w)
    made = np.empty((blocks, k_h, near, sums, k_w, size), np.float32)
    for n, some in np.ndindex(near, sums):
        reached = np.empty(size, np.intp)
        reached[turned(width, size, near * some)] = lane
        channel = lane % width // near * near + n if sums > 1 else np.full(size, n)
        made[:, :, n, some] = np.moveaxis(filters[:, reached, channel], 1, -1)
    return upload(made).reshape(-1)
