"""The register tile: 14 positions by 32 output channels, whose 28 sums stay in registers.

The compiler kept sums in memory, because by itself it does not hold so many in registers. So the
innermost loop is written in vector instructions::

                     [ b0 ........ ][ b1 ........ ]     one row of the panel: 2 registers
      [ a0 ]         [ sum         ][ sum         ]
      [ a1 ]         [ sum         ][ sum         ]     14 x 2 sums: 28 registers
       ...                 ...            ...           and one for the a's in turn: 31 of
      [ a13 ]        [ sum         ][ sum         ]     the 32 that AVX-512 has

Each step loads 16 times and multiplies and adds 28 vectors; now the multiplications take the time.
Expect three quarters of peak: a third more than the rung with threads where a processor begins one
vector of 16 a cycle, and twice as much where it begins two. Remaining costs: rows 4 KiB apart
compete for the same places of the cache, strides are copied, and the edges are computed in full.
"""

from __future__ import annotations

import numpy as np
import vectors as v
from numba import njit, prange
from numba.core import types
from numba.extending import intrinsic

ROWS, COLUMNS, POSITIONS = 14, 2 * v.LANES, 56


def pack(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return ``[c_out / 32, c_in, 32]``, the last panel filled up with zeros."""
    matrix = weight[:, :, 0, 0]
    filled = np.zeros((-(-len(matrix) // COLUMNS) * COLUMNS, matrix.shape[1]), np.float32)
    filled[: len(matrix)] = matrix
    return np.ascontiguousarray(filled.reshape(-1, COLUMNS, matrix.shape[1]).transpose(0, 2, 1))


@intrinsic
def _tile(typing, x, starts, panel, at, depth, sums):
    """Compute ``sums[14, 32]``: the rows of ``x`` at ``starts`` times the panel at ``at``.

    ``depth`` is not zero.
    """

    def codegen(context, b, signature, args):
        x, starts, panel, at, depth, sums = args
        data = context.make_array(signature.args[1])(context, b, starts).data
        rows = [v.address(context, b, x, b.load(b.gep(data, [v.I64(r)]))) for r in range(ROWS)]
        zero = v.ir.Constant(v.VECTOR, None)

        def step(carried):
            k, right, *tile = carried
            row = [v.load(b, right), v.load(b, right, v.LANES)]
            for r in range(ROWS):
                value = v.broadcast(b, b.load(b.gep(rows[r], [k])))
                for j in range(2):
                    tile[2 * r + j] = v.multiply_add(b, value, row[j], tile[2 * r + j])
            return [b.add(k, v.I64(1)), b.gep(right, [v.I64(COLUMNS)]), *tile]

        start = [v.I64(0), v.address(context, b, panel, at), *[zero] * (2 * ROWS)]
        _, _, *tile = v.repeat(b, depth, start, step)
        target = v.address(context, b, sums, v.I64(0))
        for i, value in enumerate(tile):
            v.store(b, value, target, i * v.LANES)
        return context.get_dummy_value()

    return types.void(
        v.FLAT, types.Array(types.int64, 1, "C"), v.FLAT, types.intp, types.intp, v.FLAT
    ), codegen


@njit
def _block(x, weight, bias, out, start, end, f):
    """Compute positions ``start`` to ``end`` for the panel of filter ``f``.

    Rows beyond ``end`` repeat the last one.
    """
    depth, c_out = x.shape[1], out.shape[1]
    sums, starts = np.empty(ROWS * COLUMNS, np.float32), np.empty(ROWS, np.int64)
    for p in range(start, end, ROWS):
        for r in range(ROWS):
            starts[r] = min(p + r, end - 1) * depth
        _tile(x.reshape(-1), starts, weight.reshape(-1), f * depth, depth, sums)
        for r in range(min(ROWS, end - p)):
            v.finish(sums[r * COLUMNS :], bias[f:], out[p + r, f : min(f + COLUMNS, c_out)])


@njit(parallel=True)
def _all(x, weight, bias, out):
    positions, c_out = out.shape
    panels = (c_out + COLUMNS - 1) // COLUMNS
    for task in prange((positions + POSITIONS - 1) // POSITIONS * panels):
        start, f = np.int64(task) // panels * POSITIONS, np.int64(task) % panels * COLUMNS
        _block(x, weight, bias, out, start, min(start + POSITIONS, positions), f)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, x.shape[-1])
    _all(rows, weight, bias, out.reshape(-1, out.shape[-1]))
