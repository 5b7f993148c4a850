"""Convolution of integers from strips: as `wide.strips`, with words in the strips.

One way serves every convolution here. A task copies the lines that it needs into a strip; in doing
so it makes words of the bytes. The channels of a group are filled up to whole words, so that a word
never has values of two groups::

      pixel of 8 channels, 2 groups of 4        bytes   [ a0 a1 a2 a3 | b0 b1 b2 b3 ]
      words of four (VNNI)                               [  word 0     |  word 1     ]
      words of two                                       [ w 0 | w 1   | w 2 | w 3   ]

That is what cardinality does to dot products of four: a group of four channels is one word, and a
3 x 3 kernel nine words, so nothing is lost. A group of two channels would leave half of each word
idle, and one of six a quarter. A 1x1 convolution with one group is the same with one tap. Groups
of which several have room in a vector are computed together (`blocks`).

The layout of panels, the tables of places and the order of tasks are those of `wide`; a thread that
takes several shares of the same strip copies it once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...runtime.kernel import part
from ...runtime.memory import Array, empty
from ...runtime.simd import aligned, machine, working
from ...runtime.tasks import Kernel, finished, in_tasks, next_task
from ..gemm import spread
from ..geometry import Geometry
from ..wide import strips as wide
from ..wide.panels import divided, panel_of
from ..wide.strips import pixel_of, places
from .blocks import Block, block_of, spread_words
from .tile import integer_tile, rows_of
from .words import OFFSET, move, widen, words

FEW = 100  # positions: where a panel is used for no more, the next one comes early
LINES = 8  # of a strip of cells, at least: spreading words costs much, and strips share lines


class Integers(NamedTuple):
    """The numbers of a convolution of integers: those of `wide.Wide`, and the types of values."""

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
    lanes: int  # of a vector
    panels: int  # of a group
    full: int  # panels of the larger kind; they come first
    larger: int  # vectors of these
    smaller: int  # vectors of the others
    lines: int  # of the result, in a strip
    strips: int  # of an image
    shares: int
    tasks: int
    deep: int  # words of a group's channels
    apart: int  # values of a row of the terms
    sign: int  # 128 if the input is signed, else 0
    other: int  # 128 if the residual is signed, else 0
    wide: int  # 1 if the result is float32


# --- kernels --------------------------------------------------------------------------------------


@functools.cache
def _cut_strip_of(ways: int, block: Block) -> Callable[..., None]:
    """Make the function that fills a strip with words of so many values, or with cells."""
    short, empty_word = (np.int16, 0) if ways == 2 else (np.uint8, 0x01010101)
    zero_of_signed, (together, width, deep) = OFFSET if ways == 4 else 0, block
    cell = block.cell

    @part()
    def cut_strip(x, g, n, top, lines, columns, g0, count, pixel, strip, row):
        """Copy ``count`` blocks from ``g0`` on, of ``lines`` lines from ``top`` on, into a strip.

        Pixels outside the image are zero. Values that fill up a word are arbitrary: their weights
        are zero. ``row`` has room for the words of a pixel.
        """
        c_group, offset = g.c_in // (g.groups * together), zero_of_signed if g.sign else 0
        goal = strip if cell == 1 else row
        values, all_words = goal.view(short), strip.view(np.int32)
        # Where no word is filled up, the channels of all groups are one run.
        runs, run = count * together, c_group
        if c_group == g.deep * ways:
            runs, run = 1, count * together * c_group
        none = np.int32(empty_word * offset - ((empty_word * offset >> 31) << 32))
        for line in range(lines):
            at, inside = line * columns, 0 <= top + line < g.h
            left = min(g.p_w, columns) if inside else columns
            right = min(left + g.w, columns)
            all_words[at * pixel : (at + left) * pixel] = none
            all_words[(at + right) * pixel : (at + columns) * pixel] = none
            source = (n * g.h + top + line) * g.w * g.c_in + g0 * together * c_group
            for q in range(left, right):
                begin = (at + q) * pixel if cell == 1 else 0
                for one in range(runs):
                    to = (begin + one * g.deep) * ways
                    widen(x, source + one * c_group, values, to, run, g.sign, offset)
                source += g.c_in
                if cell > 1:
                    to = (at + q) * pixel
                    for one in range(count):
                        for word in range(deep):
                            start = one * together * deep + word
                            spread_words(together, width, deep, row, start, strip, to)
                            to += cell

    return cut_strip


@functools.cache
def _sweep_of(vectors: int, cell: int) -> Callable[..., None]:
    """Make the function that multiplies all positions of a strip by one panel."""
    height, size = rows_of(vectors), vectors * machine().lanes

    @part()
    def sweep(
        strip, at, rows, positions, steps, weight, b_at, terms, t_at, g, f0, filters, over, first,
        residual, out, scratch, spare,
    ):  # fmt: skip
        """Compute tile after tile; the next panel may come into the second cache meanwhile.

        A tile with rows behind the last position goes to ``scratch`` first, and so does one with
        idle lanes, unless these may write ``over`` what follows.
        """
        item = 4 if g.wide else 1
        soon_at, soon_step = b_at, 0
        if positions <= FEW:
            soon_at, soon_step = b_at + size * len(steps), spread(size, positions, height)
        for p in range(0, positions, height):
            valid, c_at = min(height, positions - p), (first + p) * g.c_out + f0
            if valid == height and (filters == size or over):
                integer_tile(
                    vectors, cell, strip, at, rows, p, steps, len(steps), weight, b_at, terms, t_at,
                    g.apart, out, c_at, g.c_out, residual, g.add, g.other, g.wide,
                    soon_at, soon_step,
                )  # fmt: skip
            else:
                if g.add:
                    source, target = residual.view(np.uint8), spare.view(np.uint8)
                    for r in range(valid):
                        move(source, c_at + r * g.c_out, target, r * size, filters)
                integer_tile(
                    vectors, cell, strip, at, rows, p, steps, len(steps), weight, b_at, terms, t_at,
                    g.apart, scratch, 0, size, spare, g.add, g.other, g.wide,
                    soon_at, soon_step,
                )  # fmt: skip
                made, there = scratch.view(np.uint8), out.view(np.uint8)
                for r in range(valid):
                    to = (c_at + r * g.c_out) * item
                    move(made, r * size * item, there, to, filters * item)
            soon_at += soon_step * len(steps)

    return sweep


@functools.cache
def strips_kernel(larger: int, smaller: int, block: Block) -> Kernel:
    """Make the kernel for panels of two numbers of vectors, which may be the same.

    With ``block.groups`` of 1 it is for groups of any width.
    """
    cell, lanes = block.cell, machine().lanes
    sweep_larger, sweep_smaller = _sweep_of(larger, cell), _sweep_of(smaller, cell)
    cut_strip = _cut_strip_of(words().ways, block)
    height, most = max(rows_of(larger), rows_of(smaller)), larger * lanes

    @in_tasks(Integers, key=(larger, smaller, *block))
    def strips(x, weight, terms, residual, out, g, counters):
        """Compute strips of the result, each for a share of the panels."""
        width = g.c_out // g.groups
        vectors = (width + g.lanes - 1) // g.lanes
        columns, units = (g.w_out - 1) * g.s_w + g.k_w, g.groups * g.panels
        most_groups = min(g.groups, (units // g.shares + g.panels - 1) // g.panels + 2)
        deep = (g.lines - 1) * g.s_h + g.k_h
        strip = aligned(deep * columns * pixel_of(most_groups * g.deep * cell))
        row = aligned(most_groups * g.deep * lanes + lanes if cell > 1 else 1)
        scratch, spare = aligned(height * most), aligned(height * most)
        rows = working(g.lines * g.w_out + height, np.int64)
        steps = working(g.k_h * g.k_w * g.deep, np.int64)
        values, pixel_held = x.view(np.uint8), np.int64(-1)
        place_held, group_held, count_held = np.int64(-1), np.int64(-1), np.int64(-1)
        task = next_task(counters)
        while task < g.tasks:
            place, share = divmod(task, g.shares)
            n, part = divmod(place, g.strips)
            first, last = part * g.lines, min((part + 1) * g.lines, g.h_out)
            begin, end = share * units // g.shares, (share + 1) * units // g.shares
            g0 = begin // g.panels
            count = (end + g.panels - 1) // g.panels - g0
            pixel = pixel_of(count * g.deep * cell)
            if pixel != pixel_held:
                places(g, 1, g.lines, columns, pixel, g.deep, rows, steps)
                for k in range(len(steps)):
                    steps[k] += k % g.deep * (cell - 1)
                pixel_held = pixel
            if place != place_held or g0 != group_held or count != count_held:
                top, deep = first * g.s_h - g.p_h, (last - first - 1) * g.s_h + g.k_h
                cut_strip(values, g, n, top, deep, columns, g0, count, pixel, strip, row)
                place_held, group_held, count_held = place, g0, count
            at, positions = (n * g.h_out + first) * g.w_out, (last - first) * g.w_out
            # Where a later panel of this task writes what idle lanes have written before.
            reach = end // g.panels * width
            for unit in range(begin, end):
                group, panel = divmod(unit, g.panels)
                before, size = panel_of(g, panel)
                size *= g.lanes
                f0, t_at = before * g.lanes, (group * vectors + before) * g.lanes
                b_at, filters = t_at * len(steps), min(size, width - f0)
                f0 += group * width
                over, start = g.add == 0 and f0 + size <= reach, (group - g0) * g.deep * cell
                if panel < g.full:
                    sweep_larger(
                        strip, start, rows, positions, steps, weight, b_at, terms, t_at, g, f0,
                        filters, over, at, residual, out, scratch, spare,
                    )  # fmt: skip
                else:
                    sweep_smaller(
                        strip, start, rows, positions, steps, weight, b_at, terms, t_at, g, f0,
                        filters, over, at, residual, out, scratch, spare,
                    )  # fmt: skip
            task = next_task(counters)
        finished(counters)

    return strips


# --- launcher -------------------------------------------------------------------------------------


def cut(
    geo: Geometry, block: Block, add: bool, relu: bool, apart: int, sign: int, other: int,
    wide_result: bool,
) -> Integers:  # fmt: skip
    """Cut as `wide.cut` does, with blocks for groups."""
    blocks = geo.groups // block.groups
    # So many values of a strip are a pixel.
    values = geo.c_in if block.cell == 1 else blocks * block.deep * block.cell
    least = 1 if block.cell == 1 else LINES
    numbers = wide.cut(geo._replace(groups=blocks, c_in=values), add, relu, least)
    return Integers(
        *numbers._replace(c_in=geo.c_in),
        deep=block.deep,
        apart=apart,
        sign=sign,
        other=other,
        wide=int(wide_result),
    )


def pack(weight: Array, groups: int) -> Array:
    """Return the panels of words ``[k_h * k_w * deep, c_out/blocks]`` of each block; flat float32.

    The last word of a tap and the last vector of a block are filled up with zeros.
    """
    ways, lanes, (c_out, c_group, k_h, k_w) = words().ways, machine().lanes, weight.shape
    groups //= block_of(weight.shape, groups, ways).groups
    width, deep = c_out // groups, -(-c_group // ways)
    vectors, (panels, full, larger, smaller) = -(-width // lanes), divided(width)
    filled = np.zeros(
        (groups, k_h, k_w, deep * ways, vectors * lanes), np.int16 if ways == 2 else np.int8
    )
    filters = weight.reshape(groups, width, c_group, k_h, k_w).transpose(0, 3, 4, 2, 1)
    filled[..., :c_group, :width] = filters
    pairs = filled.reshape(groups, k_h * k_w * deep, ways, -1).swapaxes(2, 3)
    whole = np.ascontiguousarray(pairs).view(np.int32)[..., 0]
    sizes = [(larger if p < full else smaller) * lanes for p in range(panels)]
    parts = np.split(whole, np.cumsum(sizes)[:-1], axis=-1)
    made = empty((whole.size,))
    made.view(np.int32)[...] = np.concatenate([p.reshape(groups, -1) for p in parts], 1).reshape(-1)
    return made


def filter_places(c_out: int, blocks: int) -> Array:
    """Return the place of each filter in a row of the terms."""
    width, lanes = c_out // blocks, machine().lanes
    group, filter = np.divmod(np.arange(c_out), width)
    return group * (-(-width // lanes) * lanes) + filter
