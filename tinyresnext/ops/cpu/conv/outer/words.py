"""The gradient of a 1x1 convolution's weight in bfloat16: words of two positions (see `floats`).

The depth of this product are the positions, so a word (`simd.bfloat16`) has what one channel has at
two of them, and a row of a panel has two rows of the matrix::

      position 2p        [ c0  c1  c2 ... ]            row p of a panel
      position 2p + 1    [ d0  d1  d2 ... ]            [ d0 c0 | d1 c1 | d2 c2 | ... ]

In memory two values of a word lie far apart, so both matrices are always cut into panels. A row of
zeros takes the place of a position that is missing at the end.

Each share of the positions has its own sums. How many shares there are follows from the sizes
alone; where they are too few for the threads, the panels on the right are divided, too. So the
gradient is the same for any number of threads.
"""

from __future__ import annotations

import numpy as np

from ...runtime.crew import Step
from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ...runtime.memory import Array, empty
from ...runtime.simd import copy, interleave, working
from ...runtime.tasks import finished, in_tasks, next_task
from ..gemm import UNROLL
from ..geometry import Geometry
from .floats import BLOCK, PARTIAL, Outer, add_up, cut, meet
from .tile import LENGTH

SHARES = 16  # most shares of the positions
TASKS = 4  # for each thread, about, where there are enough panels

# --- kernels --------------------------------------------------------------------------------------


@part(inline=True)
def _pixel_at(g, position):
    """Return where the pixel begins that a position sees; -1 outside the image."""
    if g.s_h * g.s_w == 1 and g.p_h + g.p_w == 0:
        return position * g.c_in
    line, column = divmod(position, g.w_out)
    n, line = divmod(line, g.h_out)
    y, q = line * g.s_h - g.p_h, column * g.s_w - g.p_w
    inside = 0 <= y < g.h and 0 <= q < g.w
    return ((n * g.h + y) * g.w + q) * g.c_in if inside else np.int64(-1)


@part()
def _fetch(source, s, count, spare, at):
    """Copy a row to spare memory; zeros where there is none."""
    if s < 0:
        spare[at : at + count] = 0
    else:
        copy(source, s, spare, at, count)


@part()
def _cut_pair(source, s, t, first, count, size, pitch, low, lanes, spare, panels, p):
    """Copy to every panel its part of two rows, as row ``p`` of words.

    The rows begin at ``s`` and ``t``, and are negative where there are none; the panels have
    ``size`` columns each, from ``first`` on, and the last has ``low`` if these are enough. Whole
    vectors are copied: what is too many belongs to the next row, or is never read. Where too little
    is behind a row for that, it is copied from elsewhere.
    """
    wide = len(spare) // 2
    if min(s, t) < 0 or max(s, t) + first + count + size + lanes > len(source):
        _fetch(source, s if s < 0 else s + first, count, spare, 0)
        _fetch(source, t if t < 0 else t + first, count, spare, wide)
        source, s, t = spare, np.int64(0), np.int64(wide)
    else:
        s, t = s + first, t + first
    done, at = np.int64(0), np.int64(0)
    while done < count:
        columns = size if count - done > low else low
        interleave(source, s + done, t + done, panels, at + p * columns, columns)
        done += columns
        at += pitch


