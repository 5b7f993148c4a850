"""Two bfloat16 in a lane, taken apart in the tile: half of the bytes, and more to do.

A bfloat16 is the upper half of a float32. So of a word the upper number is the word without its
lower half, and the lower number is the word moved up by 16 bits::

      word      [ a1 | a0 ]
      & ~65535  [ a1 | 0  ]  = a1 in float32        << 16  [ a0 | 0 ]  = a0 in float32

Each word needs two such instructions before its two multiply-adds, and each of the four numbers of
two words a register. Expect at most the speed of the rung before, and less where registers are few:
then some go to memory and back in every step.
"""

from __future__ import annotations

import lanes as v
import numpy as np

from tinyresnext.ops.bfloat16 import rounded as halves
from tinyresnext.ops.bfloat16 import widened

__all__ = ["conv2d", "pack", "prepare", "rounded"]


def apart(e, words):
    """Emit the lower and the upper numbers of words, as float32."""
    b, bits = e.builder, e.builder.bitcast(words, v.WHOLE)
    lower = b.shl(bits, v.ir.Constant(v.WHOLE, [16] * v.LANES))
    upper = b.and_(bits, v.ir.Constant(v.WHOLE, [0xFFFF0000] * v.LANES))
    return b.bitcast(lower, e.vector), b.bitcast(upper, e.vector)


def dot(e, word, row, sums):
    """Emit two multiply-adds."""
    for a, b in zip(apart(e, word), apart(e, row), strict=True):
        sums = e.multiply_add(a, b, sums)
    return sums


multiply = v.product(v.rows_of(others=7), dot, v.rectified, whole=False)


def rounded(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the input and the weight that this rung computes with."""
    return widened(halves(x)), widened(halves(weight))


def prepare(x: np.ndarray) -> np.ndarray:
    """Return the input as the layer before stores it: bfloat16."""
    return v.pixels_of(halves(x), np.uint16, 2)


def pack(weight: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return panels of words, and zeros."""
    return v.panels_of(halves(weight), np.uint16, 2), v.zeros(weight)


conv2d = v.convolution(multiply)
