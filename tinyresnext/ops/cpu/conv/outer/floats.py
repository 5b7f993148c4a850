"""The gradient of a 1x1 convolution's weight: the product of two matrices with long columns.

``dweight[o, c] = sum over positions of dy[position, o] * x[position, c]``. So here the depth, down
which the register tile walks (`tile`), are the positions: a hundred thousand of them and
more, while both other sides are short.

With a stride or padding, a block of positions is cut into panels first, small enough for the second
cache; without, tiles read both matrices where they are. Then every left panel meets every right
one, and the sums go to memory once for the block. The matrix on the left is the one for which fewer
values of the tiles are left over.

A long sum loses digits: added one after the other, n products of float32 may lose n roundings. Here
the sums of a block begin at zero in registers, are then added to those of the blocks before, each
task has its own, and these are added at the end: of ``n = length * blocks * tasks`` products,
``length + blocks + tasks`` roundings at most. The tasks depend on the number of threads, but not on
which thread does them: for one number of threads the result is the same every time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...runtime.crew import Step
from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ...runtime.memory import Array, empty
from ...runtime.simd import aligned, copy, machine, seen_as
from ...runtime.tasks import finished, in_tasks, next_task
from ..gemm import UNROLL, VECTORS
from ..geometry import Geometry
from .tile import LENGTH, outer_tile

BLOCK = 128 * 1024  # most values of a block's panels: 512 KiB, half of a second cache of 1 MiB
PARTIAL = 512 * 1024  # values of all partial sums together, about, where there are enough positions


class Outer(NamedTuple):
    """The numbers of a 1x1 weight's gradient: the geometry, and how the sums are cut.

    Each task has its share of the blocks of positions, and leaves a matrix of partial sums;
    `add_up` has a task for each filter instead.
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
    image_left: int  # 1 where the image is the left matrix, 0 where dy is
    lanes: int  # of a vector
    half: int  # rows of the lower register tile
    panel: int  # columns of a right panel
    length: int  # positions of a block
    shares: int  # of the positions
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@part()
def _see(x, g, n, line, column, seen):
    """Copy the pixel that one position sees; it is zero outside the image."""
    y, q = line * g.s_h - g.p_h, column * g.s_w - g.p_w
    if 0 <= y < g.h and 0 <= q < g.w:
        copy(x, ((n * g.h + y) * g.w + q) * g.c_in, seen, 0, g.c_in)
    else:
        seen[: g.c_in] = 0


