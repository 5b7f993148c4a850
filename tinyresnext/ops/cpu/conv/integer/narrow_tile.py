"""Narrow groups: each lane multiplies a word of its own group.

In the tile of `tile` a word of a position is in all lanes, and each lane has a filter that reads
it. Groups of four channels have four filters, so all other lanes would be idle. Here lanes are
words as they lie in memory, of as many groups as a vector has room for; a sum has one filter of
each of these groups::

      words of a pixel, groups of 4      [ a   | b   | c   | d   | .. ]
      weights of filter f, one tap       [ a f | b f | c f | d f | .. ]
      sums of filter f                   [ a f | b f | c f | d f | .. ]

A vector of words is loaded once for all filters, and no word is copied to all lanes.

**Deeper groups.** A group of eight channels is two words, in two lanes, and what a filter makes of
the group is the sum of both. They are added once, behind the loop (`_across`), so that each lane
has filters of its own, here those from 0 and those from 4 on::

      sums of filter 0                   [ a 0 | a 0 | b 0 | b 0 | .. ]
      sums of filter 4                   [ a 4 | a 4 | b 4 | b 4 | .. ]
      added                              [ a 0 | a 4 | b 0 | b 4 | .. ]

**Back to bytes.** A lane then has as many filters as it has bytes in the result, one in each of
some vectors. So their bytes are put together by shifts, and stored as one vector.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.kernel import as_part
from ...runtime.simd import FLOATS, I32, I64, Emit, machine
from ..wide.tile import ADDRESSES, INTEGERS
from .epilogue import SCALARS, Epilogue, finished_rows, starts
from .words import dot, plain_dot, words


class Narrow(NamedTuple):
    """How a group lies in lanes.

    Attributes
    ----------
    width : int
        Filters of a group.
    deep : int
        Words of a group's channels, each in a lane.
    """

    width: int
    deep: int

    @property
    def bytes(self) -> int:
        """Return the filters of a lane."""
        return self.width // self.deep

    @property
    def groups(self) -> int:
        """Return the groups of a vector."""
        return machine().lanes // self.deep

    @property
    def filters(self) -> int:
        """Return the filters of a vector's groups."""
        return machine().lanes * self.bytes

    @property
    def rows(self) -> int:
        """Return the rows of a tile.

        Their sums, a vector of words for each, one of weights and a product are in registers.
        """
        return min(ADDRESSES, (machine().registers - 2) // (self.width + 1))


@functools.cache
def narrow_of(shape: tuple[int, ...], groups: int, ways: int) -> Narrow | None:
    """Return how groups lie in lanes, or None for a weight whose groups do not.

    Parameters
    ----------
    shape : (c_out, c_in / groups, k_h, k_w)
    groups : int
    ways : int
        Values of a word.
    """
    width, deep = shape[0] // groups, -(-shape[1] // ways)
    fits = groups > 1 and deep & (deep - 1) == 0 and 2 * deep <= machine().lanes
    if not fits or width % deep or width // deep not in (1, 2, 4):
        return None
    found = Narrow(width, deep)
    return found if found.rows >= 2 else None


# --- tile -----------------------------------------------------------------------------------------


def narrow_tile(
    width, deep, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, c_at, pitch,
    residual, add, other, wide,
):  # fmt: skip
    """Compute the filters of a vector's groups for some rows, and apply the epilogue.

    Parameters
    ----------
    width, deep : int
        Of a `Narrow`; constants where it is called.
    strip : words, from ``at``
    rows, steps : int64
        Where a row from ``row_at`` begins; how far each of the ``depth`` taps is from there.
    b : words ``[depth, width, lanes]``, from ``b_at``
    terms, t_at, apart
        As for `epilogue.finished_rows`.
    c : flat, from value ``c_at``, rows ``pitch`` values apart
    residual : bytes, as ``c``
    add, other, wide
        As for `tile.integer_tile`; but float32 are stored vector by vector, and so not in the
        order of the filters.
    """
    narrow, lanes = Narrow(width, deep), machine().lanes
    each, first = narrow.bytes, SCALARS + t_at
    panel = b.view(np.int32)[b_at : b_at + depth * width * lanes].reshape(depth, width, lanes)
    lines = strip.view(np.int32)
    begin = terms.view(np.int32)[first : first + each * lanes].astype(np.int64)
    for r in range(narrow.rows):
        left = lines[(at + rows[row_at + r] + steps[:depth])[:, None] + np.arange(lanes)]
        pairs = np.broadcast_to(left[:, None], panel.shape)
        total = plain_dot(np.zeros(panel.shape, np.int64), pairs, panel, words())
        of_group = total.astype(np.int64).sum(0).reshape(width, -1, deep).sum(2)
        sums = of_group.reshape(deep, each, -1).transpose(1, 2, 0).reshape(-1)
        place, more = slice(c_at + r * pitch, c_at + r * pitch + each * lanes), None
        if add:
            read = residual.view(np.uint8)[place].astype(np.int32).reshape(lanes, each).T
            more = ((read.reshape(-1) ^ other) - other).astype(np.float32)
        made = finished_rows((begin + sums).astype(np.int32)[None], terms, t_at, apart, more, wide)
        if wide:
            c.view(np.float32)[place] = made[0]
        else:
            c.view(np.uint8)[place] = made.reshape(each, lanes).T.reshape(-1)


@intrinsic(prefer_literal=True)
def _narrow_tile(
    typing, width, deep, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c,
    c_at, pitch, residual, add, other, wide,
):  # fmt: skip
    """Emit `narrow_tile`: one loop over the taps, in it the tile."""
    i = types.intp
    signature = types.void(
        width, deep, FLOATS, i, INTEGERS, i, INTEGERS, i, FLOATS, i, FLOATS, i, i, FLOATS, i, i,
        FLOATS, i, i, i,
    )  # fmt: skip
    narrow = Narrow(width.literal_value, deep.literal_value)

    def codegen(context, builder, signature, args):
        strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, *rest = args[2:]
        c_at, pitch, residual, *flags = rest
        e, how = Emit(context, builder), words()
        whole = ir.VectorType(I32, e.lanes)
        begin, offsets = e.address(strip, at), e.address(rows, row_at, INTEGERS)
        lines = [e.after(begin, builder.load(e.after(offsets, r))) for r in range(narrow.rows)]

        def step(carried):
            place, right, *sums = carried
            further = builder.load(place)
            left = [e.load(e.after(line, further), whole) for line in lines]
            for f in range(narrow.width):
                weights = e.load(e.after(right, f * e.lanes), whole)
                for r, word in enumerate(left):
                    i = r * narrow.width + f
                    sums[i] = dot(e, sums[i], word, weights, how)
            return [e.after(place, 1), e.after(right, narrow.width * e.lanes), *sums]

        zeros = [ir.Constant(whole, [0] * e.lanes)] * (narrow.width * narrow.rows)
        start = [e.address(steps, I64(0), INTEGERS), e.address(b, b_at), *zeros]
        _, _, *sums = e.loop(depth, start, step)
        end = Epilogue(e, terms, t_at, apart, narrow.bytes, packed=True)
        made, begins = [], starts(e, terms, t_at, narrow.bytes)
        for r in range(narrow.rows):
            row = _across(e, sums[r * narrow.width : (r + 1) * narrow.width], narrow)
            made += [builder.add(*pair) for pair in zip(row, begins, strict=True)]
        places = [builder.add(c_at, builder.mul(pitch, I64(r))) for r in range(narrow.rows)]
        end.finish(made, e.address(c, I64(0)), e.address(residual, I64(0)), places, flags)
        return context.get_dummy_value()

    return signature, codegen


def _across(e: Emit, sums: list[ir.Value], narrow: Narrow) -> list[ir.Value]:
    """Add the lanes of each group, so that each lane has filters of its own.

    The lanes are added in pairs, then pairs of pairs. In each round half of the lanes take one of
    two vectors, and the others the other one.
    """

    def added(one: ir.Value, two: ir.Value, step: int) -> ir.Value:
        mine = [lane + (e.lanes if lane & step else 0) for lane in range(e.lanes)]
        chosen = (mine, [lane ^ step for lane in mine])
        masks = [ir.Constant(ir.VectorType(I32, e.lanes), lanes) for lanes in chosen]
        return e.builder.add(*(e.builder.shuffle_vector(one, two, mask) for mask in masks))

    made = []
    for byte in range(narrow.bytes):
        vectors, step = sums[byte :: narrow.bytes], 1
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors, step = [added(*pair, step) for pair in pairs], 2 * step
        made += vectors
    return made


@overload(narrow_tile, prefer_literal=True, jit_options=as_part(inline=True))
def _narrow_overload(
    width, deep, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, c_at, pitch,
    residual, add, other, wide,
):  # fmt: skip
    """Replace `narrow_tile` in compiled code."""

    def compiled(
        width, deep, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c, c_at,
        pitch, residual, add, other, wide,
    ):  # fmt: skip
        _narrow_tile(
            width, deep, strip, at, rows, row_at, steps, depth, b, b_at, terms, t_at, apart, c,
            c_at, pitch, residual, add, other, wide,
        )  # fmt: skip

    return compiled
