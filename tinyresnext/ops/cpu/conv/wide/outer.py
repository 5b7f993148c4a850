"""The gradient of a weight from strips: the tile of `tile`, with positions as its depth.

``dweight[o, k] = sum over positions p of dy[p, o] * seen[p, k]``, and what position ``p`` sees at
tap and channel ``k`` is ``strip[at + rows[p] + steps[k]]``, as forward (`tile`). Forward a tile has
a position in each row and walks down ``k``. Here it has a ``k`` in each row and walks down the
positions: the two tables change places, and the panel on the right is ``dy``. So nothing is copied
for each position but its own ``dy``.

Some strips are gathered at once, of several images where these are small, so that a tile walks over
about 200 positions: enough that adding its sums to those in memory costs little, and so few that
the group's part of the strips and the panel of ``dy`` stay in the first cache.

The partial sums of a part of the strips are those of one chain of additions, and the number of
parts does not depend on the number of threads. So the gradient does not either.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from ...runtime.crew import Step
from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ...runtime.memory import Array, empty
from ...runtime.simd import aligned, copy, machine, working
from ...runtime.tasks import Kernel, finished, in_tasks, next_task
from ..geometry import Geometry
from . import pairs
from .panels import divided, panel_of
from .strips import cut_strip, pixel_of, places
from .tile import rows_of, wide_tile

LENGTH = 224  # most positions that a tile walks over: 14 KiB of dy in two vectors of AVX2
STRIPS = 1024 * 1024  # most values of strips gathered at once, where there are several: 4 MiB
PARTS = 32  # tasks, about, that there are whatever the number of threads


class Sums(NamedTuple):
    """The numbers of a weight's gradient: the geometry, and how the sums are cut.

    For each of ``parts`` parts of the strips there are ``shares`` tasks, each with its share of the
    ``groups * panels`` panels of ``dy``. `_add_up` has a task for each filter instead.
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
    add: int  # 1 where the gradient is added to what is there
    lanes: int  # of a vector
    panels: int  # of a group
    full: int  # panels of the larger kind; they come first
    larger: int  # vectors of these
    smaller: int  # vectors of the others
    along: int  # rows of a panel of dy for a line: positions, or pairs of them
    columns: int  # of a strip
    lines: int  # of the result, in a strip; they divide h_out
    together: int  # strips gathered at once
    depth: int  # rows of a panel of sums, those of its last tile included
    parts: int
    shares: int
    tasks: int


@part()
def _cut_lines(x, g, n, top, lines, c0, count, pixel, strip, spare):
    """Copy lines of an image into a strip; nothing is spare."""
    cut_strip(x, g, n, top, lines, g.columns, c0, count, pixel, strip)


@part()
def _cut_panel(dy, g, first, lines, f0, filters, size, spare, right):
    """Copy ``filters`` filters from ``f0`` of some lines into a panel; nothing is spare."""
    source = first * g.w_out * g.c_out + f0
    for p in range(lines * g.w_out):
        copy(dy, source, right, p * size, filters)
        source += g.c_out


