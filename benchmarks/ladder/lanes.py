"""The register tile that the rungs from float32 to int8 share; each says what a lane multiplies.

A lane of a vector has 32 bits. What lies in them is called a *word*: one float32, two bfloat16, two
integers of 16 bits or four of 8. A step down the depth loads a row of a panel, two vectors of
words, and for each position one word, in all lanes. Then the rung's ``dot`` adds what the lanes
multiply to the sums, which stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from tinyresnext.ops.cpu.runtime.simd import FLOATS, I32, I64, Emit, machine

LANES = machine().lanes
COLUMNS = 2 * LANES  # filters of a panel
BLOCK = 60  # positions that use a panel while it is in the first cache, about
WHOLE = ir.VectorType(I32, LANES)
Array = np.ndarray


def rows_of(others: int) -> int:
    """Return the rows of a tile if so many registers have something else than sums."""
    return (machine().registers - others) // 2


def product(
    rows: int, dot: Callable[..., Any], finish: Callable[..., Any], whole: bool
) -> Callable[..., None]:
    """Make the compiled function that multiplies rows of words by panels of words.

    Parameters
    ----------
    rows : int
        Of the tile.
    dot : function
        ``dot(e, word, row, sums)`` emits the sums after one more product in each lane.
    finish : function
        ``finish(sums, factor, bias, out)`` makes results of the sums of one row; compiled.
    whole : bool
        Whether sums are integers.
    """
    kind = WHOLE if whole else ir.VectorType(ir.FloatType(), LANES)

    @intrinsic
    def tile(typing, left, places, panels, at, depth, start, f, sums):
        """Compute ``sums[rows, COLUMNS]`` for the rows of ``left`` that begin at ``places``."""

        def codegen(context, b, signature, args):
            left, places, panels, at, depth, start, f, sums = args
            e = Emit(context, b)
            data = context.make_array(signature.args[1])(context, b, places).data
            lines = [e.address(left, b.load(b.gep(data, [I64(r)]))) for r in range(rows)]
            first = [e.load(e.after(e.address(start, f), j * LANES), kind) for j in range(2)]

            def step(carried):
                k, right, *tile = carried
                row = [e.load(e.after(right, j * LANES)) for j in range(2)]
                for r, line in enumerate(lines):
                    word = e.broadcast(b.load(e.after(line, k)))
                    for j in range(2):
                        tile[2 * r + j] = dot(e, word, row[j], tile[2 * r + j])
                return [b.add(k, I64(1)), e.after(right, COLUMNS), *tile]

            _, _, *made = e.loop(depth, [I64(0), e.address(panels, at), *first * rows], step)
            for i, value in enumerate(made):
                e.store(value, e.after(e.address(sums, I64(0)), i * LANES))
            return context.get_dummy_value()

        numbers = types.Array(types.int64, 1, "C")
        i = types.intp
        return types.void(FLOATS, numbers, FLOATS, i, i, FLOATS, i, FLOATS), codegen

    @njit
    def multiply(left, panels, start, factor, bias, out):
        """Compute all positions; rows behind the last one repeat it."""
        positions, c_out = out.shape
        depth = left.size // positions
        sums, places = np.empty(rows * COLUMNS, np.float32), np.empty(rows, np.int64)
        for block in range(0, positions, BLOCK):
            for f in range(0, c_out, COLUMNS):
                for p in range(block, min(block + BLOCK, positions), rows):
                    for r in range(rows):
                        places[r] = min(p + r, positions - 1) * depth
                    tile(left, places, panels, f * depth, depth, start, f, sums)
                    for r in range(min(rows, positions - p)):
                        made = out[p + r, f : min(f + COLUMNS, c_out)]
                        finish(sums[r * COLUMNS :], factor[f:], bias[f:], made)

    return multiply


@njit
def rectified(sums, factor, bias, out):
    """Add the bias to sums of float32, and apply the ReLU."""
    for j in range(len(out)):
        out[j] = max(sums[j] + bias[j], np.float32(0))


@njit
def scaled(sums, factor, bias, out):
    """Multiply sums of integers by their scales, add the bias, and apply the ReLU."""
    numbers = sums.view(np.int32)
    for j in range(len(out)):
        out[j] = max(np.float32(numbers[j]) * factor[j] + bias[j], np.float32(0))


def as_words(rows: Array) -> Array:
    """Return rows of pixels as words, flat."""
    return rows.view(np.float32).reshape(-1)


def convolution(
    multiply: Callable[..., None], words: Callable[[Array], Array] = as_words
) -> Callable[..., None]:
    """Return a rung's `conv2d` for packed ``(panels, zeros)``; ``words`` makes words of rows."""

    def conv2d(
        x: Array, packed: tuple[Array, Array], bias: Array, stride: int, groups: int, out: Array
    ) -> None:
        """Compute the convolution with bias and ReLU."""
        panels, none = packed
        left = words(rows_at(x, stride))
        multiply(left, panels, none, none, bias, out.reshape(-1, out.shape[-1]))

    return conv2d


# --- layouts --------------------------------------------------------------------------------------


def panels_of(weight: Array, dtype: Any, ways: int) -> Array:
    """Lay a 1x1 weight out as panels ``[depth, COLUMNS]`` of words of so many values; flat.

    Depth and filters are filled up with zeros.
    """
    matrix = weight[:, :, 0, 0]
    filters, depth = (
        -(-size // part) * part for size, part in zip(matrix.shape, (COLUMNS, ways), strict=True)
    )
    filled = np.zeros((filters, depth), dtype)
    filled[: len(matrix), : matrix.shape[1]] = matrix
    words = filled.view(np.float32).reshape(-1, COLUMNS, depth // ways)
    return np.ascontiguousarray(words.transpose(0, 2, 1)).reshape(-1)


def pixels_of(x: Array, dtype: Any, ways: int) -> Array:
    """Fill channels up to whole words, with zeros."""
    filled = np.zeros((*x.shape[:3], -(-x.shape[3] // ways) * ways), dtype)
    filled[..., : x.shape[3]] = x
    return filled


def rows_at(x: Array, stride: int) -> Array:
    """Return the pixels that a convolution with a stride sees, in a row."""
    return np.ascontiguousarray(x[:, ::stride, ::stride])


def zeros(weight: Array) -> Array:
    """Return what the sums begin with, or a factor that nobody uses: a zero for each filter."""
    return np.zeros(-(-len(weight) // COLUMNS) * COLUMNS, np.float32)
