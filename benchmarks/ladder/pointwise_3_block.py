"""Blocks: 64 output channels at a time, for 64 positions, before the next 64 channels.

The order before this one reads the whole weight for every position: megabytes, from the second
cache or farther. A slice of 64 channels is read once for 64 positions. By itself it is a step back
as long as the weight fits the second cache: the slice is cut out of rows that lie ``c_out`` apart,
so it is many short runs. The next two rungs need it.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from pointwise_2_order import pack

__all__ = ["conv2d", "pack"]
SOME, POSITIONS = 64, 64


@njit(fastmath={"contract"})
def _blocks(x, weight, bias, out):
    positions, c_out = out.shape
    sums = np.empty(SOME, np.float32)
    for start in range(0, positions, POSITIONS):
        for f in range(0, c_out, SOME):
            count = min(SOME, c_out - f)
            for p in range(start, min(start + POSITIONS, positions)):
                for j in range(count):
                    sums[j] = bias[f + j]
                for c in range(x.shape[1]):
                    value, filters = x[p, c], weight[c, f : f + count]
                    for j in range(count):
                        sums[j] += value * filters[j]
                for j in range(count):
                    out[p, f + j] = max(sums[j], np.float32(0))


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU.

    From here on, strides cost a copy, and the rest is a matrix product.
    """
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, x.shape[-1])
    _blocks(rows, weight, bias, out.reshape(-1, out.shape[-1]))
