"""One float32 in a lane: the tile that the other rungs are compared with.

As many rows as fit the registers, by two vectors: 6 in AVX2, 14 in AVX-512. A multiply-add is one
product in a lane. Expect three quarters of the peak; the last kernel of the ladder for 1x1
convolutions has more ideas (`both_last_cpu`), and the rungs below do without them, so that only
the words differ.
"""

from __future__ import annotations

import lanes as v
import numpy as np

__all__ = ["conv2d", "multiply", "pack"]


def dot(e, word, row, sums):
    """Emit one multiply-add."""
    return e.multiply_add(word, row, sums)


multiply = v.product(v.rows_of(others=3), dot, v.rectified, whole=False)


def pack(weight: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return panels of float32, and zeros."""
    return v.panels_of(weight, np.float32, 1), v.zeros(weight)


conv2d = v.convolution(multiply)