@part()
def _cut_pairs(x, dy, g, begin, count, first, columns, a_pitch, b_pitch, spare, a, b):
    """Cut ``count`` positions of both matrices into panels, of the right one some columns.

    On the right, rows of zeros follow up to a multiple of ``UNROLL``.
    """
    half, size = g.half, g.panel
    rows = g.c_in if g.image_left else g.c_out
    pairs = (count + 1) // 2
    for p in range(pairs):
        one = begin + 2 * p
        s, d = _pixel_at(g, one), one * g.c_out
        t, e = np.int64(-1), np.int64(-1)
        if 2 * p + 1 < count:
            t, e = _pixel_at(g, one + 1), d + g.c_out
        if g.image_left:
            _cut_pair(x, s, t, 0, rows, 2 * half, a_pitch, half, g.lanes, spare, a, p)
            _cut_pair(dy, d, e, first, columns, size, b_pitch, size, g.lanes, spare, b, p)
        else:
            _cut_pair(dy, d, e, 0, rows, 2 * half, a_pitch, half, g.lanes, spare, a, p)
            _cut_pair(x, s, t, first, columns, size, b_pitch, size, g.lanes, spare, b, p)
    for j in range((columns + size - 1) // size):
        at = j * b_pitch
        b[at + pairs * size : at + (pairs + UNROLL - 1) // UNROLL * UNROLL * size] = 0


@in_tasks(Outer)
def _multiply(x, dy, out, g, counters):
    """Compute partial sums of the gradient: ``out`` has a matrix for each share."""
    positions = g.n * g.h_out * g.w_out
    rows, columns = (g.c_in, g.c_out) if g.image_left else (g.c_out, g.c_in)
    padded = (rows + g.half - 1) // g.half * g.half
    panels, parts = (columns + g.panel - 1) // g.panel, g.tasks // g.shares
    pairs = g.length // 2
    a_pitch, b_pitch = pairs * 2 * g.half + g.lanes, pairs * g.panel
    a = working((rows + 2 * g.half - 1) // (2 * g.half) * a_pitch + g.lanes, np.uint32)
    b = working(((panels + parts - 1) // parts) * b_pitch + g.lanes, np.uint32)
    spare = working(2 * (max(rows, columns) + 2 * g.panel + g.lanes), np.uint16)
    a[:], b[:], spare[:] = 0, 0, 0
    count = (positions + g.length - 1) // g.length
    task = next_task(counters)
    while task < g.tasks:
        share, one = divmod(task, parts)
        j, end = one * panels // parts, (one + 1) * panels // parts
        first, last = j * g.panel, min(end * g.panel, columns)
        place = (share * panels + j) * padded * g.panel
        out[place : (share * panels + end) * padded * g.panel] = 0
        for block in range(share * count // g.shares, (share + 1) * count // g.shares):
            begin = block * g.length
            some = min(g.length, positions - begin)
            _cut_pairs(x, dy, g, begin, some, first, last - first, a_pitch, b_pitch, spare, a, b)
            depth = ((some + 1) // 2 + UNROLL - 1) // UNROLL * UNROLL
            meet(
                a, 0, a_pitch, 0, b, 0, b_pitch, g.panel, depth, rows, last - first, g.half,
                g.panel, out, place,
            )  # fmt: skip
        task = next_task(counters)
    finished(counters)


# --- launcher -------------------------------------------------------------------------------------


def cut_words(geo: Geometry, add: bool) -> Outer:
    """Cut as `floats.cut` does, but into blocks of twice as many positions and other tasks."""
    g, step = cut(geo, add), 2 * UNROLL
    rows, columns = (geo.c_in, geo.c_out) if g.image_left else (geo.c_out, geo.c_in)
    panels = -(-columns // g.panel)
    values = -(-rows // g.half) * g.half * panels * g.panel
    length = max(step, min(2 * LENGTH, 2 * BLOCK // (geo.c_in + geo.c_out)) // step * step)
    most = max(4, min(SHARES, PARTIAL // values))
    shares = max(1, min(1 << most.bit_length() - 1, -(-geo.positions // length)))
    parts = min(panels, -(-TASKS * threads_now() // shares))
    return g._replace(length=length, shares=shares, tasks=shares * parts)


def weight_gradient(x: Array, dy: Array, out: Array, geo: Geometry, add: bool) -> list[Step]:
    """Return the steps that compute ``dweight`` from bfloat16; see `floats.weight_gradient`."""
    g = cut_words(geo, add)
    rows, columns = (g.c_in, g.c_out) if g.image_left else (g.c_out, g.c_in)
    partial = empty((g.shares * -(-rows // g.half) * g.half * -(-columns // g.panel) * g.panel,))
    return [
        Step(_multiply, g, x=x, dy=dy, out=partial),
        Step(add_up, g._replace(tasks=g.c_out), partial=partial, out=out),
    ]
