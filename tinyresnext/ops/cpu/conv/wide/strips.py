"""Convolution of groups of any width: pixels are copied once, and tiles read them where they are.

A copy of what each position sees (im2col) has every pixel ``k_h * k_w`` times, which pays only
where many panels of filters use it. A group of 14 or 24 channels has one panel or two, and copying
would take as long as multiplying. Here a task copies the lines of the image that it needs once, for
all of its groups, into a *strip* with the padding around them; what each position sees is then
found by two small tables (`tile`), for any size of kernel and any stride::

      strip   [lines, columns, pixel]      pixel: the channels of the task's groups, then spare ones

A task is some lines of the result, of one image, and a share of the panels of all groups.

A group's filters are divided among `panels`. What idle lanes of the last one compute is written
over the first channels of the next group, whose turn is later; a tile for which the task has no
later one, or with rows behind the last position, goes through a scratch tile.

The sums begin with the bias and go through the depth in order: lines of the kernel, in each its
taps, in each the channels. So the bits do not depend on how the work is cut.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ...runtime.memory import Array, upload
from ...runtime.simd import aligned, aligned_like, copy, machine, working
from ...runtime.tasks import Kernel, finished, in_tasks, next_task
from ..gemm import LINE, spread
from ..geometry import Geometry, taken
from .panels import divided, panel_of
from .tile import instructions as instructions_of
from .tile import rows_of, wide_tile

STRIP = 64 * 1024  # most values of a strip, about: 256 KiB, half of a small second cache
POSITIONS = 48  # of a strip, at least: a panel comes into the first cache once for all of them


class Wide(NamedTuple):
    """The numbers of a convolution from strips: its geometry, its epilogue, and how it is cut.

    For each of ``n * strips`` strips there are ``shares`` tasks, each with its share of the
    ``groups * panels`` panels.
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
    lanes: int  # of a vector
    panels: int  # of a group
    full: int  # panels of the larger kind; they come first
    larger: int  # vectors of these
    smaller: int  # vectors of the others
    lines: int  # of the result, in a strip
    strips: int  # of an image
    shares: int
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part()
def cut_strip(x, g, n, top, lines, columns, c0, count, pixel, strip):
    """Copy ``count`` channels from ``c0`` of ``lines`` lines from ``top`` on into a strip.

    Pixels outside the image are zero.
    """
    for line in range(lines):
        at, inside = line * columns * pixel, 0 <= top + line < g.h
        left = min(g.p_w, columns) if inside else columns
        right = min(left + g.w, columns)
        strip[at : at + left * pixel] = 0
        strip[at + right * pixel : at + columns * pixel] = 0
        source = (n * g.h + top + line) * g.w * g.c_in + c0
        if count == pixel == g.c_in:  # a line as it is: pixels of an image are short
            copy(x, source, strip, at + left * pixel, max(0, right - left) * pixel)
            continue
        for q in range(left, right):
            copy(x, source, strip, at + q * pixel, count)
            source += g.c_in


@part()
def places(g, strips, lines, columns, pixel, channels, rows, steps):
    """Fill the tables: where the positions of strips of ``lines`` lines are, and how far values.

    A group has so many ``channels`` in a strip. What is behind the last position is at zero.
    """
    r, deep = 0, (lines - 1) * g.s_h + g.k_h
    for s in range(strips):
        for y in range(lines):
            for q in range(g.w_out):
                rows[r] = ((s * deep + y * g.s_h) * columns + q * g.s_w) * pixel
                r += 1
    rows[r:] = 0
    distances(g, columns, pixel, channels, steps)


@part()
def distances(g, columns, pixel, channels, steps):
    """Fill the table of how far values are from the first one that a position sees."""
    k, steps[:] = 0, 0
    for i in range(g.k_h):
        for j in range(g.k_w):
            for c in range(channels):
                steps[k] = (i * columns + j) * pixel + c
                k += 1


