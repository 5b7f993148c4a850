"""Convolution: a matrix product, and the two ways to see it as one.

* **1x1** (nine tenths of ResNeXt's work). Channels come last, so the picture already is a matrix ``[positions, c_in]``:
  its rows meet panels of the packed weight ``[c_in, c_out]``. Nothing is copied, and a stride only skips rows.
* **Everything else**, grouped or not. The weight already is a matrix ``[c_out, c_in/groups * k_h * k_w]``: its rows meet
  panels of columns, one for each output position, gathered from the picture (im2col). The columns of one panel are made
  inside the parallel loop, a few hundred kilobytes at most, and used while they are still in the L2 cache.

Both end in `gemm.multiply_add`; the epilogue (bias, residual, relu) is applied to sums that never left the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from .. import shapes
from ..shapes import Pair, pair
from .gemm import PANEL, ROWS, multiply_add, panels
from .memory import Array, flat, result

BLOCK = 64  # positions of a 1x1 convolution that share one pass over a panel: 512 KiB of picture at 2048 channels
FILTERS = 128  # filters that share one set of columns
DEPTH = 1024  # most rows of columns at a time: 256 KiB


# --- kernels ----------------------------------------------------------------------------------------------------------


class Geometry(NamedTuple):
    """The numbers of one convolution: whole numbers all, because that is the tuple Numba takes into a parallel loop."""

    n: int
    h: int
    w: int
    c_in: int
    h_out: int
    w_out: int
    c_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    groups: int
    add: int  # 1 when there is a residual
    relu: int


@njit
def _finish(value, bias, residual, at, g):
    """The epilogue for one value of the result, at flat index ``at``."""
    value += bias
    if g.add:
        value += residual[at]
    if g.relu and value < 0:  # not so for not-a-number, which stays
        value = np.float32(0)
    return value


@njit
def _position(index, g):
    """Which picture, line and column of the result a position is."""
    line, column = divmod(index, g.w_out)
    n, line = divmod(line, g.h_out)
    return n, line, column


@njit
def _pointwise_task(x, weight, bias, residual, out, g, first, last, panel):
    """Positions ``first`` to ``last`` of a 1x1 convolution, for the ``PANEL`` filters of one panel."""
    f0, end = panel * PANEL, last - first - 1
    starts = np.empty(last - first, np.int64)  # where in x the channels of each position begin
    for r in range(last - first):
        n, line, column = _position(first + r, g)
        starts[r] = ((n * g.h + line * g.s_h) * g.w + column * g.s_w) * g.c_in
    sums = np.empty(ROWS * PANEL, np.float32)
    for r in range(0, last - first, ROWS):
        for j in range(ROWS * PANEL):
            sums[j] = 0
        r1, r2, r3 = min(r + 1, end), min(r + 2, end), min(r + 3, end)  # the last one again where there are no more
        multiply_add(x, starts[r], starts[r1], starts[r2], starts[r3], g.c_in, weight[f0 * g.c_in :], sums)
        for i in range(min(ROWS, last - first - r)):
            at = (first + r + i) * g.c_out + f0
            for j in range(min(PANEL, g.c_out - f0)):
                out[at + j] = _finish(sums[i * PANEL + j], bias[f0 + j], residual, at + j, g)


@njit(parallel=True)
def _pointwise(x, weight, bias, residual, out, g):
    """1x1: every block of positions with every panel. Blocks are equally long, so that threads end together."""
    positions = g.n * g.h_out * g.w_out
    blocks = (positions + BLOCK - 1) // BLOCK
    length = (positions + blocks * ROWS - 1) // (blocks * ROWS) * ROWS
    count = (g.c_out + PANEL - 1) // PANEL
    for task in prange(blocks * count):
        block, panel = divmod(np.int64(task), count)  # prange counts unsigned; mixed with signed it would be float64
        _pointwise_task(
            x, weight, bias, residual, out, g, min(block * length, positions), min((block + 1) * length, positions), panel
        )


@njit
def _corners(g, first, last):
    """For each position, where its window begins: the picture's place in x, and a line and column (maybe outside)."""
    pictures, tops, lefts = np.empty((3, last - first), np.int64)
    for p in range(last - first):
        n, line, column = _position(first + p, g)
        pictures[p], tops[p], lefts[p] = n * g.h * g.w, line * g.s_h - g.p_h, column * g.s_w - g.p_w
    return pictures, tops, lefts


@njit
def _gather(x, g, corners, c0, c1, columns):
    """im2col for one panel: ``columns[c, i, j, p]`` is what position ``p`` sees of channel ``c0 + c`` at tap (i, j)."""
    pictures, tops, lefts = corners
    starts = np.empty(len(tops), np.int64)
    for i in range(g.k_h):
        for j in range(g.k_w):
            for p in range(len(tops)):
                y, z = tops[p] + i, lefts[p] + j
                inside = (y >= 0) & (y < g.h) & (z >= 0) & (z < g.w)
                starts[p] = (pictures[p] + y * g.w + z) * g.c_in + c0 if inside else -1
            for c in range(c1 - c0):
                row = columns[((c * g.k_h + i) * g.k_w + j) * PANEL :]
                for p in range(len(tops)):
                    row[p] = x[starts[p] + c] if starts[p] >= 0 else np.float32(0)


