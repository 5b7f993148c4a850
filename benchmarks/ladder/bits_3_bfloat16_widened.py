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


def conv2d(
    x: np.ndarray,
    packed: tuple[np.ndarray, np.ndarray],
    bias: np.ndarray,
    stride: int,
    groups: int,
    out: np.ndarray,
) -> None:
    """Compute the convolution with bias and ReLU."""
    panels, none = packed
    source = v.rows_at(x, stride).reshape(-1)
    left = np.empty(len(source), np.float32)
    widen(source, left.view(np.uint32))
    multiply(left, panels, none, none, bias, out.reshape(-1, out.shape[-1]))
