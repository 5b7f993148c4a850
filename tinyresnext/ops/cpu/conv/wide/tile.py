"""The register tile of `gemm` for values that are not side by side: each row says where it begins.

What a position sees (im2col) are the same few pixels that its neighbour sees, moved by one. So
nothing has to be copied for each position: value ``k`` of row ``r`` is found at the sum of two
numbers, of which one depends only on the row, and the other only on ``k``::

      an image, 8 channels a pixel, 3 x 3 taps, group 1 of 2 (channels 4 to 7)

      rows[r]     where the first pixel that position r sees begins   0, 8, 16, ...
      steps[k]    how far tap i, j and channel c are from there       (i * columns + j) * 8 + c

      value(r, k) = strip[at + rows[r] + steps[k]]                    at = 4, the group's first

A row's address stays in a register, so a value costs one load, as in `gemm`; ``steps[k]`` is loaded
once for all rows. This is the indirect convolution of Dukhan (2019, arXiv:1907.02129),
whose table has an address for each row and each tap.

**Rows and vectors.** A group of 24 channels is three vectors of AVX2, and one of 40 is five. A tile
of two vectors alone would leave a quarter or a sixth of its lanes idle. So there are tiles of one,
two and three vectors, and a panel has as many vectors as its tile. How many rows each has follows
from counts (`rows_of`): 10 x 1, 5 x 2 and 4 x 3 in AVX2, 10 x 2 and 7 x 3 in AVX-512.
"""

from __future__ import annotations

import functools

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.kernel import as_part
from ...runtime.simd import FLOATS, I64, Emit, machine
from ...runtime.simd.words import ended, operands

ADDRESSES = 11  # most rows: their addresses and four more numbers are in x86's 15 free registers
LAST = 49  # positions of the last stage of an image of 224 pixels
INTEGERS = types.Array(types.int64, 1, "C")


@functools.cache
def rows_of(vectors: int) -> int:
    """Return the rows of a tile.

    Sums, one row of the panel and one value are in registers. Of the heights for which they fit,
    the one is taken that needs the fewest instructions for 7 x 7 positions, the last tile included:
    6 x 2 would compute 54 rows for these 49, and 5 x 2 computes 50.
    """
    most = min(ADDRESSES, (machine().registers - 1 - vectors) // vectors)
    return min(range(1, most + 1), key=lambda rows: -(-LAST // rows) * instructions(rows, vectors))


def instructions(rows: int, vectors: int) -> int:
    """Return the multiply-adds and loads of one step: values, a row of the panel, a number."""
    return rows * vectors + rows + vectors + 1


def wide_tile(
    vectors, strip, at, rows, row_at, steps, depth, b, b_at, bias, c, c_at, pitch, residual, add,
    floor, soon, soon_at, soon_step,
):  # fmt: skip
    """Compute one tile of a product, and apply the epilogue.

    ``c[row, column] = max(floor, bias[column] + sum over k of strip[at + rows[row_at + row] +
    steps[k]] * b[k, column] + residual)``.

    Parameters
    ----------
    vectors : int
        Of the panel; a constant where it is called, since each is its own code.
    strip : flat, from ``at``
    rows, steps : int64
        Of the rows from ``row_at``; of each of the ``depth`` values.
    b : ``[depth, vectors * lanes]``, from ``b_at``
    bias : the panel's
    c, residual : flat, from ``c_at``, rows ``pitch`` apart
        These may be bfloat16, and ``strip`` and ``b`` words of two values.
    add : whether to add the residual
    floor : 0 for a ReLU, minus infinity for none
    soon : flat, from ``soon_at``
        Values that will be needed soon, and that are brought into the second cache meanwhile:
        ``soon_step`` of them in each step.
    """
    size = vectors * machine().lanes
    panel = b[b_at : b_at + depth * size].reshape(depth, size)
    with np.errstate(all="ignore"):  # rows and columns that nobody reads hold arbitrary values
        for r in range(rows_of(vectors)):
            row = strip[at + rows[row_at + r] + steps[:depth]]
            left, right = operands(row[None], panel)
            ended(bias[:size] + (left @ right)[0], residual, c, c_at + r * pitch, add, floor)


@intrinsic(prefer_literal=True)
def _wide_tile(
    typing, vectors, strip, at, rows, row_at, steps, depth, b, b_at, bias, c, c_at, pitch, residual,
    add, floor, soon, soon_at, soon_step,
):  # fmt: skip
    """Emit `wide_tile`: one loop down the depth, in it the tile."""
    i, of, kind = types.intp, b, c
    signature = types.void(
        vectors, of, i, INTEGERS, i, INTEGERS, i, of, i, FLOATS, kind, i, i, kind, i,
        types.float32, of, i, i,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        strip, at, rows, row_at, steps, depth, b, b_at, bias, c, c_at, *rest = args[1:]
        pitch, residual, add, floor, soon, soon_at, soon_step = rest
        e, count = Emit(context, builder, kind, of), vectors.literal_value
        begin, offsets = e.address(strip, at, of), e.address(rows, row_at, INTEGERS)
        lines = [e.after(begin, builder.load(e.after(offsets, r))) for r in range(rows_of(count))]

        def step(carried):
            place, right, coming, *sums = carried
            if count > 1:  # a tile of one vector has too many loads already
                e.prefetch(coming, write=False, cache=2)
            further = builder.load(place)
            row = [e.load(e.after(right, j * e.lanes)) for j in range(count)]
            for r, line in enumerate(lines):
                value = e.broadcast(builder.load(e.after(line, further)))
                for j in range(count):
                    sums[r * count + j] = e.product(value, row[j], sums[r * count + j])
            coming = e.after(coming, soon_step)
            return [e.after(place, 1), e.after(right, count * e.lanes), coming, *sums]

        first = [e.load(e.after(e.address(bias, I64(0)), j * e.lanes)) for j in range(count)]
        start = [e.address(steps, I64(0), INTEGERS), e.address(b, b_at, of)]
        start += [e.address(soon, soon_at, of), *first * len(lines)]
        _, _, _, *sums = e.loop(depth, start, step)
        result, other = e.address(c, c_at, kind), e.address(residual, c_at, kind)
        e.finish(sums, count, result, other, [pitch, add, floor])
        return context.get_dummy_value()

    return signature, codegen


@overload(wide_tile, prefer_literal=True, jit_options=as_part(inline=True))
def _wide_overload(
    vectors, strip, at, rows, row_at, steps, depth, b, b_at, bias, c, c_at, pitch, residual, add,
    floor, soon, soon_at, soon_step,
):  # fmt: skip
    """Replace `wide_tile` in compiled code."""

    def compiled(
        vectors, strip, at, rows, row_at, steps, depth, b, b_at, bias, c, c_at, pitch, residual,
        add, floor, soon, soon_at, soon_step,
    ):  # fmt: skip
        _wide_tile(
            vectors, strip, at, rows, row_at, steps, depth, b, b_at, bias, c, c_at, pitch, residual,
            add, floor, soon, soon_at, soon_step,
        )  # fmt: skip

    return compiled
