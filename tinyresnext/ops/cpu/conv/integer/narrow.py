"""Convolution of integers with narrow groups: strips of words, whose lanes are groups.

Strips and their places are those of `strips`; a share is some vectors of groups, and the tile is
that of `narrow_tile`. The next taps of a vector of groups lie one after the other, so nothing has
to be fetched ahead.
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
from ..geometry import Geometry, taken
from ..wide.strips import pixel_of, places
from .cutting import Values, cut_bytes, cut_strip_of
from .narrow_tile import Narrow, narrow_tile
from .words import move, words


class Lanes(NamedTuple):
    """The numbers of a convolution of narrow groups: its geometry, its epilogue, how it is cut."""

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
    lines: int  # of the result, in a strip
    strips: int  # of an image
    shares: int
    tasks: int
    deep: int  # words of a group's channels
    apart: int  # values of a row of the terms
    sign: int  # 128 if the input is signed, else 0
    other: int  # 128 if the residual is signed, else 0
    wide: int  # 1 if the result is float32


def pack(weight: Array, groups: int, narrow: Narrow) -> Array:
    """Return for each vector of groups its words ``[k_h * k_w, width, lanes]``; flat float32."""
    ways, (_, c_group, k_h, k_w), (width, deep) = words().ways, weight.shape, narrow
    vectors, kind = -(-groups // narrow.groups), np.int16 if ways == 2 else np.int8
    filled = np.zeros((vectors * narrow.groups, width, k_h, k_w, deep * ways), kind)
    filled[:groups, ..., :c_group] = weight.reshape(groups, width, c_group, k_h, k_w).transpose(
        0, 1, 3, 4, 2
    )
    whole = filled.view(np.int32).reshape(vectors, narrow.groups, width, k_h * k_w, deep)
    made = empty((whole.size,))
    made.view(np.int32)[...] = whole.transpose(0, 3, 2, 1, 4).reshape(-1)
    return made


def filter_places(c_out: int, narrow: Narrow) -> Array:
    """Return the place of each filter in a row of the terms: vector, byte, lane."""
    group, filter = np.divmod(np.arange(c_out), narrow.width)
    word, byte = np.divmod(filter, narrow.bytes)
    vector, inside = np.divmod(group, narrow.groups)
    return (vector * narrow.bytes + byte) * machine().lanes + inside * narrow.deep + word


# --- kernel ---------------------------------------------------------------------------------------


@functools.cache
def _sweep_of(narrow: Narrow) -> Callable[..., None]:
    """Make the function that computes all positions of a strip for one vector of groups."""
    (width, deep), height, size = narrow, narrow.rows, narrow.filters
    each, lanes = narrow.bytes, machine().lanes

    @part()
    def sweep(
        strip, start, rows, positions, steps, weight, unit, terms, g, c_at, residual, out, scratch,
        spare,
    ):  # fmt: skip
        """Compute tile after tile.

        One with rows behind the last position or with idle lanes goes to ``scratch`` first, and so
        does float32, whose order in a tile is not that of the filters.
        """
        b_at, t_at = unit * len(steps) * width * lanes, unit * each * lanes
        filters = min(size, g.c_out - unit * size)
        others, more = residual.view(np.uint8), spare.view(np.uint8)
        made, there = scratch.view(np.uint8), out.view(np.uint8)
        for p in range(0, positions, height):
            valid = min(height, positions - p)
            if valid == height and filters == size and g.wide == 0:
                narrow_tile(
                    width, deep, strip, start, rows, p, steps, len(steps), weight, b_at, terms,
                    t_at, g.apart, out, c_at, g.c_out, residual, g.add, g.other, g.wide,
                )  # fmt: skip
            else:
                for r in range(valid * g.add):
                    move(others, c_at + r * g.c_out, more, r * size, filters)
                narrow_tile(
                    width, deep, strip, start, rows, p, steps, len(steps), weight, b_at, terms,
                    t_at, g.apart, scratch, 0, size, spare, g.add, g.other, g.wide,
                )  # fmt: skip
                for r in range(valid):
                    to, begin = c_at + r * g.c_out, r * size
                    if g.wide == 0:
                        move(made, begin, there, to, filters)
                    for f in range(filters * g.wide):
                        out[to + f] = scratch[begin + f % each * lanes + f // each]
            c_at += height * g.c_out

    return sweep


@functools.cache
def narrow_kernel(narrow: Narrow) -> Kernel:
    """Make the kernel for groups that lie so in lanes."""
    (width, deep), together, lanes = narrow, narrow.groups, machine().lanes
    height, size = narrow.rows, narrow.filters
    cut_strip, sweep = cut_strip_of(words().ways), _sweep_of(narrow)

    @in_tasks(Lanes, key=(width, deep))
    def lanes_of_groups(x, weight, terms, residual, out, g, counters):
        """Compute strips of the result, each for a share of the vectors of groups."""
        units = (g.groups + together - 1) // together
        columns, most = (g.w_out - 1) * g.s_w + g.k_w, (units + g.shares - 1) // g.shares * together
        room = ((g.lines - 1) * g.s_h + g.k_h) * columns * pixel_of(most * deep)
        strip, rows = aligned(room + lanes), working(g.lines * g.w_out + height, np.int64)
        scratch, spare = aligned(height * size), aligned(height * size)
        steps, values, pixel_held = working(g.k_h * g.k_w, np.int64), x.view(np.uint8), np.int64(-1)
        task = next_task(counters)
        while task < g.tasks:
            _, n, first, last, begin, end = taken(g, task, units)
            g0, count = begin * together, min(end * together, g.groups) - begin * together
            pixel = pixel_of(count * deep)
            if pixel != pixel_held:
                places(g, 1, g.lines, columns, pixel, 1, rows, steps)
                pixel_held = pixel
            top, high = first * g.s_h - g.p_h, (last - first - 1) * g.s_h + g.k_h
            cut_strip(values, g, n, top, high, columns, g0, count, pixel, strip)
            at, positions = (n * g.h_out + first) * g.w_out, (last - first) * g.w_out
            for unit in range(begin, end):
                sweep(
                    strip, (unit - begin) * lanes, rows, positions, steps, weight, unit, terms, g,
                    at * g.c_out + unit * size, residual, out, scratch, spare,
                )  # fmt: skip
            task = next_task(counters)
        finished(counters)

    return lanes_of_groups


def cut(geo: Geometry, narrow: Narrow, add: bool, values: Values) -> Lanes:
    """Cut into strips and shares; a share is whole vectors of groups."""
    units = -(-geo.groups // narrow.groups)
    words_of_group = geo._replace(c_in=geo.groups * narrow.deep)
    lines, strips, shares = cut_bytes(words_of_group, units, narrow.filters)
    return Lanes(
        *geo,
        add=int(add),
        lines=lines,
        strips=strips,
        shares=shares,
        tasks=geo.n * strips * shares,
        deep=narrow.deep,
        **values._asdict(),
    )
