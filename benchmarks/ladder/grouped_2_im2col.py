"""im2col, group by group: a convolution becomes a matrix product.

The inputs of every position, of one group, become a row; then rows are multiplied by filters. This
is how convolutions have been made fast since Caffe, and it is the wrong idea for narrow groups:
with width 4 a row of 36 values is copied for 144 multiply-adds, and the product has 4 columns, a
quarter of a vector of AVX-512. Expect a few percent of peak at width 4 and more as groups widen.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def pack(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return ``[groups, k_h * k_w * c_in/groups, c_out/groups]``, a right matrix for each group."""
    c_out, c_group, k_h, k_w = weight.shape
    parts = weight.reshape(groups, c_out // groups, c_group, k_h, k_w).transpose(0, 3, 4, 2, 1)
    return np.ascontiguousarray(parts.reshape(groups, k_h * k_w * c_group, c_out // groups))


@njit
def _rows(x, b, kernel, stride, first, c_group, out):
    """Copy the inputs of each position of image ``b``, from channel ``first``; zeros outside."""
    h_out, w_out, _ = out.shape
    out[:] = 0
    for y in range(h_out):
        for z in range(w_out):
            for i in range(kernel):
                for j in range(kernel):
                    line, column = y * stride + i - kernel // 2, z * stride + j - kernel // 2
                    if 0 <= line < x.shape[1] and 0 <= column < x.shape[2]:
                        for c in range(c_group):
                            out[y, z, (i * kernel + j) * c_group + c] = x[
                                b, line, column, first + c
                            ]


@njit(fastmath={"contract"})
def _product(rows, filters, bias, out, first):
    """Multiply rows by filters, with the columns in the innermost loop."""
    width = filters.shape[1]
    for y in range(rows.shape[0]):
        for z in range(rows.shape[1]):
            sums = out[y, z, first : first + width]
            for o in range(width):
                sums[o] = bias[first + o]
            for k in range(rows.shape[2]):
                value = rows[y, z, k]
                for o in range(width):
                    sums[o] += value * filters[k, o]
            for o in range(width):
                sums[o] = max(sums[o], np.float32(0))


@njit
def _groups(x, weight, bias, stride, kernel, out):
    groups, depth, width = weight.shape
    rows = np.empty((out.shape[1], out.shape[2], depth), np.float32)
    c_group = x.shape[3] // groups
    for b in range(len(x)):
        for g in range(groups):
            _rows(x, b, kernel, stride, g * c_group, c_group, rows)
            _product(rows, weight[g], bias, out[b], g * width)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    kernel = round((weight.shape[1] / (x.shape[-1] // groups)) ** 0.5)
    _groups(x, weight, bias, stride, kernel, out)
