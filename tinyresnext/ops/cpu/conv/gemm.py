"""The matrix product of a 1x1 convolution: gathered rows times panels of the weight.

**A register tile.** A matrix product loads, multiplies and adds, and loading is the slow part. A
value that is loaded should be used many times, and the sums should not go through memory at all. So
a tile of ``rows x vectors`` sums stays in registers while the innermost loop walks down the depth::

                            right: one row of the panel          registers
                            [ b0 ............ ][ b1 ............ ]     2
      left: one value of    ----------------------------------
      each row, in all      [ sum 0,0         ][ sum 0,1         ]
      lanes     [ a0 ]      [ sum 1,0         ][ sum 1,1         ]    14 x 2
                [ a1 ]             ...                ...
                [ .. ]      [ sum 13,0        ][ sum 13,1        ]
                                                                       1 for the a's, in turn

One step down the depth is 2 loads of vectors, 14 of single values, and 28 multiply-adds. It takes
``rows x vectors + vectors + 1`` registers: 31 of the 32 that AVX-512 and NEON have; AVX2 and SSE
have 16, so the tile is 6 x 2 there, and takes 15. One register more, and a sum goes to memory and
back in every step.

Why these numbers of rows: images of 224 pixels end in 7 x 7 positions, and every stage before has
four times as many: 49 = 3 * 14 + 7 and 196 = 14 * 14, so tiles of 14 and 7 rows leave nothing over.
Where something is left over, the tile computes some rows or columns too many, and its result goes
to a scratch tile, from which the valid part is copied.

**Panels.** The right matrix, ``[depth, c_out]``, is cut into panels of as many columns as a tile
has, each stored as ``[depth, columns]``: the loop reads it from beginning to end. Weights are laid
out like this once, when they are packed.

**Shelves.** The left matrix has one row for each position of the result. The rows of one tile lie
in *shelves*: for ``DEPTH`` values of depth, all rows of the tile, one below the other, ``PITCH``
values apart; then the next ``DEPTH``::

      row 0   [ depth 0 ...... 255 | 16 spare ]
      row 1   [ depth 0 ...... 255 | 16 spare ]
      ...
      row 13  [ depth 0 ...... 255 | 16 spare ]
      row 0   [ depth 256 .... 511 | 16 spare ]        next shelf
      ...

The pitch is a constant, so that all rows are reached from one address. The spare cache line
matters: rows a multiple of 4 KiB apart compete for the same few places of the first cache, and with
1024 channels that is exactly where rows of the image lie. `dense` copies the pixel of each position
into this layout. Groups and larger kernels have tiles of their own (`wide`, `narrow`).
"""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

from ..runtime.kernel import as_part, part
from ..runtime.memory import Array, empty
from ..runtime.simd import FLOATS, I64, Emit, copy, machine
from ..runtime.simd.words import ended, operands

VECTORS = 2  # vectors in a row of a tile
DEPTH_BITS = 8
DEPTH = 1 << DEPTH_BITS  # 14 rows of a shelf are 15 KiB, half of the first cache
PITCH = DEPTH + 16
LINE = 16  # values of a cache line
# Steps down the depth that are written out in the loop; every depth is filled up to a multiple.
UNROLL = 4


def tile(
    halves, a, a_at, b, b_at, depth, c, c_at, pitch, bias, residual, add, floor, soon, soon_at,
    soon_step,
):  # fmt: skip
    """Compute one tile of a product, and apply the epilogue.

    ``c[row, column] = max(floor, bias[column] + sum over k of a[row, k] * b[k, column] +
    residual)``.

    Parameters
    ----------
    halves : 1 or 2
        The lower tile or the higher; a constant where it is called, since each is its own code.
    a : shelves, from ``a_at``; ``halves * half`` rows
    b : a panel, from ``b_at``
    depth : int
        A multiple of ``UNROLL``, not zero.
    c, residual : flat, from ``c_at``, rows ``pitch`` apart
        These may be bfloat16, and ``a`` and ``b`` words of two of them (`simd.bfloat16`).
    bias : one panel's
    add : whether to add the residual
    floor : 0 for a ReLU, minus infinity for none
    soon : flat, from ``soon_at``; none where that is negative
        Values that will be needed soon, and that are brought into the second cache meanwhile:
        ``soon_step`` of them, at most as many as the tile has on the left, in ``UNROLL`` steps.
    """
    m = machine()
    rows, size = halves * m.half, VECTORS * m.lanes
    left = np.concatenate(
        [
            a[s : s + rows * PITCH].reshape(rows, PITCH)[:, :DEPTH]
            for s in _shelves(a_at, rows, depth)
        ],
        1,
    )
    with np.errstate(all="ignore"):  # rows and columns that nobody reads hold arbitrary values
        panel = b[b_at : b_at + depth * size].reshape(depth, size)
        left, right = operands(left[:, :depth], panel)
        sums = bias[:size] + left @ right
        for r in range(rows):
            ended(sums[r], residual, c, c_at + r * pitch, add, floor)