@part(inline=True)
def pixel_of(channels):
    """Return how many values apart the pixels of a strip are.

    An odd number of cache lines spreads a channel of neighbouring pixels over the whole cache.
    """
    lines = (channels + LINE - 1) // LINE
    return channels if lines < 4 else (lines | 1) * LINE


@functools.cache
def _sweep_of(vectors: int) -> Callable[..., None]:
    """Make the function that multiplies all positions of a strip by one panel."""
    height, size = rows_of(vectors), vectors * machine().lanes

    @part()
    def sweep(
        strip, at, rows, positions, steps, weight, b_at, bias, f0, filters, over, first, c_out,
        residual, add, floor, out, scratch, shift,
    ):  # fmt: skip
        """Compute tile after tile; the next panel comes into the second cache meanwhile.

        A tile with rows behind the last position goes to ``scratch`` first, and so does one with
        idle lanes, unless these may write ``over`` what follows.
        """
        copy(bias, f0, shift, 0, filters)
        soon_at, soon_step = b_at + size * len(steps), spread(size, positions, height)
        for p in range(0, positions, height):
            valid, c_at = min(height, positions - p), (first + p) * c_out + f0
            if valid == height and (filters == size or over):
                wide_tile(
                    vectors, strip, at, rows, p, steps, len(steps), weight, b_at, shift, out, c_at,
                    c_out, residual, add, floor, weight, soon_at, soon_step,
                )  # fmt: skip
            else:
                if add:
                    for r in range(valid):
                        copy(residual, c_at + r * c_out, scratch, r * size, filters)
                wide_tile(
                    vectors, strip, at, rows, p, steps, len(steps), weight, b_at, shift, scratch, 0,
                    size, scratch, add, floor, weight, soon_at, soon_step,
                )  # fmt: skip
                for r in range(valid):
                    copy(scratch, r * size, out, c_at + r * c_out, filters)
            soon_at += soon_step * len(steps)

    return sweep


