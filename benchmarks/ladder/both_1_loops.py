"""Seven loops, as the definition is written, compiled.

The starting point. Every multiply-add loads two values and waits for the previous one, because they
all add to the same sum: four cycles each, where the processor could begin two vectors of them in
one. Expect about one percent of peak.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def pack(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return the weight as it is."""
    return weight


@njit
def _loops(x, weight, bias, stride, groups, out):
    n, h_out, w_out, c_out = out.shape
    _, h, w, _ = x.shape
    _, c_group, k_h, k_w = weight.shape
    for b in range(n):
        for y in range(h_out):
            for z in range(w_out):
                for o in range(c_out):
                    first = o // (c_out // groups) * c_group
                    total = bias[o]
                    for i in range(k_h):
                        for j in range(k_w):
                            line, column = y * stride + i - k_h // 2, z * stride + j - k_w // 2
                            if 0 <= line < h and 0 <= column < w:
                                for c in range(c_group):
                                    total += x[b, line, column, first + c] * weight[o, c, i, j]
                    out[b, y, z, o] = max(total, np.float32(0))


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU; the padding is half the kernel."""
    _loops(x, weight, bias, stride, groups, out)