def _shelves(a_at: int, rows: int, depth: int) -> range:
    """Return where each shelf begins."""
    return range(a_at, a_at + -(-depth // DEPTH) * rows * PITCH, rows * PITCH)


@intrinsic(prefer_literal=True)
def _tile(
    typing, halves, a, a_at, b, b_at, depth, c, c_at, pitch, bias, residual, add, floor, soon,
    soon_at, soon_step,
):  # fmt: skip
    """Emit `tile`: a loop over the shelves, in it a loop down the depth, in that the tile."""
    rows, i, of, kind = halves.literal_value * machine().half, types.intp, b, c
    signature = types.void(
        halves, of, i, of, i, i, kind, i, i, FLOATS, kind, i, types.float32, soon, i, i
    )
    ahead = soon

    def codegen(context, builder, signature, args):
        _, a, a_at, b, b_at, depth, c, c_at, pitch, bias, residual, add, floor, *rest = args
        soon, soon_at, soon_step = rest
        e = Emit(context, builder, kind, of)
        result, other = e.address(c, c_at, kind), e.address(residual, c_at, kind)
        last, lines = builder.mul(pitch, I64(rows - 1)), -(-rows * UNROLL // LINE)
        none = builder.icmp_signed("<", soon_at, I64(0))
        begin, next_one = e.address(a, a_at, of), e.address(soon, soon_at, ahead)
        coming = builder.select(none, begin, builder.bitcast(next_one, begin.type))
        further = builder.select(none, I64(0), soon_step)

        def steps(carried):
            place, coming, left, right, *sums = carried
            for q in range(lines):
                e.prefetch(e.after(coming, q * LINE), write=False, cache=2)
            for j in range(VECTORS):
                # The place of one more row of sums comes into the cache while they are computed.
                e.prefetch(e.after(other, builder.add(place, I64(j * e.lanes))), write=False)
                e.prefetch(e.after(result, builder.add(place, I64(j * e.lanes))), write=True)
            more = builder.icmp_signed("<", place, last)
            place = builder.add(place, builder.select(more, pitch, I64(0)))
            for q in range(UNROLL * VECTORS * e.lanes // 16):
                e.prefetch(e.after(right, q * 16 + 1536), write=False)
            for k in range(UNROLL):
                row = [e.load(e.after(right, (k * VECTORS + j) * e.lanes)) for j in range(VECTORS)]
                for r in range(rows):
                    value = e.broadcast(builder.load(e.after(left, r * PITCH + k)))
                    for j in range(VECTORS):
                        sums[r * VECTORS + j] = e.product(value, row[j], sums[r * VECTORS + j])
            coming = e.after(coming, further)
            return [
                place,
                coming,
                e.after(left, UNROLL),
                e.after(right, UNROLL * VECTORS * e.lanes),
                *sums,
            ]

        def shelf(carried):
            remaining, place, coming, left, *rest = carried
            count = builder.select(
                builder.icmp_signed("<", remaining, I64(DEPTH)), remaining, I64(DEPTH)
            )
            place, coming, _, *rest = e.loop(
                builder.sdiv(count, I64(UNROLL)), [place, coming, left, *rest], steps
            )
            return [
                builder.sub(remaining, I64(DEPTH)),
                place,
                coming,
                e.after(left, rows * PITCH),
                *rest,
            ]

        first = [e.load(e.after(e.address(bias, I64(0)), j * e.lanes)) for j in range(VECTORS)]
        shelves = builder.sdiv(builder.add(depth, I64(DEPTH - 1)), I64(DEPTH))
        start = [depth, I64(0), coming, begin, e.address(b, b_at, of), *first * rows]
        _, _, _, _, _, *sums = e.loop(shelves, start, shelf)
        e.finish(sums, VECTORS, result, other, [pitch, add, floor])
        return context.get_dummy_value()

    return signature, codegen


@overload(tile, prefer_literal=True, jit_options=as_part(inline=True))
def _tile_overload(
    halves, a, a_at, b, b_at, depth, c, c_at, pitch, bias, residual, add, floor, soon, soon_at,
    soon_step,
):  # fmt: skip
    """Replace `tile` in compiled code."""

    def compiled(
        halves, a, a_at, b, b_at, depth, c, c_at, pitch, bias, residual, add, floor, soon, soon_at,
        soon_step,
    ):  # fmt: skip
        _tile(
            halves, a, a_at, b, b_at, depth, c, c_at, pitch, bias, residual, add, floor, soon,
            soon_at, soon_step,
        )  # fmt: skip

    return compiled


@part(inline=True)
def spread(values, positions, rows):
    """Return how many of some values each of a panel's tiles fetches, so that all are fetched.

    Fetching is slow: the memory gives a quarter of what a first tile would ask for at once.
    """
    tiles = (positions + rows - 1) // rows
    return (values + tiles - 1) // tiles


@part()
def multiply(
    a, first, last, half, panels, b_at, depth, size, bias, f0, count, c_out, residual, add, floor,
    out, scratch, shift, soon, soon_at, soon_step,
):  # fmt: skip
    """Multiply the rows ``first`` to ``last`` of the left matrix, in shelves in ``a``, by a panel.

    The panel is that of the filters ``f0`` to ``f0 + count``. A tile is written to ``out`` only if
    all of its rows are below ``last`` and all of its columns are filters; otherwise to ``scratch``,
    which holds a tile. ``shift`` holds a panel's bias. ``soon_at`` moves forward with every tile
    (see `tile`).
    """
    a_at, shelves = 0, (depth + DEPTH - 1) // DEPTH
    copy(bias, f0, shift, 0, count)
    while first < last:
        rows = 2 * half if last - first > half else half
        valid = min(rows, last - first)
        at = first * c_out + f0
        whole = valid == rows and count == size
        if whole:
            target, place, pitch, other = out, at, c_out, residual
        else:
            target, place, pitch, other = scratch, 0, size, scratch
            if add:
                for r in range(valid):
                    copy(residual, at + r * c_out, scratch, r * size, count)
        if rows == half:
            tile(
                1, a, a_at, panels, b_at, depth, target, place, pitch, shift, other, add, floor,
                soon, soon_at, soon_step,
            )  # fmt: skip
        else:
            tile(
                2, a, a_at, panels, b_at, depth, target, place, pitch, shift, other, add, floor,
                soon, soon_at, soon_step,
            )  # fmt: skip
        soon_at += 0 if soon_at < 0 else depth // UNROLL * soon_step
        if not whole:
            for r in range(valid):
                copy(scratch, r * size, out, at + r * c_out, count)
        a_at += rows * shelves * PITCH
        first += rows


def panels(matrix: Array) -> Array:
    """Cut each matrix ``[..., depth, columns]`` into panels, filled up with zeros; all flat."""
    size = VECTORS * machine().lanes
    *lead, depth, columns = matrix.shape
    count, deep, whole = -(-columns // size), -(-depth // UNROLL) * UNROLL, columns // size
    made = empty((*lead, count, deep, size))
    made[..., :whole, :depth, :] = (
        matrix[..., : whole * size].reshape(*lead, depth, whole, size).swapaxes(-2, -3)
    )
    made[..., :whole, depth:, :] = 0
    made[..., whole:, :, :] = 0
    if whole < count:
        made[..., whole, :depth, : columns - whole * size] = matrix[..., whole * size :]
    return made.reshape(-1)