@functools.cache
def strips_kernel(larger: int, smaller: int) -> Kernel:
    """Make the kernel for panels of two numbers of vectors, which may be the same."""
    sweep_larger, sweep_smaller = _sweep_of(larger), _sweep_of(smaller)
    height, most = max(rows_of(larger), rows_of(smaller)), (larger + 1) * machine().lanes

    @in_tasks(Wide, key=(larger, smaller))
    def strips(x, weight, bias, residual, out, g, counters):
        """Compute strips of the result, each for a share of the panels.

        A thread that receives several shares of the same groups and lines copies the strip once.
        """
        c_group, width = g.c_in // g.groups, g.c_out // g.groups
        vectors = (width + g.lanes - 1) // g.lanes
        columns, floor = (g.w_out - 1) * g.s_w + g.k_w, np.float32(0 if g.relu else -np.inf)
        units = g.groups * g.panels
        most_groups = min(g.groups, (units // g.shares + g.panels - 1) // g.panels + 2)
        deep = (g.lines - 1) * g.s_h + g.k_h
        strip = aligned_like(weight, deep * columns * pixel_of(most_groups * c_group))
        scratch, shift = aligned_like(out, height * most), aligned(most)
        scratch[:], shift[:] = 0, 0
        rows = working(g.lines * g.w_out + height, np.int64)
        steps = working(g.k_h * g.k_w * c_group, np.int64)
        place_held = g0_held = count_held = pixel_held = np.int64(-1)
        task = next_task(counters)
        while task < g.tasks:
            place, n, first, last, begin, end = taken(g, task, units)
            g0 = begin // g.panels
            count = ((end + g.panels - 1) // g.panels - g0) * c_group
            pixel = pixel_of(count)
            if place != place_held or g0 != g0_held or count != count_held:
                if pixel != pixel_held:
                    places(g, 1, g.lines, columns, pixel, c_group, rows, steps)
                top, deep = first * g.s_h - g.p_h, (last - first - 1) * g.s_h + g.k_h
                cut_strip(x, g, n, top, deep, columns, g0 * c_group, count, pixel, strip)
                place_held, g0_held, count_held, pixel_held = place, g0, count, pixel
            at, positions = (n * g.h_out + first) * g.w_out, (last - first) * g.w_out
            # Where a later panel of this task writes what idle lanes have written before.
            reach = end // g.panels * width
            for unit in range(begin, end):
                group, panel = divmod(unit, g.panels)
                before, size = panel_of(g, panel)
                size *= g.lanes
                f0, b_at = before * g.lanes, (group * vectors + before) * g.lanes * len(steps)
                filters = min(size, width - f0)
                f0 += group * width
                over = g.add == 0 and f0 + size <= reach
                if panel < g.full:
                    sweep_larger(
                        strip, (group - g0) * c_group, rows, positions, steps, weight, b_at, bias,
                        f0, filters, over, at, g.c_out, residual, g.add, floor, out, scratch, shift,
                    )  # fmt: skip
                else:
                    sweep_smaller(
                        strip, (group - g0) * c_group, rows, positions, steps, weight, b_at, bias,
                        f0, filters, over, at, g.c_out, residual, g.add, floor, out, scratch, shift,
                    )  # fmt: skip
            task = next_task(counters)
        finished(counters)

    return strips


# --- launcher -------------------------------------------------------------------------------------


def instructions(c_group: int, width: int, k_h: int, k_w: int, groups: int) -> float:
    """Return the loads and multiply-adds for one position of all groups."""
    panels, full, larger, smaller = divided(width)

    def panel(vectors: int) -> float:
        return instructions_of(rows_of(vectors), vectors) / rows_of(vectors)

    return groups * k_h * k_w * c_group * (full * panel(larger) + (panels - full) * panel(smaller))


def cut(geo: Geometry, add: bool, relu: bool) -> Wide:
    """Cut into strips that fit the second cache, and about eight tasks for each thread."""
    panels, full, larger, smaller = divided(geo.width)
    columns, wanted = (geo.w_out - 1) * geo.s_w + geo.k_w, 8 * threads_now()
    few = min(geo.h_out, -(-POSITIONS // max(1, geo.w_out)))
    line = columns * geo.c_in // geo.groups  # of one group
    groups = STRIP // max(1, line * ((few - 1) * geo.s_h + geo.k_h))
    groups = max(1, min(geo.groups, groups))
    deep = STRIP // max(1, line * groups)
    most = max(few, min(geo.h_out, (deep - geo.k_h) // geo.s_h + 1))
    strips = -(-geo.h_out // max(1, most))
    if geo.groups == 1 and pixel_of(geo.c_in) == geo.c_in:  # lines of an image are quick to copy
        strips = min(max(strips, -(-wanted // max(1, geo.n))), -(-geo.h_out // few))
    lines = max(1, -(-geo.h_out // max(1, strips)))
    strips = -(-geo.h_out // lines)
    shares = max(-(-geo.groups // groups), -(-wanted // max(1, geo.n * strips)))
    shares = min(geo.groups * panels, shares)
    return Wide(
        *geo,
        add=int(add),
        relu=int(relu),
        lanes=machine().lanes,
        panels=panels,
        full=full,
        larger=larger,
        smaller=smaller,
        lines=lines,
        strips=strips,
        shares=shares,
        tasks=geo.n * strips * shares,
    )


def pack(weight: Array, groups: int) -> Array:
    """Return the panels of ``[k_h * k_w * c_in/groups, c_out/groups]`` of each group; flat.

    The last vector of a group is filled up with zeros.
    """
    lanes = machine().lanes
    filters = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 3, 4, 2, 1)
    matrix = filters.reshape(groups, -1, filters.shape[-1])
    width, (panels, full, larger, smaller) = matrix.shape[-1], divided(matrix.shape[-1])
    filled = np.zeros((*matrix.shape[:2], -(-width // lanes) * lanes), np.float32)
    filled[..., :width] = matrix
    sizes = [(larger if p < full else smaller) * lanes for p in range(panels)]
    parts = np.split(filled, np.cumsum(sizes)[:-1], axis=-1)
    return upload(np.concatenate([part.reshape(groups, -1) for part in parts], 1)).reshape(-1)
