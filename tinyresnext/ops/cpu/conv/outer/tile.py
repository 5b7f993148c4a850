"""The register tile of an outer product: of two matrices that both have a row for each position.

The depth, down which the tile walks, are the positions. Neither side has to be transposed: the tile
takes some neighbouring values of a row of one matrix as its rows, and some of the other as its
columns::

      positions      left: 14 values of each row      right: 2 vectors of each row
          |          [ a0 a1 ...... a13 ]             [ b0 ............ ][ b1 ............ ]
          |          [ ................ ]             [ ................................... ]
          v                 ...                                     ...

Muon multiplies its matrices with it, too (`update.products`).
"""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.simd import FLOATS, I64, Emit, machine
from ...runtime.simd.words import operands
from ..gemm import UNROLL, VECTORS

LENGTH = 128  # most positions of a block: a right panel is 16 KiB, half of the first cache


def outer_tile(halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at):
    """Compute one tile: ``c[row, column] += sum over k of a[k, row] * b[k, column]``.

    Parameters
    ----------
    halves : 1 or 2
        The lower tile or the higher; a constant where it is called.
    a : ``[depth, halves * half]``, from ``a_at``, ``a_step`` values from one ``k`` to the next
    b : ``[depth, VECTORS * lanes]``, from ``b_at``, ``b_step`` values from one ``k`` to the next
    depth : int
        A multiple of ``UNROLL``, not zero.
    c : ``[halves * half, VECTORS * lanes]``, from ``c_at``

    ``a`` and ``b`` may be words of two bfloat16, of two positions each.
    """
    rows, size = halves * machine().half, VECTORS * machine().lanes
    steps = np.arange(depth)[:, None]
    left = a[a_at + steps * a_step + np.arange(rows)]
    right = b[b_at + steps * b_step + np.arange(size)]
    with np.errstate(all="ignore"):  # rows and columns that nobody reads hold arbitrary values
        left, right = operands(left.T, right)
        c[c_at : c_at + rows * size] += (left @ right).reshape(-1)


@intrinsic(prefer_literal=True)
def _outer_tile(typing, halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at):
    """Emit `outer_tile`: the tile of `gemm`, with neighbouring values on the left."""
    rows, i, of = halves.literal_value * machine().half, types.intp, b

    def codegen(context, builder, signature, args):
        _, a, a_at, a_step, b, b_at, b_step, depth, c, c_at = args
        e = Emit(context, builder, operands=of)

        def steps(carried):
            left, right, *sums = carried
            for _ in range(UNROLL):
                # The processor does not foresee rows that lie far apart. The row LENGTH positions
                # further, in most layers a row of the next block, comes into the cache meanwhile.
                e.prefetch(e.after(left, further), write=False, cache=2)
                row = [e.load(e.after(right, j * e.lanes)) for j in range(VECTORS)]
                for r in range(rows):
                    value = e.broadcast(builder.load(e.after(left, r)))
                    for j in range(VECTORS):
                        sums[r * VECTORS + j] = e.product(value, row[j], sums[r * VECTORS + j])
                left, right = e.after(left, a_step), e.after(right, b_step)
            return [left, right, *sums]

        further = builder.mul(a_step, I64(LENGTH))
        zeros = [e.zero()] * (rows * VECTORS)
        start = [e.address(a, a_at, of), e.address(b, b_at, of), *zeros]
        _, _, *sums = e.loop(builder.sdiv(depth, I64(UNROLL)), start, steps)
        target = e.address(c, c_at)
        for t, value in enumerate(sums):
            place = e.after(target, t * e.lanes)
            e.store(builder.fadd(e.load(place), value), place)
        return context.get_dummy_value()

    return types.void(halves, of, i, i, of, i, i, i, FLOATS, i), codegen


@overload(outer_tile, prefer_literal=True)
def _outer_overload(halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at):
    """Replace `outer_tile` in compiled code."""
    return lambda halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at: _outer_tile(
        halves, a, a_at, a_step, b, b_at, b_step, depth, c, c_at
    )
