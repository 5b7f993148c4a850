"""Strassen's algorithm, one level: seven products of half the size in place of eight.

Rows, depth and filters are cut into halves. With ``a11 a12 / a21 a22`` for the left matrix and the
same for the weight, Strassen (1969) computes the four quarters of the result from seven products::

    m1 = (a11 + a22)(b11 + b22)      c11 = m1 + m4 - m5 + m7
    m2 = (a21 + a22) b11             c12 = m3 + m5
    m3 = a11 (b12 - b22)             c21 = m2 + m4
    m4 = a22 (b21 - b11)             c22 = m1 - m2 + m3 + m6
    m5 = (a11 + a12) b22
    m6 = (a21 - a11)(b11 + b12)
    m7 = (a12 - a22)(b21 + b22)

The sums of weights are made once, when they are packed, and those of the left matrix while its rows
are gathered, as Huang et al. (2016, arXiv:1605.01078) do it. The tile is that of the package.

It does not win (`LOG.md`), so it is here only. At most an eighth less time than that of the
package's kernel can be expected. What costs: each product is added to
two quarters, which takes a tenth of the multiply-adds' time at a depth of 256 and less at more;
seven rows are gathered for four; and weights are seven quarters as large, so a layer whose weights
come from memory must lose. The error grows, since sums of quarters are larger than the quarters:
`bound` derives a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numba import njit, prange

from tinyresnext.ops.cpu.conv.gemm import DEPTH, PITCH, UNROLL, VECTORS, panels, tile
from tinyresnext.ops.cpu.runtime.simd import copy, machine

ROWS, COLUMNS = 2 * machine().half, VECTORS * machine().lanes  # of the tile
MOST = 200 * 1024  # values of the seven left matrices of a task, in the second cache
TOGETHER = 56 // ROWS  # tiles of a half of a task, at most

# For each product: the quarters of the left matrix and of the weight with their signs, and to which
# quarters of the result it is added. Quarters are numbered 11, 12, 21, 22.
PRODUCTS = (
    ((1, 0, 0, 1), (1, 0, 0, 1), (1, 0, 0, 1)),
    ((0, 0, 1, 1), (1, 0, 0, 0), (0, 0, 1, -1)),
    ((1, 0, 0, 0), (0, 1, 0, -1), (0, 1, 0, 1)),
    ((0, 0, 0, 1), (-1, 0, 1, 0), (1, 0, 1, 0)),
    ((1, 1, 0, 0), (0, 0, 0, 1), (-1, 1, 0, 0)),
    ((-1, 0, 1, 0), (1, 1, 0, 0), (0, 0, 0, 1)),
    ((0, 1, 0, -1), (0, 0, 1, 1), (1, 0, 0, 0)),
)
SIGNS = np.array([result for _, _, result in PRODUCTS])


def halves(size: int, unit: int) -> int:
    """Return the length of a half: ``size`` is filled up to two times a multiple of ``unit``."""
    return -(-size // (2 * unit)) * unit


def quarters(matrix: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """Return the quarters 11, 12, 21 and 22 of a matrix that is filled up with zeros."""
    whole = np.zeros((2 * rows, 2 * columns), matrix.dtype)
    whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    return [whole[i : i + rows, j : j + columns] for i in (0, rows) for j in (0, columns)]


def combined(parts: list[np.ndarray], signs: Sequence[int]) -> np.ndarray:
    """Return the sum of some quarters."""
    chosen = [sign * part for sign, part in zip(signs, parts, strict=True) if sign]
    return chosen[0] if len(chosen) == 1 else chosen[0] + chosen[1]


def pack(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return the panels of the seven weights, ``[7, c_out / 2, c_in / 2]`` each filled up; flat."""
    matrix = weight[:, :, 0, 0].T
    parts = quarters(matrix, halves(matrix.shape[0], UNROLL), halves(matrix.shape[1], COLUMNS))
    return panels(np.stack([combined(parts, signs) for _, signs, _ in PRODUCTS]))


