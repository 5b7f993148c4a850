"""bfloat16 between layers, widened while rows are copied: the tile of float32 again.

What an instruction does not do for free is done once for all panels: a pixel is widened when it is
copied, and a weight when it is packed. Expect the speed of float32 minus that of the copy, one
pass over the input. What is gained is outside this layer: half of the bytes between layers.
"""

from __future__ import annotations

import lanes as v
import numpy as np
from bits_1_float32 import multiply
from bits_2_bfloat16_apart import rounded
from numba import njit

from tinyresnext.ops.bfloat16 import rounded as halves
from tinyresnext.ops.bfloat16 import widened

__all__ = ["conv2d", "pack", "prepare", "rounded"]


@njit
def widen(source, bits):
    """Write the bits of float32 for each bfloat16."""
    for i in range(len(source)):
        bits[i] = np.uint32(source[i]) << np.uint32(16)


def prepare(x: np.ndarray) -> np.ndarray:
    """Return the input as the layer before stores it: bfloat16."""
    return halves(x)


def pack(weight: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return panels of rounded weights in float32, and zeros."""
    return v.panels_of(widened(halves(weight)), np.float32, 1), v.zeros(weight)


def as_float32(rows: np.ndarray) -> np.ndarray:
    """Return rows of pixels widened, flat."""
    left = np.empty(rows.size, np.float32)
    widen(rows.reshape(-1), left.view(np.uint32))
    return left


conv2d = v.convolution(multiply, as_float32)