@functools.cache
def sums_kernel(larger: int, smaller: int, words: bool) -> Kernel:
    """Make the kernel for panels of two numbers of vectors, which may be the same.

    Tiles read float32, which bfloat16 is widened to, or ``words`` of two positions.
    """
    high, low = rows_of(larger), rows_of(smaller)
    behind, most = max(high, low), larger * machine().lanes  # rows behind the last
    kind, other = (np.uint32, np.uint16) if words else (np.float32, np.float32)
    fill, cut_lines, cut_right = places, _cut_lines, _cut_panel
    if words:
        fill, cut_lines, cut_right = pairs.pair_places, pairs.cut_words, pairs.cut_panel

    @in_tasks(Sums, key=(larger, smaller, int(words)))
    def sums(x, dy, out, g, counters):
        """Compute partial sums of the gradient: ``out`` has a matrix for each part and panel."""
        c_group, width = g.c_in // g.groups, g.c_out // g.groups
        deep, seen = (g.lines - 1) * g.s_h + g.k_h, g.k_h * g.k_w * c_group
        units, strips = g.groups * g.panels, g.n * (g.h_out // g.lines)
        blocks = (strips + g.together - 1) // g.together
        values = (width + g.lanes - 1) // g.lanes * g.lanes * g.depth  # of the sums of a group
        strip = working(g.together * deep * g.columns * pixel_of(g.c_in) + g.lanes, kind)
        right, none = working(g.together * g.lines * g.along * most, kind), aligned(most)
        line = ((g.w_out - 1) * g.s_w + g.k_w + 1) * pixel_of(g.c_in) if words else 0
        spare = working(max(line, 2 * most) + g.lanes, other)
        right[:], none[:], spare[:], least = 0, 0, 0, np.float32(-np.inf)
        rows = working(g.together * g.lines * g.along, np.int64)
        steps = working(seen + behind, np.int64)
        task = next_task(counters)
        while task < g.tasks:
            part, share = divmod(task, g.shares)
            begin, end = share * units // g.shares, (share + 1) * units // g.shares
            g0 = begin // g.panels
            count = ((end + g.panels - 1) // g.panels - g0) * c_group
            pixel = pixel_of(count)
            fill(g, g.together, g.lines, g.columns, pixel, c_group, rows, steps)
            for unit in range(begin, end):
                group, panel = divmod(unit, g.panels)
                before, vectors = panel_of(g, panel)
                at = (part * g.groups + group) * values + before * g.lanes * g.depth
                out[at : at + vectors * g.lanes * g.depth] = 0
            for block in range(part * blocks // g.parts, (part + 1) * blocks // g.parts):
                first, last = block * g.together, min((block + 1) * g.together, strips)
                for s in range(first, last):
                    n, y = divmod(s * g.lines, g.h_out)
                    target = strip[(s - first) * deep * g.columns * pixel :]
                    top = y * g.s_h - g.p_h
                    cut_lines(x, g, n, top, deep, g0 * c_group, count, pixel, target, spare)
                lines = (last - first) * g.lines
                for unit in range(begin, end):
                    group, panel = divmod(unit, g.panels)
                    before, vectors = panel_of(g, panel)
                    size, f0 = vectors * g.lanes, before * g.lanes
                    at, filters = (group - g0) * c_group, min(size, width - f0)
                    start = group * width + f0
                    cut_right(dy, g, first * g.lines, lines, start, filters, size, spare, right)
                    c_at = (part * g.groups + group) * values + f0 * g.depth
                    if panel < g.full:
                        for k in range(0, seen, high):
                            wide_tile(
                                larger, strip, at, steps, k, rows, lines * g.along, right, 0, none,
                                out, c_at + k * size, size, out, 1, least, right, 0, 0,
                            )  # fmt: skip
                    else:
                        for k in range(0, seen, low):
                            wide_tile(
                                smaller, strip, at, steps, k, rows, lines * g.along, right, 0, none,
                                out, c_at + k * size, size, out, 1, least, right, 0, 0,
                            )  # fmt: skip
            task = next_task(counters)
        finished(counters)

    return sums


@in_tasks(Sums)
def _add_up(partial, out, g, counters):
    """Add the partial sums of all parts, and store them; a task is a filter."""
    c_group, width, taps = g.c_in // g.groups, g.c_out // g.groups, g.k_h * g.k_w
    values = (width + g.lanes - 1) // g.lanes * g.lanes * g.depth
    task = next_task(counters)
    while task < g.tasks:
        group, o = divmod(task, width)
        panel = o // g.lanes // g.larger
        if panel >= g.full:
            panel = g.full + (o // g.lanes - g.full * g.larger) // g.smaller
        before, vectors = panel_of(g, panel)
        start = group * values + before * g.lanes * g.depth + o - before * g.lanes
        for k in range(taps * c_group):
            at, total = start + k * vectors * g.lanes, np.float32(0)
            for _ in range(g.parts):
                total += partial[at]
                at += g.groups * values
            tap, c = divmod(k, c_group)
            place = (task * c_group + c) * taps + tap
            out[place] = out[place] + total if g.add else total
        task = next_task(counters)
    finished(counters)


# --- launcher -------------------------------------------------------------------------------------


def cut(geo: Geometry, add: bool, words: bool = False) -> Sums:
    """Cut into strips of whole lines, and the strips into parts."""
    panels, full, larger, smaller = divided(geo.width)
    most = max(1, LENGTH // max(1, geo.w_out))
    lines = next((y for y in range(min(most, geo.h_out), 0, -1) if geo.h_out % y == 0), 1)
    strips = geo.n * geo.h_out // lines
    along, columns = geo.w_out, (geo.w_out - 1) * geo.s_w + geo.k_w
    if words:
        along, columns = pairs.sizes(geo.w_out, geo.s_w, geo.k_w)
    deep = (lines - 1) * geo.s_h + geo.k_h
    room = STRIPS // (deep * columns * geo.c_in)
    together = max(1, min(strips, room, LENGTH // max(1, lines * geo.w_out)))
    units = geo.groups * panels
    parts = max(1, min(-(-strips // together), -(-PARTS // units)))
    shares = min(units, -(-8 * threads_now() // parts))
    seen = geo.k_h * geo.k_w * geo.c_in // geo.groups
    return Sums(
        *geo,
        add=int(add),
        lanes=machine().lanes,
        panels=panels,
        full=full,
        larger=larger,
        smaller=smaller,
        along=along,
        columns=columns,
        lines=lines,
        together=together,
        depth=seen + max(rows_of(larger), rows_of(smaller)),
        parts=parts,
        shares=shares,
        tasks=parts * shares,
    )


def weight_gradient(
    x: Array, dy: Array, out: Array, geo: Geometry, add: bool, words: bool = False
) -> list[Step]:
    """Return the steps that compute ``dweight``; see `outer.floats`.

    With ``words``, ``x`` and ``dy`` are bfloat16.
    """
    g = cut(geo, add, words)
    vectors = -(-geo.width // g.lanes)
    partial = empty((g.parts * g.groups * vectors * g.lanes * g.depth,))
    return [
        Step(sums_kernel(g.larger, g.smaller, words), g, x=x, dy=dy, out=partial),
        Step(_add_up, g._replace(tasks=g.c_out), partial=partial, out=out),
    ]