def bound(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Return a limit of the error of each result, from the roundings that it goes through.

    A product of a row of ``l`` and a column of ``r`` has ``k / 2`` terms. Each goes through the
    rounding of its sums of quarters (2), of its multiplication, and of at most ``k / 2`` additions;
    then through 4 additions of products and the bias. So with ``t = k / 2 + 8`` the error is at
    most ``t u / (1 - t u)`` times ``|bias| + sum of |l| |r|`` over the products of a quarter, where
    ``|l|`` and ``|r|`` are sums of the magnitudes of the quarters.
    """
    rows = np.abs(x[:, ::stride, ::stride].reshape(-1, x.shape[-1]).astype(np.float64))
    matrix = np.abs(weight[:, :, 0, 0].T.astype(np.float64))
    size, (depth, filters) = len(rows), matrix.shape
    deep, wide = halves(depth, UNROLL), halves(filters, COLUMNS)
    length = block_of(size, deep)
    found = np.zeros((-(-size // (2 * length)) * 2 * length, 2 * wide))
    weights = quarters(matrix, deep, wide)
    for first in range(0, size, 2 * length):
        some = np.minimum(np.arange(first, first + 2 * length), size - 1)  # as `_gather` does it
        mine = quarters(rows[some], length, deep)
        target = [np.zeros((length, wide)) for _ in range(4)]
        for left, right, result in np.abs(PRODUCTS):
            product = combined(mine, left) @ combined(weights, right)
            for sign, part in zip(result, target, strict=True):
                part += sign * product
        found[first : first + 2 * length] = np.block([target[:2], target[2:]])
    terms = (deep + 8) * 2.0**-24
    shape = (*x[:, ::stride, ::stride].shape[:3], filters)
    return terms / (1 - terms) * (found[:size, :filters].reshape(shape) + np.abs(bias))


def block_of(positions: int, deep: int) -> int:
    """Return the rows of a half of a task: they fit the second cache, and are whole tiles."""
    shelves = -(-deep // DEPTH)
    fitting = MOST // (7 * ROWS * shelves * PITCH)
    return ROWS * max(1, min(TOGETHER, fitting, halves(positions, ROWS) // ROWS))


@njit
def _sum(x, one, sign, other, count, a, at):
    """Write ``x[one:] + sign * x[other:]``; LLVM makes vectors of slices, not of ``a[at + q]``."""
    left, right, target = x[one : one + count], x[other : other + count], a[at : at + count]
    for q in range(count):
        target[q] = left[q] + sign * right[q]


@njit
def _gather(x, first, last, length, deep, shelves, a):
    """Write the seven left matrices of the rows from ``first`` on, tile after tile."""
    size, plus, minus = length * shelves * PITCH, np.float32(1), np.float32(-1)
    for r in range(length):
        a11 = min(first + r, last - 1) * 2 * deep
        a21 = min(first + length + r, last - 1) * 2 * deep
        a12, a22 = a11 + deep, a21 + deep
        for k in range(0, deep, DEPTH):
            at = (r // ROWS * shelves + k // DEPTH) * ROWS * PITCH + r % ROWS * PITCH
            count = min(DEPTH, deep - k)
            _sum(x, a11 + k, plus, a22 + k, count, a, at)
            _sum(x, a21 + k, plus, a22 + k, count, a, at + size)
            copy(x, a11 + k, a, at + 2 * size, count)
            copy(x, a22 + k, a, at + 3 * size, count)
            _sum(x, a11 + k, plus, a12 + k, count, a, at + 4 * size)
            _sum(x, a21 + k, minus, a11 + k, count, a, at + 5 * size)
            _sum(x, a12 + k, minus, a22 + k, count, a, at + 6 * size)


@njit
def _add(m, c, at, sign, fresh):
    """Add a tile to a tile of the result, or put it there."""
    target, factor = c[at : at + ROWS * COLUMNS], np.float32(sign)
    if fresh:
        for q in range(ROWS * COLUMNS):
            target[q] = m[q]
    else:
        for q in range(ROWS * COLUMNS):
            target[q] += factor * m[q]


@njit
def _store(c, at, bias, f, out, row, last):
    """Add the bias, apply the ReLU, and store the rows and columns that there are."""
    count = min(COLUMNS, out.shape[1] - f)
    shift = bias[f : f + count]
    for r in range(min(ROWS, last - row)):
        target, sums = out[row + r, f : f + count], c[at + r * COLUMNS : at + r * COLUMNS + count]
        for q in range(count):
            value = sums[q] + shift[q]
            target[q] = value if value > 0 else np.float32(0)


@njit
def _block(weight, bias, out, a, c, m, none, first, share, shares, deep, pairs, tiles):
    """Multiply the seven left matrices by a share of the panels, and store the sums."""
    positions, each, shelves = len(out), ROWS * COLUMNS, (deep + DEPTH - 1) // DEPTH
    size = tiles * ROWS * shelves * PITCH
    for pair in range(share * pairs // shares, (share + 1) * pairs // shares):
        for i in range(7):
            b_at = (i * pairs + pair) * deep * COLUMNS
            for t in range(tiles):
                tile(
                    2, a, i * size + t * ROWS * shelves * PITCH, weight, b_at, deep, m, 0,
                    COLUMNS, none, m, 0, np.float32(-np.inf), m, -1, 0,
                )  # fmt: skip
                for part in range(4):
                    if SIGNS[i, part] != 0:
                        fresh = i == 0 or (i == 1 and part == 2) or (i == 2 and part == 1)
                        _add(m, c, (t * 4 + part) * each, SIGNS[i, part], fresh)
        for t in range(tiles):
            for part in range(4):
                f = (pair + part % 2 * pairs) * COLUMNS
                row = first + part // 2 * tiles * ROWS + t * ROWS
                if f < out.shape[1] and row < positions:
                    _store(c, (t * 4 + part) * each, bias, f, out, row, positions)


@njit(parallel=True)
def _all(x, weight, bias, out, deep, wide, length, shares, threads):
    positions, shelves = len(out), (deep + DEPTH - 1) // DEPTH
    pairs, tiles = wide // COLUMNS, length // ROWS
    size, each = length * shelves * PITCH, ROWS * COLUMNS
    blocks = (positions + 2 * length - 1) // (2 * length)
    tasks = blocks * shares
    for thread in prange(threads):
        a, c = np.empty(7 * size, np.float32), np.empty(4 * tiles * each, np.float32)
        m, none, held = np.empty(each, np.float32), np.zeros(COLUMNS, np.float32), np.int64(-1)
        for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
            first, share = np.int64(task) // shares * 2 * length, np.int64(task) % shares
            if first != held:
                _gather(x, first, positions, length, deep, shelves, a)
                held = first
            _block(weight, bias, out, a, c, m, none, first, share, shares, deep, pairs, tiles)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    flat, depth, threads = out.reshape(-1, out.shape[-1]), x.shape[-1], numba.get_num_threads()
    deep, wide = halves(depth, UNROLL), halves(out.shape[-1], COLUMNS)
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, depth)
    if depth < 2 * deep:
        rows = np.pad(rows, ((0, 0), (0, 2 * deep - depth)))
    length = block_of(len(flat), deep)
    blocks = -(-len(flat) // (2 * length))
    shares = min(wide // COLUMNS, max(1, -(-4 * threads // blocks)))
    _all(rows.reshape(-1), weight, bias, flat, deep, wide, length, shares, threads)
