"""Products of many small matrices at once: ``c = alpha * a @ b + beta * d``, for Muon.

A block computes a tile of `SIDE` x `SIDE` values, a thread `EACH` x `EACH` of them in registers;
slices of both matrices, `DEPTH` deep, go through shared memory. A matrix has a step from row to row
and one from column to column, so a transposed one is read, and written, where it lies. The order of
each sum is that of the columns of ``a``.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba import cuda

from ..runtime.arrays import DeviceArray
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import registers, shared
from ..words.whole import quotient

SIDE, DEPTH, EACH = 64, 16, 4
ACROSS = SIDE // EACH  # threads of a row of the block
THREADS = ACROSS * ACROSS
WIDE = SIDE + 4  # of a row in shared memory: neighbours in a column lie in other banks
SLICE, TILE = DEPTH * WIDE, EACH * EACH
LOADS = SIDE * DEPTH // THREADS  # values of each slice that a thread loads


class Matrices(NamedTuple):
    """Matrices of one array: value ``[g, i, j]`` is at ``g * apart + i * row + j * column``."""

    array: DeviceArray
    apart: int
    row: int
    column: int

    @property
    def transposed(self) -> Matrices:
        """The same values, transposed; nothing moves."""
        return self._replace(row=self.column, column=self.row)


@cache
def product_kernel() -> Kernel:
    """Return the kernel of one tile; rows of blocks lie in a row of the grid, group after group."""

    def run(
        a, b, d, c, alpha, beta, m, n, depth, tiles_m, tiles_n,
        a_apart, a_row, a_column, b_apart, b_row, b_column, c_apart, c_row, c_column,
    ):  # fmt: skip
        a_slice, b_slice = shared(SLICE), shared(SLICE)
        total, left, top = registers(TILE), registers(EACH), registers(EACH)
        t = int32(cuda.threadIdx.x)
        line = quotient(int32(cuda.blockIdx.x), tiles_n)
        group = quotient(line, tiles_m)
        first_m = int32((line - int32(group * tiles_m)) * int32(SIDE))
        first_n = int32((int32(cuda.blockIdx.x) - int32(line * tiles_n)) * int32(SIDE))
        y, x = int32(t // int32(ACROSS)), t % int32(ACROSS)
        if c_row == int32(1):  # threads side by side store values side by side
            y, x = x, y
        for q in range(TILE):
            total[q] = float32(0)
        for start in range(int32(0), depth, DEPTH):
            for q in range(LOADS):
                at = int32(t + int32(q * THREADS))
                # Threads side by side take values side by side.
                i, k = int32(at // int32(DEPTH)), at % int32(DEPTH)
                if a_row == int32(1):
                    i, k = at % int32(SIDE), int32(at // int32(SIDE))
                row, column = int32(first_m + i), int32(int32(start) + k)
                value = float32(0)
                if row < m and column < depth:
                    value = a[
                        int32(group * a_apart + int32(row * a_row) + int32(column * a_column))
                    ]
                a_slice[int32(k * int32(WIDE) + i)] = value
                i, k = at % int32(SIDE), int32(at // int32(SIDE))
                if b_row == int32(1):
                    i, k = int32(at // int32(DEPTH)), at % int32(DEPTH)
                row, column = int32(int32(start) + k), int32(first_n + i)
                value = float32(0)
                if row < depth and column < n:
                    value = b[
                        int32(group * b_apart + int32(row * b_row) + int32(column * b_column))
                    ]
                b_slice[int32(k * int32(WIDE) + i)] = value
            cuda.syncthreads()
            for k in range(DEPTH):
                for p in range(EACH):
                    left[p] = a_slice[int32(int32(k * WIDE) + y + int32(p * ACROSS))]
                    top[p] = b_slice[int32(int32(k * WIDE) + x + int32(p * ACROSS))]
                for p in range(EACH):
                    for q in range(EACH):
                        total[p * EACH + q] += left[p] * top[q]
            cuda.syncthreads()
        for p in range(EACH):
            for q in range(EACH):
                i = int32(first_m + y + int32(p * ACROSS))
                j = int32(first_n + x + int32(q * ACROSS))
                if i < m and j < n:
                    at = int32(group * c_apart + int32(i * c_row) + int32(j * c_column))
                    value = total[p * EACH + q] * alpha
                    if beta != float32(0):
                        value += beta * d[at]
                    c[at] = value

    kinds = (floats,) * 4 + (float32,) * 2 + (int32,) * 14
    return Kernel("products", run, kinds, THREADS)


def product(
    a: Matrices,
    b: Matrices,
    c: Matrices,
    sizes: tuple[int, int, int, int],
    alpha: float = 1.0,
    beta: float = 0.0,
    d: DeviceArray | None = None,
) -> Launch:
    """Return the launch of ``c = alpha * a @ b + beta * d``; ``d`` lies as ``c`` does.

    Parameters
    ----------
    sizes : tuple of int
        How many matrices there are, their rows and columns in ``c``, and the columns of ``a``.
    """
    groups, m, n, depth = sizes
    tiles_m, tiles_n = -(-m // SIDE), -(-n // SIDE)
    steps = (*a[1:], *b[1:], *c[1:])
    return Launch(
        product_kernel(),
        groups * tiles_m * tiles_n,
        (a.array, b.array, d, c.array, alpha, beta, m, n, depth, tiles_m, tiles_n, *steps),
    )
