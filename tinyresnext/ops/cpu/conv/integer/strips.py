"""Convolution of integers from strips: as `wide.strips`, with words in the strips.

A task copies the lines that it needs into a strip; in doing so it makes words of the bytes. The
channels of a group are filled up to whole words, so that a word never has values of two groups::

      pixel of 8 channels, 2 groups of 4        bytes   [ a0 a1 a2 a3 | b0 b1 b2 b3 ]
      words of four (VNNI)                               [  word 0     |  word 1     ]
      words of two                                       [ w 0 | w 1   | w 2 | w 3   ]

That is what cardinality does to dot products of four: a group of four channels is one word, and a
3 x 3 kernel nine words, so nothing is lost. A group of two channels would leave half of each word
idle, and one of six a quarter. A 1x1 convolution with one group is the same with one tap. Groups
with fewer filters than a vector has lanes go another way where that can be (`narrow`). Bytes that
are words already, and have no padding, are read where they are.

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
from ..geometry import Geometry, taken
from ..wide import strips as wide
from ..wide.panels import divided, panel_of
from ..wide.strips import pixel_of, places
from .cutting import Values, cut_bytes, cut_strip_of
from .tile import integer_tile, rows_of
from .words import move, words

FEW = 100  # positions: where a panel is used for no more, the next one comes early


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
    direct: int  # 1 where tiles read the input itself


# --- kernels --------------------------------------------------------------------------------------


@functools.cache
def _sweep_of(vectors: int) -> Callable[..., None]:
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
                    vectors, strip, at, rows, p, steps, len(steps), weight, b_at, terms, t_at,
                    g.apart, out, c_at, g.c_out, residual, g.add, g.other, g.wide,
                    soon_at, soon_step,
                )  # fmt: skip
            else:
                if g.add:
                    source, target = residual.view(np.uint8), spare.view(np.uint8)
                    for r in range(valid):
                        move(source, c_at + r * g.c_out, target, r * size, filters)
                integer_tile(
                    vectors, strip, at, rows, p, steps, len(steps), weight, b_at, terms, t_at,
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
def strips_kernel(larger: int, smaller: int) -> Kernel:
    """Make the kernel for panels of two numbers of vectors, which may be the same."""
    sweep_larger, sweep_smaller = _sweep_of(larger), _sweep_of(smaller)
    cut_strip = cut_strip_of(words().ways)
    height, most = max(rows_of(larger), rows_of(smaller)), larger * machine().lanes

    @in_tasks(Integers, key=(larger, smaller))
    def strips(x, weight, terms, residual, out, g, counters):
        """Compute strips of the result, each for a share of the panels."""
        width = g.c_out // g.groups
        vectors = (width + g.lanes - 1) // g.lanes
        columns, units = (g.w_out - 1) * g.s_w + g.k_w, g.groups * g.panels
        if g.direct:
            columns = g.w
        most_groups = min(g.groups, (units // g.shares + g.panels - 1) // g.panels + 2)
        deep = (g.lines - 1) * g.s_h + g.k_h
        strip = aligned(1 if g.direct else deep * columns * pixel_of(most_groups * g.deep))
        source = x if g.direct else strip
        scratch, spare = aligned(height * most), aligned(height * most)
        rows = working(g.lines * g.w_out + height, np.int64)
        steps = working(g.k_h * g.k_w * g.deep, np.int64)
        values, pixel_held = x.view(np.uint8), np.int64(-1)
        place_held, group_held, count_held = np.int64(-1), np.int64(-1), np.int64(-1)
        task = next_task(counters)
        while task < g.tasks:
            place, n, first, last, begin, end = taken(g, task, units)
            g0 = begin // g.panels
            count = (end + g.panels - 1) // g.panels - g0
            pixel = g.groups * g.deep if g.direct else pixel_of(count * g.deep)
            begun = ((n * g.h + first * g.s_h) * g.w * g.groups + g0) * g.deep * g.direct
            if pixel != pixel_held:
                places(g, 1, g.lines, columns, pixel, g.deep, rows, steps)
                pixel_held = pixel
            other_place = place != place_held or g0 != group_held or count != count_held
            if other_place and not g.direct:
                top, deep = first * g.s_h - g.p_h, (last - first - 1) * g.s_h + g.k_h
                cut_strip(values, g, n, top, deep, columns, g0, count, pixel, strip)
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
                over = g.add == 0 and f0 + size <= reach
                start = begun + (group - g0) * g.deep
                if panel < g.full:
                    sweep_larger(
                        source, start, rows, positions, steps, weight, b_at, terms, t_at, g, f0,
                        filters, over, at, residual, out, scratch, spare,
                    )  # fmt: skip
                else:
                    sweep_smaller(
                        source, start, rows, positions, steps, weight, b_at, terms, t_at, g, f0,
                        filters, over, at, residual, out, scratch, spare,
                    )  # fmt: skip
            task = next_task(counters)
        finished(counters)

    return strips


# --- launcher -------------------------------------------------------------------------------------


def cut(geo: Geometry, deep: int, add: bool, relu: bool, values: Values) -> Integers:
    """Cut as `wide.cut` does, and `cut_bytes`."""
    numbers = wide.cut(geo, add, relu)
    units, in_words = geo.groups * numbers.panels, geo._replace(c_in=geo.groups * deep)
    lines, strips, shares = cut_bytes(in_words, units, geo.c_out // units)
    tasks = geo.n * strips * shares
    whole = words().ways == 4 and geo.c_in == 4 * in_words.c_in
    return Integers(
        *numbers._replace(lines=lines, strips=strips, shares=shares, tasks=tasks),
        deep=deep,
        **values._asdict(),
        direct=int(whole and values.sign == geo.p_h == geo.p_w == 0),
    )


def pack(weight: Array, groups: int) -> Array:
    """Return the panels of words ``[k_h * k_w * deep, c_out/groups]`` of each group; flat float32.

    The last word of a tap and the last vector of a group are filled up with zeros.
    """
    ways, lanes, (c_out, c_group, k_h, k_w) = words().ways, machine().lanes, weight.shape
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


def filter_places(c_out: int, groups: int) -> Array:
    """Return the place of each filter in a row of the terms."""
    width, lanes = c_out // groups, machine().lanes
    group, filter = np.divmod(np.arange(c_out), width)
    return group * (-(-width // lanes) * lanes) + filter
