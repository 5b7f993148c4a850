"""The register tile of `wide.tile` for integers: a word where that has a number.

Rows and columns, addresses and steps are those of `wide.wide_tile`. Each lane of a sum is an
integer of 32 bits, and a step down the depth multiplies a word of each row by words of the panel
(`words`). A word has two or four values, so there are half or a quarter as many steps::

                            right: one row of the panel, a word in each lane
                            [ w0 | w1 | .. ]
      left: one word of    -----------------
      each row, in all      [ sum 0,0      ]
      lanes     [ a0 ]      [ sum 1,0      ]
                [ a1 ]            ...

Where the product is an instruction of its own (``pmaddwd``), it needs a register between
multiplication and addition, so a tile has fewer rows than that of float32 (`rows_of`).
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.kernel import as_part
from ...runtime.simd import FLOATS, I32, I64, Emit, machine
from ..wide.tile import ADDRESSES, INTEGERS, LAST
from .epilogue import SCALARS, Epilogue, finished_rows, starts
from .words import dot, plain_dot, words


@functools.cache
def rows_of(vectors: int) -> int:
    """Return the rows of a tile: as `wide.tile.rows_of`, with one register more in use."""
    most = min(ADDRESSES, (machine().registers - 2 - vectors) // vectors)
    return min(range(1, most + 1), key=lambda rows: -(-LAST // rows) * instructions(rows, vectors))


def instructions(rows: int, vectors: int) -> int:
    """Return the products, additions and loads of one step."""
    each = 1 if words().instruction == "vpdpbusd" else 2
    return each * rows * vectors + rows + vectors + 1


def integer_tile(
    vectors, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, c_at,
    pitch, residual, add, other, wide, soon_at, soon_step,
):  # fmt: skip
    """Compute one tile of a product of integers, and apply the epilogue.

    The sums are ``start[column] + sum over k of strip[at + rows[row_at + row] + steps[k]] *
    b[k, column]``, where a product is that of two words.

    Parameters
    ----------
    vectors : int
        Of the panel; a constant where it is called, since each is its own code.
    strip : words, from ``at``
    rows, steps : int64
        Of the rows from ``row_at``; of each of the ``depth`` words.
    b : words ``[depth, vectors * lanes]``, from ``b_at``
    terms, t_at, apart
        As for `epilogue.finished_rows`.
    c : flat, from value ``c_at``, rows ``pitch`` values apart
    residual : bytes, as ``c``
    add : whether to add the residual
    other : 128 if the residual is signed, else 0
    wide : whether results are float32, and not bytes
    soon_at, soon_step : int
        Values of ``b`` that will be needed soon, and that are brought into the second cache
        meanwhile: ``soon_step`` of them in each step.
    """
    size, first = vectors * machine().lanes, SCALARS + t_at
    panel = b.view(np.int32)[b_at : b_at + depth * size].reshape(depth, size)
    lines = strip.view(np.int32)
    result = c.view(np.float32) if wide else c.view(np.uint8)
    for r in range(rows_of(vectors)):
        left = lines[at + rows[row_at + r] + steps[:depth]][:, None]
        begin = terms.view(np.int32)[first : first + size].astype(np.int64)
        pairs = np.broadcast_to(left, panel.shape)
        total = plain_dot(np.zeros(panel.shape, np.int64), pairs, panel, words())
        sums = (begin + total.astype(np.int64).sum(0)).astype(np.int32)
        place, more = slice(c_at + r * pitch, c_at + r * pitch + size), None
        if add:
            read = residual.view(np.uint8)[place].astype(np.int32)
            more = ((read ^ other) - other).astype(np.float32)
        result[place] = finished_rows(sums[None], terms, t_at, apart, more, wide)[0]


@intrinsic(prefer_literal=True)
def _integer_tile(
    typing, vectors, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c,
    c_at, pitch, residual, add, other, wide, soon_at, soon_step,
):  # fmt: skip
    """Emit `integer_tile`: one loop down the depth, in it the tile."""
    i = types.intp
    signature = types.void(
        vectors, FLOATS, i, INTEGERS, i, INTEGERS, i, FLOATS, i, FLOATS, i, i, FLOATS, i, i,
        FLOATS, i, i, i, i, i,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, *rest = args[1:]
        c_at, pitch, residual, *flags, soon_at, soon_step = rest
        e, count, how = Emit(context, builder), vectors.literal_value, words()
        whole = ir.VectorType(I32, e.lanes)
        begin, offsets = e.address(strip, at), e.address(rows, row_at, INTEGERS)
        lines = [e.after(begin, builder.load(e.after(offsets, r))) for r in range(rows_of(count))]
        same = ir.Constant(whole, [0] * e.lanes)

        def in_lanes(pointer):
            word = builder.load(builder.bitcast(pointer, I32.as_pointer()))
            first = builder.insert_element(ir.Constant(whole, ir.Undefined), word, I32(0))
            return builder.shuffle_vector(first, first, same)

        def step(carried):
            place, right, coming, *sums = carried
            if count > 1:
                e.prefetch(coming, write=False, cache=2)
            further = builder.load(place)
            row = [
                builder.bitcast(e.load(e.after(right, j * e.lanes)), whole) for j in range(count)
            ]
            for r, line in enumerate(lines):
                word = in_lanes(e.after(line, further))
                for j in range(count):
                    sums[r * count + j] = dot(e, sums[r * count + j], word, row[j], how)
            coming = e.after(coming, soon_step)
            return [e.after(place, 1), e.after(right, count * e.lanes), coming, *sums]

        begins = starts(e, terms, t_at, count)
        start = [e.address(steps, I64(0), INTEGERS), e.address(b, b_at), e.address(b, soon_at)]
        _, _, _, *sums = e.loop(depth, [*start, *begins * len(lines)], step)
        end = Epilogue(e, terms, t_at, apart, count)
        places = [builder.add(c_at, builder.mul(pitch, I64(r))) for r in range(len(lines))]
        end.finish(sums, e.address(c, I64(0)), e.address(residual, I64(0)), places, flags)
        return context.get_dummy_value()

    return signature, codegen


@overload(integer_tile, prefer_literal=True, jit_options=as_part(inline=True))
def _integer_overload(
    vectors, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, c_at,
    pitch, residual, add, other, wide, soon_at, soon_step,
):  # fmt: skip
    """Replace `integer_tile` in compiled code."""

    def compiled(
        vectors, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, c_at,
        pitch, residual, add, other, wide, soon_at, soon_step,
    ):  # fmt: skip
        _integer_tile(
            vectors, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c,
            c_at, pitch, residual, add, other, wide, soon_at, soon_step,
        )  # fmt: skip

    return compiled