@njit
def _columns_task(x, weight, bias, residual, out, g, first, last, f0, f1):
    """Positions ``first`` to ``last``, at most ``PANEL``, for the filters ``f0`` to ``f1`` of one group."""
    taps, c_group = g.k_h * g.k_w, g.c_in // g.groups
    c0 = f0 // (g.c_out // g.groups) * c_group
    step = max(1, min(c_group, DEPTH // max(1, taps)))  # channels at a time
    columns = np.zeros(step * taps * PANEL, np.float32)
    sums = np.zeros((f1 - f0 + ROWS - 1) // ROWS * ROWS * PANEL, np.float32)
    corners = _corners(g, first, last)
    for c in range(0, c_group, step):
        count = min(step, c_group - c)
        _gather(x, g, corners, c0 + c, c0 + c + count, columns)
        for f in range(f0, f1, ROWS):
            f_1, f_2, f_3 = min(f + 1, f1 - 1), min(f + 2, f1 - 1), min(f + 3, f1 - 1)
            r0, r1, r2, r3 = f * c_group + c, f_1 * c_group + c, f_2 * c_group + c, f_3 * c_group + c
            tile = sums[(f - f0) * PANEL : (f - f0 + ROWS) * PANEL]
            multiply_add(weight, r0 * taps, r1 * taps, r2 * taps, r3 * taps, count * taps, columns, tile)
    for p in range(last - first):
        at = (first + p) * g.c_out
        for f in range(f0, f1):
            out[at + f] = _finish(sums[(f - f0) * PANEL + p], bias[f], residual, at + f, g)


@njit(parallel=True)
def _columns(x, weight, bias, residual, out, g):
    """Any kernel: every panel of positions with every group, and wide groups in several parts."""
    positions, width = g.n * g.h_out * g.w_out, g.c_out // g.groups
    count = (positions + PANEL - 1) // PANEL
    parts = (width + FILTERS - 1) // FILTERS
    for task in prange(count * g.groups * parts):
        panel, slice_ = divmod(np.int64(task), g.groups * parts)
        group, part = divmod(slice_, parts)
        f0, f1 = group * width + part * FILTERS, group * width + min((part + 1) * FILTERS, width)
        _columns_task(x, weight, bias, residual, out, g, panel * PANEL, min((panel + 1) * PANEL, positions), f0, f1)


# --- launcher and public ops ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution's weight, laid out for this backend's kernels.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    data : flat float32
        Panels of ``[c_in, c_out]`` for a dense 1x1 convolution, otherwise the rows ``[c_out, c_in/groups * k_h * k_w]``.
    """

    shape: tuple[int, ...]
    groups: int
    data: Array


def pack(weight: Array, groups: int) -> Packed:
    """Lay a weight out once, for many calls of `conv2d`.

    Parameters
    ----------
    weight : [c_out, c_in / groups, k_h, k_w]
    groups : int
    """
    rows = flat("pack", "weight", weight)
    if _is_pointwise(weight.shape, groups):
        return Packed(weight.shape, groups, panels(weight[:, :, 0, 0].T))
    return Packed(weight.shape, groups, rows)


def conv2d(
    x: Array,
    weight: Array | Packed,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Array | None = None,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Rows of the picture against panels of the weight (1x1), or rows of the weight against gathered columns."""
    shape = shapes.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups, residual=residual, out=out)
    (s_h, s_w), (p_h, p_w) = pair("stride", stride, 1), pair("padding", padding, 0)
    if not isinstance(weight, Packed):
        weight = pack(weight, groups)
    if weight.groups != groups:
        raise ValueError(f"conv2d: weight was packed for {weight.groups} groups, expected {groups}; use pack(weight, {groups})")
    y, pointwise = result("conv2d", shape, out), _is_pointwise(weight.shape, groups)
    source = flat("conv2d", "x", x)
    bias = np.zeros(shape[-1], np.float32) if bias is None else flat("conv2d", "bias", bias)
    other = y.reshape(-1) if residual is None else flat("conv2d", "residual", residual)
    if pointwise and (p_h or p_w):  # rows of zeros around a 1x1: nobody does this, so it may cost a copy
        x = np.pad(x, ((0, 0), (p_h, p_h), (p_w, p_w), (0, 0)))
        source, p_h, p_w = x.reshape(-1), 0, 0
    g = Geometry(*x.shape, *shape[1:], *weight.shape[2:], s_h, s_w, p_h, p_w, groups, int(residual is not None), int(relu))
    if y.size:
        (_pointwise if pointwise else _columns)(source, weight.data, bias, other, y.reshape(-1), g)
    return y


def _is_pointwise(shape: tuple[int, ...], groups: int) -> bool:
    """Whether the picture itself is the left matrix."""
    return groups == 1 and shape[2:] == (1, 1)
