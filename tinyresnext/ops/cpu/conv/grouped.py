"""Grouped convolution without tiny matrix products: ResNeXt's own layer (Equation 2, Figure 3c).

With 32 groups of width 4 the matrix product of a group has 4 columns, a quarter of a vector, and
im2col would copy 36 values for 144 multiplications. So there are no matrices here: one *block* of
channels, as many as a vector has lanes, is computed at once for some neighbouring pixels of a line
(`grouped_tile`), and the block holds whole groups.

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

from ..runtime.kernel import part
from ..runtime.launch import threads_now
from ..runtime.memory import Array, upload
from ..runtime.simd import aligned, copy, machine
from ..runtime.tasks import Kernel, finished, in_tasks, next_task
from .geometry import Geometry
from .grouped_tile import PIXELS, quarters, strip_tile, turned

STRIP = 8 * 1024  # most values of a strip's output lines, about: 32 KiB in float32
TAPS = 7  # the widest kernel whose taps are all held in registers


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
    block: int  # channels of a block
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
def strips_kernel(width: int, taps: int, stride: int) -> Kernel:
    """Make the kernel for one width of group, one width of kernel and one stride."""

    @in_tasks(Strips, key=(width, taps, stride))
    def strips(x, weight, bias, residual, out, g, counters):
        """Compute strips of the result, each for a share of the blocks of channels."""
        columns = ((g.w_out + PIXELS - 1) // PIXELS * PIXELS - 1) * stride + taps
        line = columns * g.block
        strip = aligned(((g.lines - 1) * g.s_h + g.k_h) * line + width)  # see `_permuted`
        scratch = aligned((PIXELS + 1) * g.block)
        strip[:], scratch[:] = 0, 0
        shift, floor = scratch[PIXELS * g.block :], np.float32(0 if g.relu else -np.inf)
        count = (g.c_in + g.block - 1) // g.block
        task = next_task(counters)
        while task < g.tasks:
            place, share = divmod(task, g.shares)
            n, place = divmod(place, g.strips)
            first, last = place * g.lines, min((place + 1) * g.lines, g.h_out)
            for block in range(share * count // g.shares, (share + 1) * count // g.shares):
                c0 = block * g.block
                channels, w_at = min(g.block, g.c_in - c0), c0 * width * g.k_h * taps
                top, lines = first * g.s_h - g.p_h, (last - first - 1) * g.s_h + g.k_h
                _cut_strip(x, g, n, top, lines, c0, channels, columns, strip)
                copy(bias, c0, shift, 0, channels)
                whole = g.w_out // PIXELS if channels == g.block else 0  # tiles that are all result
                for y in range(first, last):
                    at = ((n * g.h_out + y) * g.w_out) * g.c_out + c0
                    start = (y - first) * g.s_h * line
                    for _ in range(whole):
                        strip_tile(
                            width, taps, stride, strip, start, line, g.k_h, weight, w_at, shift,
                            out, at, g.c_out, residual, g.add, floor,
                        )  # fmt: skip
                        at += PIXELS * g.c_out
                        start += PIXELS * stride * g.block
                    for p in range(whole * PIXELS, g.w_out, PIXELS):
                        pixels = min(PIXELS, g.w_out - p)
                        if g.add:
                            for q in range(pixels):
                                copy(residual, at + q * g.c_out, scratch, q * g.block, channels)
                        strip_tile(
                            width, taps, stride, strip, start, line, g.k_h, weight, w_at, shift,
                            scratch, 0, g.block, scratch, g.add, floor,
                        )  # fmt: skip
                        for q in range(pixels):
                            copy(scratch, q * g.block, out, at + q * g.c_out, channels)
                        at += PIXELS * g.c_out
                        start += PIXELS * stride * g.block
            task = next_task(counters)
        finished(counters)

    return strips


# --- launcher -------------------------------------------------------------------------------------


def suits(shape: tuple[int, ...], groups: int) -> bool:
    """Return whether a weight of that shape is for this file.

    Its groups must fill blocks, and be as wide at the output as at the input.
    """
    c_out, width, _, taps = shape
    m = machine()
    whole = width > 0 and (m.lanes % width == 0 or (width == 2 * m.lanes and m.registers == 32))
    return groups > 1 and c_out == groups * width and whole and taps <= TAPS


def cut(geo: Geometry, add: bool, relu: bool) -> Strips:
    """Cut into strips that fit the cache, and about eight tasks for each thread."""
    block = max(machine().lanes, geo.c_in // geo.groups)
    count, wanted = -(-geo.c_in // block), 8 * threads_now()
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
        shares=shares,
        lines=lines,
        strips=strips,
        tasks=geo.n * shares * strips,
    )


def pack(weight: Array, groups: int) -> Array:
    """Lay out blocks of output channels, the last filled up with zeros.

    Returns
    -------
    flat [blocks, k_h, near, sums, k_w, block]
        ``near * sums`` is the width: for a lane there are the input channels of the lane's quarter,
        and the output channels that `grouped_tile.turned` returns.
    """
    c, width, k_h, k_w = weight.shape
    size, (near, sums) = max(machine().lanes, width), quarters(width)
    filled = np.zeros((-(-c // size) * size, width, k_h, k_w), np.float32)
    filled[:c] = weight
    filled = filled.reshape(-1, size, width, k_h, k_w).transpose(0, 3, 2, 4, 1)
    if sums > 1:
        lane = np.arange(size)
        made = np.empty((*filled.shape[:2], near, sums, k_w, size), np.float32)
        for n, some in np.ndindex(near, sums):
            reached = np.empty(size, np.intp)
            reached[turned(width, size, some)] = lane
            inputs = lane % width // near * near + n
            made[:, :, n, some] = np.moveaxis(filled[:, :, inputs, :, reached], 0, -1)
        filled = made
    return upload(filled).reshape(-1)
