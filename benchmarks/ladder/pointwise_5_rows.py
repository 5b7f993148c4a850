"""Four rows by four steps: use every load of the panel, and of a sum, four times.

So far each multiply-add came with one load of the weight and one load and store of its sum; the
processor can load only as fast as it can multiply. Sixteen multiply-adds now share four loads of
the panel and four of sums. Expect two to three times the speed of the rung before.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from pointwise_4_pack import PANEL, POSITIONS, pack

__all__ = ["conv2d", "four_rows", "pack"]
ROWS, STEPS = 4, 4


@njit(fastmath={"contract"})
def four_rows(x, r0, r1, r2, r3, depth, b, sums):
    """Add rows of flat ``x`` at ``r0`` to ``r3`` times panel ``b`` to ``sums[4 * PANEL]``."""
    k = 0
    while k + STEPS <= depth:
        a00, a01, a02, a03 = x[r0 + k], x[r0 + k + 1], x[r0 + k + 2], x[r0 + k + 3]
        a10, a11, a12, a13 = x[r1 + k], x[r1 + k + 1], x[r1 + k + 2], x[r1 + k + 3]
        a20, a21, a22, a23 = x[r2 + k], x[r2 + k + 1], x[r2 + k + 2], x[r2 + k + 3]
        a30, a31, a32, a33 = x[r3 + k], x[r3 + k + 1], x[r3 + k + 2], x[r3 + k + 3]
        row = k * PANEL
        for j in range(PANEL):
            v0, v1, v2, v3 = (
                b[row + j],
                b[row + PANEL + j],
                b[row + 2 * PANEL + j],
                b[row + 3 * PANEL + j],
            )
            sums[j] += a00 * v0 + a01 * v1 + a02 * v2 + a03 * v3
            sums[PANEL + j] += a10 * v0 + a11 * v1 + a12 * v2 + a13 * v3
            sums[2 * PANEL + j] += a20 * v0 + a21 * v1 + a22 * v2 + a23 * v3
            sums[3 * PANEL + j] += a30 * v0 + a31 * v1 + a32 * v2 + a33 * v3
        k += STEPS
    while k < depth:
        row = k * PANEL
        for j in range(PANEL):
            sums[j] += x[r0 + k] * b[row + j]
            sums[PANEL + j] += x[r1 + k] * b[row + j]
            sums[2 * PANEL + j] += x[r2 + k] * b[row + j]
            sums[3 * PANEL + j] += x[r3 + k] * b[row + j]
        k += 1


@njit
def block(x, weight, bias, out, start, end, f):
    """Compute positions ``start`` to ``end`` for the panel of filter ``f``.

    Rows beyond ``end`` repeat the last one.
    """
    depth, c_out = x.shape[1], out.shape[1]
    source, filters = x.reshape(-1), weight.reshape(-1)
    sums = np.empty(ROWS * PANEL, np.float32)
    for p in range(start, end, ROWS):
        for j in range(ROWS * PANEL):
            sums[j] = 0
        r1, r2, r3 = (
            min(p + 1, end - 1) * depth,
            min(p + 2, end - 1) * depth,
            min(p + 3, end - 1) * depth,
        )
        four_rows(source, p * depth, r1, r2, r3, depth, filters[f * depth :], sums)
        for i in range(min(ROWS, end - p)):
            for j in range(min(PANEL, c_out - f)):
                out[p + i, f + j] = max(sums[i * PANEL + j] + bias[f + j], np.float32(0))


@njit
def _all(x, weight, bias, out):
    positions, c_out = out.shape
    for start in range(0, positions, POSITIONS):
        for f in range(0, c_out, PANEL):
            block(x, weight, bias, out, start, min(start + POSITIONS, positions), f)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, x.shape[-1])
    _all(rows, weight, bias, out.reshape(-1, out.shape[-1]))