@part()
def _cut_left(source, s, count, half, pitch, lanes, a, p):
    """Copy to every left panel its part of row ``p``.

    A whole vector is copied last: what is too many belongs to the next row, or is never read.
    """
    at, done = np.int64(0), np.int64(0)
    while done < count:
        rows = 2 * half if count - done > half else half
        copy(source, s + done, a, at + p * rows, (rows + lanes - 1) // lanes * lanes)
        done += rows
        at += pitch


@part()
def _cut_right(source, s, count, size, pitch, b, p):
    """Copy to every right panel its part of row ``p``."""
    for j in range((count + size - 1) // size):
        copy(source, s + j * size, b, j * pitch + p * size, min(size, count - j * size))


@part()
def _cut(x, dy, g, first, count, a_pitch, b_pitch, seen, a, b):
    """Cut ``count`` positions of both matrices into panels.

    On the right, rows of zeros follow up to a multiple of ``UNROLL``.
    """
    size = g.panel
    line, column = divmod(first, g.w_out)
    n, line = divmod(line, g.h_out)
    for p in range(count):
        _see(x, g, n, line, column, seen)
        d = (first + p) * g.c_out
        if g.image_left:
            _cut_left(seen, 0, g.c_in, g.half, a_pitch, g.lanes, a, p)
            _cut_right(dy, d, g.c_out, size, b_pitch, b, p)
        else:
            _cut_right(seen, 0, g.c_in, size, b_pitch, b, p)
            # Where too little is behind the row for whole vectors, it is copied from elsewhere.
            if d + g.c_out + 2 * g.half + g.lanes > len(dy):
                copy(dy, d, seen, 0, g.c_out)
                _cut_left(seen, 0, g.c_out, g.half, a_pitch, g.lanes, a, p)
            else:
                _cut_left(dy, d, g.c_out, g.half, a_pitch, g.lanes, a, p)
        column += 1
        if column == g.w_out:
            line, column = line + 1, np.int64(0)
        if line == g.h_out:
            n, line = n + 1, np.int64(0)
    columns = g.c_out if g.image_left else g.c_in
    for p in range(count, (count + UNROLL - 1) // UNROLL * UNROLL):
        for j in range((columns + size - 1) // size):
            b[j * b_pitch + p * size : j * b_pitch + (p + 1) * size] = 0


@part()
def meet(
    left, a_at, a_pitch, a_step, right, b_at, b_pitch, b_step, depth, rows, columns, half, size,
    out, c_at,
):  # fmt: skip
    """Multiply all left panels by all right ones.

    ``a_step`` is zero where left panels are as wide as their tiles.
    """
    padded = (rows + half - 1) // half * half
    for j in range((columns + size - 1) // size):
        done, at = np.int64(0), a_at
        while done < rows:
            place = c_at + (j * padded + done) * size
            if rows - done > half:
                step = a_step if a_step else 2 * half
                outer_tile(2, left, at, step, right, b_at + j * b_pitch, b_step, depth, out, place)
            else:
                step = a_step if a_step else half
                outer_tile(1, left, at, step, right, b_at + j * b_pitch, b_step, depth, out, place)
            done += 2 * half
            at += a_pitch


@in_tasks(Outer)
def _multiply(x, dy, out, g, counters):
    """Compute partial sums of the gradient: ``out`` has a matrix for each task.

    Where a position sees its own pixel, both matrices are in memory already, and tiles read them
    where they are, as long as enough follows a block for what a tile reads too many.
    """
    positions = g.n * g.h_out * g.w_out
    rows, columns = (g.c_in, g.c_out) if g.image_left else (g.c_out, g.c_in)
    values = (rows + g.half - 1) // g.half * g.half * ((columns + g.panel - 1) // g.panel * g.panel)
    a_pitch, b_pitch = g.length * 2 * g.half + g.lanes, g.length * g.panel
    a = aligned((rows + 2 * g.half - 1) // (2 * g.half) * a_pitch + g.lanes)
    b = aligned((columns + g.panel - 1) // g.panel * b_pitch)
    seen = aligned(max(g.c_in, g.c_out) + 2 * g.half + g.lanes)
    a[:], b[:], seen[:] = 0, 0, 0
    # Tiles read float32; bfloat16 is widened on the way to panels.
    pointwise = g.s_h * g.s_w == 1 and g.p_h + g.p_w == 0 and x.itemsize == 4
    xs, ds = seen_as(x, a), seen_as(dy, a)
    count = (positions + g.length - 1) // g.length
    task = next_task(counters)
    while task < g.tasks:
        out[task * values : (task + 1) * values] = 0
        for block in range(task * count // g.tasks, (task + 1) * count // g.tasks):
            first = block * g.length
            some = min(g.length, positions - first)
            behind = (positions - first - some) * min(g.c_in, g.c_out)
            if pointwise and behind >= max(2 * g.half, g.panel):
                if g.image_left:
                    meet(
                        xs, first * g.c_in, 2 * g.half, g.c_in, ds, first * g.c_out, g.panel,
                        g.c_out, some, rows, columns, g.half, g.panel, out, task * values,
                    )  # fmt: skip
                else:
                    meet(
                        ds, first * g.c_out, 2 * g.half, g.c_out, xs, first * g.c_in, g.panel,
                        g.c_in, some, rows, columns, g.half, g.panel, out, task * values,
                    )  # fmt: skip
            else:
                _cut(x, dy, g, first, some, a_pitch, b_pitch, seen, a, b)
                depth = (some + UNROLL - 1) // UNROLL * UNROLL
                meet(
                    a, 0, a_pitch, 0, b, 0, b_pitch, g.panel, depth, rows, columns, g.half,
                    g.panel, out, task * values,
                )  # fmt: skip
        task = next_task(counters)
    finished(counters)


@in_tasks(Outer)
def add_up(partial, out, g, counters):
    """Add the partial sums of all shares, and store them; a task is a filter."""
    rows, columns = (g.c_in, g.c_out) if g.image_left else (g.c_out, g.c_in)
    padded = (rows + g.half - 1) // g.half * g.half
    length = padded * ((columns + g.panel - 1) // g.panel) * g.panel
    task = next_task(counters)
    while task < g.tasks:
        for c in range(g.c_in):
            row, column = (c, task) if g.image_left else (task, c)
            at = (column // g.panel * padded + row) * g.panel + column % g.panel
            total = np.float32(0)
            for _ in range(g.shares):
                total += partial[at]
                at += length
            place = task * g.c_in + c
            out[place] = out[place] + total if g.add else total
        task = next_task(counters)
    finished(counters)


# --- launcher -------------------------------------------------------------------------------------


def cut(geo: Geometry, add: bool) -> Outer:
    """Choose panels that leave little over, blocks that fit the caches, and enough tasks."""
    m, threads = machine(), threads_now()
    panel = VECTORS * m.lanes

    def filled(rows: int, columns: int) -> int:
        return -(-rows // m.half) * m.half * -(-columns // panel) * panel

    image_left = filled(geo.c_in, geo.c_out) < filled(geo.c_out, geo.c_in)
    values = min(filled(geo.c_in, geo.c_out), filled(geo.c_out, geo.c_in))
    length = max(UNROLL, min(LENGTH, BLOCK // (geo.c_in + geo.c_out)) // UNROLL * UNROLL)
    some = min(8 * threads, max(2 * threads, PARTIAL // values))
    shares = max(1, min(some, -(-geo.positions // length)))
    return Outer(
        *geo,
        add=int(add),
        image_left=int(image_left),
        lanes=m.lanes,
        half=m.half,
        panel=panel,
        length=length,
        shares=shares,
        tasks=shares,
    )


def weight_gradient(x: Array, dy: Array, out: Array, geo: Geometry, add: bool) -> list[Step]:
    """Return the steps that compute ``dweight``.

    Parameters
    ----------
    x, dy : flat, float32 or bfloat16
    out : flat float32
    geo : Geometry
    add : bool
        Add the gradient to what ``out`` holds.
    """
    g = cut(geo, add)
    rows, columns = (g.c_in, g.c_out) if g.image_left else (g.c_out, g.c_in)
    partial = empty((g.tasks * -(-rows // g.half) * g.half * -(-columns // g.panel) * g.panel,))
    return [
        Step(_multiply, g, x=x, dy=dy, out=partial),
        Step(add_up, g._replace(tasks=g.c_out), partial=partial, out=out),
    ]
