"""No matrices: all channels innermost, across the borders of the groups.

Output channel ``c`` needs the input channels of its own group, the ``i``-th first. With the weight
as ``[k_h, k_w, c_in/groups, c_out]`` the loop over all output channels is one long run of
independent sums, whatever the width, and fills every vector. What is left over is to fetch, for
each channel, a value from the group it is in: a gather.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def pack(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return the weight as ``[k_h, k_w, c_in/groups, c_out]``."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


@njit(fastmath={"contract"})
def _channels(x, weight, bias, stride, first, out):
    k_h, k_w, c_group, c_out = weight.shape
    for b in range(out.shape[0]):
        for y in range(out.shape[1]):
            for z in range(out.shape[2]):
                sums = out[b, y, z]
                for o in range(c_out):
                    sums[o] = bias[o]
                for i in range(k_h):
                    for j in range(k_w):
                        line, column = y * stride + i - k_h // 2, z * stride + j - k_w // 2
                        if 0 <= line < x.shape[1] and 0 <= column < x.shape[2]:
                            pixel = x[b, line, column]
                            for c in range(c_group):
                                filters = weight[i, j, c]
                                for o in range(c_out):
                                    sums[o] += pixel[first[o] + c] * filters[o]
                for o in range(c_out):
                    sums[o] = max(sums[o], np.float32(0))


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    c_out, c_group = weight.shape[3], weight.shape[2]
    # The first input channel of the group of each output channel.
    first = np.arange(c_out) // (c_out // groups) * c_group
    _channels(x, weight, bias, stride, first, out)
