"""The gradient of a dense convolution's weight: the product of two matrices that both have a row for each position.

``dweight[o, k] = sum over positions of dy[position, o] * columns[position, k]``, where a row of
``columns`` is what its position sees of the picture (im2col, as in `conv`). So here the depth, down
which the register tile walks, are the positions: a hundred thousand of them and more, while both
other sides are short. Neither side has to be transposed: the tile takes some neighbouring values of
a row of one matrix as its rows, and some of the other as its columns::

      positions      left: 14 values of each row      right: 2 vectors of each row
          |          [ a0 a1 ...... a13 ]             [ b0 ............ ][ b1 ............ ]
          |          [ ................ ]             [ ................................... ]
          v                 ...                                     ...

A block of positions is cut into such panels first, small enough for the second cache; then every
left panel meets every right one, and the sums go to memory once for the block. Which matrix is cut
into which panels, the one that leaves less over decides.

A long sum loses digits: added one after the other, n products of float32 may lose n roundings. Here
the sums of a block begin at zero in registers, are then added to those of the blocks before, each
task has its own, and these are added at the end: of ``n = length * blocks * tasks`` products,
``length + blocks + tasks`` roundings at most. The tasks depend on the number of threads, but not on
which thread does them: the result is the same every time.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import get_num_threads
from numba.core import types
from numba.extending import intrinsic, overload

from ..runtime.crew import Step, Work, compiled, take
from ..runtime.kernel import kernel
from ..runtime.memory import Array, empty
from ..runtime.simd import FLOATS, I64, Emit, aligned, copy, machine
from .gemm import UNROLL, VECTORS

LENGTH = 128  # most positions of a block: a right panel is 16 KiB, half of the first cache
BLOCK = 128 * 1024  # most values of a block's panels: 512 KiB, half of a second cache of 1 MiB
PARTIAL = 512 * 1024  # values of all partial sums together, about, where there are enough positions


def outer_tile(halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at) -> None:
    """One tile: ``c[row, column] += sum over k of a[k, row] * b[k, column]``.

    Parameters
    ----------
    halves : 1 or 2
        The lower tile or the higher; a constant where it is called.
    a : ``[depth, halves * half]``, from ``a_at``, ``a_step`` values from one ``k`` to the next
    b : ``[depth, VECTORS * lanes]``, from ``b_at``, ``b_step`` values from one ``k`` to the next
    depth : int
        A multiple of ``UNROLL``, not zero.
    c : ``[halves * half, VECTORS * lanes]``, from ``c_at``
    """
    rows, size = halves * machine().half, VECTORS * machine().lanes
    steps = np.arange(depth)[:, None]
    left, right = (
        a[a_at + steps * a_step + np.arange(rows)],
        b[b_at + steps * b_step + np.arange(size)],
    )
    with np.errstate(all="ignore"):  # rows and columns that nobody takes hold anything
        c[c_at : c_at + rows * size] += (left.T @ right).reshape(-1)


@intrinsic(prefer_literal=True)
def _outer_tile(typing, halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at):
    """Emit `outer_tile`: the tile of `gemm`, with neighbouring values on the left."""
    rows, i = halves.literal_value * machine().half, types.intp

    def codegen(context, builder, signature, args):
        _, a, a_at, a_step, b, b_at, b_step, depth, c, c_at = args
        e = Emit(context, builder)

        def steps(carried):
            left, right, *sums = carried
            for _ in range(UNROLL):
                # Rows that lie far apart are not foreseen by the processor. The one LENGTH
                # positions further, which in most layers is in the next block, comes meanwhile.
                e.prefetch(e.after(left, further), write=False, cache=2)
                row = [e.load(e.after(right, j * e.lanes)) for j in range(VECTORS)]
                for r in range(rows):
                    value = e.broadcast(builder.load(e.after(left, r)))
                    for j in range(VECTORS):
                        sums[r * VECTORS + j] = e.multiply_add(value, row[j], sums[r * VECTORS + j])
                left, right = e.after(left, a_step), e.after(right, b_step)
            return [left, right, *sums]

        further = builder.mul(a_step, I64(LENGTH))
        zeros = [e.zero()] * (rows * VECTORS)
        start = [e.address(a, a_at), e.address(b, b_at), *zeros]
        _, _, *sums = e.loop(builder.sdiv(depth, I64(UNROLL)), start, steps)
        target = e.address(c, c_at)
        for t, value in enumerate(sums):
            place = e.after(target, t * e.lanes)
            e.store(builder.fadd(e.load(place), value), place)
        return context.get_dummy_value()

    return types.void(halves, FLOATS, i, i, FLOATS, i, i, i, FLOATS, i), codegen


@overload(outer_tile, prefer_literal=True)
def _outer_overload(halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at):
    """Wherever compiled code calls."""
    return lambda halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at: _outer_tile(
        halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at
    )


# --- kernels --------------------------------------------------------------------------------------


@kernel()
def _see(x, g, c0, count, n, line, column, seen):
    """What one position sees of ``count`` channels from ``c0``, as ``[k_h, k_w, count]``, one value after the other."""
    left, k = column * g.s_w - g.p_w, 0
    for i in range(g.k_h):
        y = line * g.s_h - g.p_h + i
        low, high = max(0, -left), min(g.k_w, g.w - left)
        if y < 0 or y >= g.h or low >= high:
            low, high = g.k_w, g.k_w
        if low > 0:
            seen[k : k + low * count] = 0
            k += low * count
        source = ((n * g.h + y) * g.w + left + low) * g.c_in + c0
        for _ in range(low, high):
            copy(x, source, seen, k, count)
            k += count
            source += g.c_in
        if high < g.k_w:
            seen[k : k + (g.k_w - high) * count] = 0
            k += (g.k_w - high) * count


@kernel()
def _cut_left(source, s, count, half, pitch, lanes, a, p):
    """Give every left panel its part of row ``p``; what is copied too many is of the next row, or nobody's."""
    at, done = np.int64(0), np.int64(0)
    while done < count:
        rows = 2 * half if count - done > half else half
        copy(source, s + done, a, at + p * rows, (rows + lanes - 1) // lanes * lanes)
        done += rows
        at += pitch


@kernel()
def _cut_right(source, s, count, size, pitch, b, p):
    """Give every right panel its part of row ``p``."""
    for j in range((count + size - 1) // size):
        copy(source, s + j * size, b, j * pitch + p * size, min(size, count - j * size))


@kernel()
def _cut(x, dy, g, group, first, count, a_pitch, b_pitch, seen, a, b):
    """Cut ``count`` positions of both matrices into panels, with rows of zeros on the right up to a multiple of `UNROLL`."""
    c_group, width = g.c_in // g.groups, g.c_out // g.groups
    seen_count, size = g.k_h * g.k_w * c_group, g.size
    line, column = divmod(first, g.w_out)
    n, line = divmod(line, g.h_out)
    for p in range(count):
        _see(x, g, group * c_group, c_group, n, line, column, seen)
        d = (first + p) * g.c_out + group * width
        if g.parts:
            _cut_left(seen, 0, seen_count, g.half, a_pitch, g.lanes, a, p)
            _cut_right(dy, d, width, size, b_pitch, b, p)
        else:
            _cut_right(seen, 0, seen_count, size, b_pitch, b, p)
            if d + width + 2 * g.half + g.lanes > len(
                dy
            ):  # there is not enough behind it that could be copied too many
                copy(dy, d, seen, 0, width)
                _cut_left(seen, 0, width, g.half, a_pitch, g.lanes, a, p)
            else:
                _cut_left(dy, d, width, g.half, a_pitch, g.lanes, a, p)
        column += 1
        if column == g.w_out:
            line, column = line + 1, np.int64(0)
        if line == g.h_out:
            n, line = n + 1, np.int64(0)
    columns = width if g.parts else seen_count
    for p in range(count, (count + UNROLL - 1) // UNROLL * UNROLL):
        for j in range((columns + size - 1) // size):
            b[j * b_pitch + p * size : j * b_pitch + (p + 1) * size] = 0


@kernel()
def _meet(
    left,
    a_at,
    a_pitch,
    a_step,
    right,
    b_at,
    b_pitch,
    b_step,
    depth,
    rows,
    columns,
    half,
    size,
    out,
    c_at,
):
    """All left panels times all right ones. ``a_step`` is zero where panels are as wide as their tiles."""
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


def _outer(x, dy, bias, residual, out, g, counters):
    """A thread's share. ``g``: ``blocks`` tasks for each group, of blocks of ``length`` positions; panels of ``size``.

    ``g.parts`` is 1 where the picture is on the left. Where a position sees one pixel, its own,
    both matrices are there already, and tiles read them where they are, as long as there is enough
    behind a block for what a tile reads too many.
    """
    c_group, width, positions = g.c_in // g.groups, g.c_out // g.groups, g.n * g.h_out * g.w_out
    seen_count = g.k_h * g.k_w * c_group
    rows, columns = (seen_count, width) if g.parts else (width, seen_count)
    values = (rows + g.half - 1) // g.half * g.half * ((columns + g.size - 1) // g.size * g.size)
    a_pitch, b_pitch = g.length * 2 * g.half + g.lanes, g.length * g.size
    a = aligned((rows + 2 * g.half - 1) // (2 * g.half) * a_pitch + g.lanes)
    b = aligned((columns + g.size - 1) // g.size * b_pitch)
    seen = aligned(max(seen_count, width) + 2 * g.half + g.lanes)
    a[:], b[:], seen[:] = 0, 0, 0
    pointwise = g.k_h * g.k_w * g.s_h * g.s_w == 1 and g.p_h + g.p_w == 0
    count = (positions + g.length - 1) // g.length
    task = take(counters, 0)
    while task < g.tasks:
        group, part = divmod(task, g.blocks)
        out[task * values : (task + 1) * values] = 0
        for block in range(part * count // g.blocks, (part + 1) * count // g.blocks):
            first = block * g.length
            some = min(g.length, positions - first)
            behind = (positions - first - some) * min(g.c_in, g.c_out)
            if pointwise and behind >= max(2 * g.half, g.size):
                x_at, d_at = first * g.c_in + group * c_group, first * g.c_out + group * width
                if g.parts:
                    _meet(
                        x, x_at, 2 * g.half, g.c_in, dy, d_at, g.size, g.c_out, some, rows, columns, g.half, g.size,
                        out, task * values,
                    )  # fmt: skip
                else:
                    _meet(
                        dy, d_at, 2 * g.half, g.c_out, x, x_at, g.size, g.c_in, some, rows, columns, g.half, g.size,
                        out, task * values,
                    )  # fmt: skip
            else:
                _cut(x, dy, g, group, first, some, a_pitch, b_pitch, seen, a, b)
                depth = (some + UNROLL - 1) // UNROLL * UNROLL
                _meet(
                    a,
                    0,
                    a_pitch,
                    0,
                    b,
                    0,
                    b_pitch,
                    g.size,
                    depth,
                    rows,
                    columns,
                    g.half,
                    g.size,
                    out,
                    task * values,
                )
        task = take(counters, 0)
    take(counters, 1)


def _gather(partial, weight, bias, residual, out, g, counters):
    """Add the partial sums of all tasks of a group, and put them where they belong. A task is a row of the weight.

    ``g.tasks`` is ``c_out``; ``g.add`` says whether they are added to what is there.
    """
    c_group, width, taps = g.c_in // g.groups, g.c_out // g.groups, g.k_h * g.k_w
    fan_in = taps * c_group
    rows, columns = (fan_in, width) if g.parts else (width, fan_in)
    padded = (rows + g.half - 1) // g.half * g.half
    length = padded * ((columns + g.size - 1) // g.size) * g.size
    task = take(counters, 0)
    while task < g.tasks:
        group, o = divmod(task, width)
        for k in range(fan_in):
            row, column = (k, o) if g.parts else (o, k)
            at = (
                group * g.blocks * length
                + (column // g.size * padded + row) * g.size
                + column % g.size
            )
            total = np.float32(0)
            for _ in range(g.blocks):
                total += partial[at]
                at += length
            tap, c = divmod(k, c_group)
            place = task * fan_in + c * taps + tap
            out[place] = out[place] + total if g.add else total
        task = take(counters, 0)
    take(counters, 1)


# --- launcher -------------------------------------------------------------------------------------


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """Compiled when they are first needed."""
    return compiled(_outer), compiled(_gather)


def cut(g: Work) -> Work:
    """Panels that leave little over, blocks that fit the caches, and enough tasks for all threads."""
    m, threads = machine(), get_num_threads()
    size, positions = VECTORS * m.lanes, g.n * g.h_out * g.w_out
    seen, width = g.k_h * g.k_w * g.c_in // g.groups, g.c_out // g.groups

    def filled(rows: int, columns: int) -> int:
        return -(-rows // m.half) * m.half * -(-columns // size) * size

    picture_left = filled(seen, width) < filled(width, seen)
    values = min(filled(seen, width), filled(width, seen))
    length = max(UNROLL, min(LENGTH, BLOCK // (seen + width)) // UNROLL * UNROLL)
    some = min(8 * threads, max(2 * threads, PARTIAL // (values * g.groups)))
    blocks = max(1, min(-(-some // g.groups), -(-positions // length)))
    return g._replace(
        size=size,
        length=length,
        blocks=blocks,
        parts=int(picture_left),
        half=m.half,
        lanes=m.lanes,
        tasks=g.groups * blocks,
    )


def weight_gradient(x: Array, dy: Array, out: Array, g: Work) -> list[Step]:
    """The steps that compute ``dweight``.

    Parameters
    ----------
    x, dy, out : flat float32
    g : Work
        As `cut` returned it; with ``add``, the gradient is added to ``out``.
    """
    seen, width = g.k_h * g.k_w * g.c_in // g.groups, g.c_out // g.groups
    rows, columns = (seen, width) if g.parts else (width, seen)
    partial = empty((g.tasks * -(-rows // g.half) * g.half * -(-columns // g.size) * g.size,))
    outer, gather = _kernels()
    return [
        Step(outer, x, dy, dy, dy, partial, g),
        Step(gather, partial, dy, dy, dy, out, g._replace(tasks=g.c_out)),
    ]
