"""The matrix product that every convolution here ends in: four rows at a time against a panel of columns.

A *panel* is ``PANEL`` neighbouring columns of the right matrix, stored as ``[depth, PANEL]`` so that walking down the
depth walks straight through memory. A *tile* is four rows of the left matrix times one panel. In the innermost loop
four values of each row meet four rows of the panel: sixteen multiply-adds for four loads of the panel, and the compiler
turns the loop over columns into vector instructions of whatever width the processor has.

Arrays are flat and ``PANEL`` is a constant: so the compiler knows the distance between the rows of a panel, sees that
nothing overlaps, and needs no slow version of the loop. (With two-dimensional arrays it runs half as fast.)
"""

from __future__ import annotations

import numpy as np
from numba import njit

PANEL = 64  # columns: four AVX-512 registers, eight of AVX2; most layers of the family have a multiple of it
ROWS = 4


@njit(fastmath={"contract"})  # a * b + c may round once instead of twice; nothing else about the arithmetic is loosened
def multiply_add(a, r0, r1, r2, r3, depth, b, sums):
    """Add to the tile ``sums[ROWS, PANEL]`` the rows of ``a`` that begin at ``r0`` to ``r3`` times ``b[depth, PANEL]``.

    All three are flat; at an edge a row may be given twice and its second sum left unused. Each sum takes its products
    in the order of the depth, whatever rows are beside it, so a result depends neither on the blocking nor on the number
    of threads.
    """
    k = 0
    while k + 4 <= depth:
        w00, w01, w02, w03 = a[r0 + k], a[r0 + k + 1], a[r0 + k + 2], a[r0 + k + 3]
        w10, w11, w12, w13 = a[r1 + k], a[r1 + k + 1], a[r1 + k + 2], a[r1 + k + 3]
        w20, w21, w22, w23 = a[r2 + k], a[r2 + k + 1], a[r2 + k + 2], a[r2 + k + 3]
        w30, w31, w32, w33 = a[r3 + k], a[r3 + k + 1], a[r3 + k + 2], a[r3 + k + 3]
        row = k * PANEL
        for j in range(PANEL):
            v0, v1, v2, v3 = b[row + j], b[row + PANEL + j], b[row + 2 * PANEL + j], b[row + 3 * PANEL + j]
            sums[j] = sums[j] + w00 * v0 + w01 * v1 + w02 * v2 + w03 * v3
            sums[PANEL + j] = sums[PANEL + j] + w10 * v0 + w11 * v1 + w12 * v2 + w13 * v3
            sums[2 * PANEL + j] = sums[2 * PANEL + j] + w20 * v0 + w21 * v1 + w22 * v2 + w23 * v3
            sums[3 * PANEL + j] = sums[3 * PANEL + j] + w30 * v0 + w31 * v1 + w32 * v2 + w33 * v3
        k += 4
    while k < depth:  # what is left when the depth is not a multiple of four
        row = k * PANEL
        for j in range(PANEL):
            sums[j] += a[r0 + k] * b[row + j]
            sums[PANEL + j] += a[r1 + k] * b[row + j]
            sums[2 * PANEL + j] += a[r2 + k] * b[row + j]
            sums[3 * PANEL + j] += a[r3 + k] * b[row + j]
        k += 1


def panels(matrix: np.ndarray) -> np.ndarray:
    """Cut a matrix ``[depth, columns]`` into panels, one after the other, the last filled up with zeros; flat."""
    depth, columns = matrix.shape
    count = -(-columns // PANEL)
    padded = np.zeros((depth, count * PANEL), np.float32)
    padded[:, :columns] = matrix
    return np.ascontiguousarray(padded.reshape(depth, count, PANEL).transpose(1, 0, 2)).reshape(-1)
