"""Convolution: what each position sees, laid side by side (im2col), times the weight.

A task is a block of positions and some panels of filters. It first gathers what the positions see
into shelves, straight into the layout that the register tile reads (`gemm`); the block is small
enough to stay in the second cache while all the panels pass by. For a 1x1 convolution, nine tenths
of ResNeXt's work, gathering means copying one run of channels for each position; for the 7x7 of the
stem, seven runs of 21 values. Stride and padding only change where a run begins and which part of
it lies in the picture, so all of these are one mechanism. Groups are separate products with the
group's own channels; where groups are so narrow that a panel would be mostly empty, `grouped` does
better.

The epilogue (bias, residual, relu) is applied to sums that are still in registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import get_num_threads

from ... import shapes
from ...shapes import Pair, pair
from ..runtime.crew import Step, Work, chain, compiled, take
from ..runtime.kernel import kernel
from ..runtime.memory import Array, flat, result
from ..runtime.simd import aligned, copy, machine
from . import grouped
from .gemm import DEPTH, DEPTH_BITS, PITCH, UNROLL, VECTORS, multiply, panels

ROWS = 112  # most positions of a task: enough to use each panel often while it is in the cache
BLOCK = 120 * 1024  # most values of a task's shelves: 480 KiB, half of a second cache of 1 MiB
# channels from which on it pays to have the next block fetched early; with few, more is written
# than read
DEEP = 128


# --- kernels --------------------------------------------------------------------------------------


@kernel(inline="always")
def _shelve(x, s, a, a_at, k, count, rows):
    """Copy ``count`` values from ``x[s:]`` to depth ``k`` of the row that begins at ``a_at``."""
    end = k + count
    while k < end:
        place = k & (DEPTH - 1)
        some = min(end - k, DEPTH - place)
        copy(x, s, a, a_at + (k >> DEPTH_BITS) * rows * PITCH + place, some)
        s += some
        k += some


@kernel()
def _clear(a, a_at, k, count, rows):
    """Zeros at depth ``k`` of the row that begins at ``a_at``."""
    for q in range(k, k + count):
        a[a_at + (q >> DEPTH_BITS) * rows * PITCH + (q & (DEPTH - 1))] = 0


@kernel(inline="always")
def _see(x, g, c0, count, n, line, column, a, a_at, rows):
    """One row of the left matrix: what one position sees of ``count`` channels from ``c0``, as ``[k_h, k_w, count]``.

    Every run that is copied lies in line ``y`` of the picture between columns ``left + low`` and
    ``left + high``, and both are cut to the picture first.
    """
    left, k = column * g.s_w - g.p_w, 0
    top, run = line * g.s_h - g.p_h, g.k_w * count
    if (
        count == g.c_in
        and g.k_h * run <= DEPTH
        and 0 <= left <= g.w - g.k_w
        and 0 <= top <= g.h - g.k_h
    ):
        source = ((n * g.h + top) * g.w + left) * count
        for _ in range(
            g.k_h
        ):  # all inside, all in one shelf: the stem's positions, but for the border
            copy(x, source, a, a_at + k, run)
            source += g.w * count
            k += run
    for i in range(g.k_h if k == 0 else 0):
        y = line * g.s_h - g.p_h + i
        low, high = max(0, -left), min(g.k_w, g.w - left)
        if y < 0 or y >= g.h or low >= high:
            low, high = g.k_w, g.k_w
        if low > 0:
            _clear(a, a_at, k, low * count, rows)
        k += low * count
        source = ((n * g.h + y) * g.w + left + low) * g.c_in + c0
        if count == g.c_in:  # neighbouring columns follow each other, so they are one run
            _shelve(x, source, a, a_at, k, (high - low) * count, rows)
            k += (high - low) * count
        else:
            for _ in range(low, high):
                _shelve(x, source, a, a_at, k, count, rows)
                k += count
                source += g.c_in
        if high < g.k_w:
            _clear(a, a_at, k, (g.k_w - high) * count, rows)
            k += (g.k_w - high) * count
    if k & (UNROLL - 1):
        _clear(a, a_at, k, UNROLL - (k & (UNROLL - 1)), rows)


@kernel()
def _gather(x, g, c0, count, first, last, shelves, a):
    """im2col: rows ``first`` to ``last`` of the left matrix, tile after tile; a tile not full repeats its last row."""
    line, column = divmod(first, g.w_out)
    n, line = divmod(line, g.h_out)
    row, a_at = first, np.int64(0)
    pointwise = (
        g.k_h * g.k_w * g.s_h * g.s_w == 1 and g.p_h + g.p_w == 0 and count & (UNROLL - 1) == 0
    )
    while row < last:
        rows = 2 * g.half if last - row > g.half else g.half
        if pointwise:
            for r in range(row, row + rows):
                _shelve(
                    x, min(r, last - 1) * g.c_in + c0, a, a_at + (r - row) * PITCH, 0, count, rows
                )
        for r in range(rows if not pointwise else 0):
            _see(x, g, c0, count, n, line, column, a, a_at + r * PITCH, rows)
            if row + r + 1 < last:
                column += 1
                if column == g.w_out:
                    line, column = line + 1, np.int64(0)
                if line == g.h_out:
                    n, line = n + 1, np.int64(0)
        a_at += rows * shelves * PITCH
        row += rows


def _dense(x, weight, bias, residual, out, g, counters):
    """A thread's share. ``g``: panels of ``size`` filters; ``blocks`` of ``length`` positions; ``parts`` of the panels.

    A thread that gets several parts of the same block gathers it once. Where a block is one piece
    of the picture, the block that the thread will probably gather next comes into its cache while
    it multiplies with the first panel.
    """
    c_group, width = g.c_in // g.groups, g.c_out // g.groups
    depth = (g.k_h * g.k_w * c_group + UNROLL - 1) // UNROLL * UNROLL
    shelves, count = (depth + DEPTH - 1) // DEPTH, (width + g.size - 1) // g.size
    a, scratch = (
        aligned((g.length + 2 * g.half) * shelves * PITCH),
        aligned((2 * g.half + 1) * g.size),
    )
    floor, held = np.float32(0 if g.relu else -np.inf), np.int64(-1)
    in_a_row = (
        g.k_h * g.k_w * g.s_h * g.s_w == 1
        and g.p_h + g.p_w == 0
        and g.groups == g.parts == 1
        and depth >= DEEP
    )
    task = take(counters, 0)
    while task < g.tasks:
        soon = np.int64(-1)
        block, part = divmod(task, g.parts)
        group = block // g.blocks
        first = block % g.blocks * g.length
        last = min(first + g.length, g.n * g.h_out * g.w_out)
        if block != held:
            _gather(x, g, group * c_group, c_group, first, last, shelves, a)
            held = block
            if in_a_row:
                soon = (first + g.ahead) * g.c_in
        for panel in range(part * count // g.parts, (part + 1) * count // g.parts):
            f0, b_at = panel * g.size, (group * count + panel) * depth * g.size
            filters = min(g.size, width - f0)
            f0 += group * width
            multiply(
                a, first, last, g.half, weight, b_at, depth, g.size, bias, f0, filters, g.c_out, residual, g.add, floor,
                out, scratch, x, soon,
            )  # fmt: skip
            soon = np.int64(-1)
        task = take(counters, 0)
    take(counters, 1)


# --- launcher and public ops ----------------------------------------------------------------------


@functools.cache
def _kernel() -> Any:
    """Compiled when it is first needed."""
    return compiled(_dense)


def _cut(g: Work) -> Work:
    """Blocks that fit the second cache, and about eight tasks for each thread, so that they end at nearly the same time."""
    m = machine()
    size, depth = VECTORS * m.lanes, g.k_h * g.k_w * (g.c_in // g.groups)
    positions, count = g.n * g.h_out * g.w_out, -(-(g.c_out // g.groups) // size)
    most = max(2 * m.half, min(ROWS, BLOCK // (-(-depth // DEPTH) * PITCH)))
    blocks, threads = -(-positions // most), get_num_threads()
    blocks = -(-blocks // threads) * threads if blocks > 1 else blocks
    length = -(-positions // (blocks * m.half)) * m.half if blocks else 0
    blocks = -(-positions // length) if length else 0
    parts = min(count, max(1, -(-8 * threads // max(1, blocks * g.groups))))
    tasks, ahead = g.groups * blocks * parts, threads * length
    return g._replace(
        ahead=ahead, size=size, length=length, blocks=blocks, parts=parts, tasks=tasks
    )


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution's weight, laid out for this backend's kernels.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    data : flat float32
        For each group the panels of ``[k_h * k_w * c_in/groups, c_out/groups]``; or, where groups
        are narrow, as `grouped.pack` has them.
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
    flat("pack", "weight", weight)
    if grouped.suits(weight.shape, groups):
        return Packed(weight.shape, groups, grouped.pack(weight))
    filters = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 3, 4, 2, 1)
    return Packed(weight.shape, groups, panels(filters.reshape(groups, -1, filters.shape[-1])))


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
    """Gathered columns against panels of the weight, or strips of the picture where groups are narrow."""
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, residual=residual, out=out
    )
    y = result("conv2d", shape, out)
    if not isinstance(weight, Packed):
        weight = pack(weight, groups)
    bind_conv2d(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        groups=groups,
        residual=residual,
        relu=relu,
        out=y,
    )()
    return y


def bind_conv2d(
    x: Array,
    weight: Array | Packed,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Array | None = None,
    relu: bool = False,
    out: Array,
) -> Callable[[], None]:
    """All of a call that can be done beforehand: what it returns does the rest, on what the same arrays then hold.

    They must be writable and aligned, as `memory.empty` makes them: of others a copy would be taken
    here, once. With a weight that is packed it is a `Step`.
    """
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, residual=residual, out=out
    )
    if isinstance(weight, Packed):
        packed, refill = weight, None
    else:
        packed, refill = repacking(weight, lambda values: pack(values, groups))
    if packed.groups != groups:
        raise ValueError(
            f"conv2d: weight was packed for {packed.groups} groups, expected {groups}; use pack(weight, {groups})"
        )
    source, target = flat("conv2d", "x", x), result("conv2d", shape, out).reshape(-1)
    bias = np.zeros(shape[-1], np.float32) if bias is None else flat("conv2d", "bias", bias)
    other = target if residual is None else flat("conv2d", "residual", residual)
    step, border = pair("stride", stride, 1), pair("padding", padding, 0)
    g = geometry(x.shape, shape, weight.shape[2:], step, border, groups, residual is not None, relu)
    call = bind_work(source, packed, bias, other, target, g)
    return call if refill is None else chain([refill, call])


def repacking(
    weight: Array, layout: Callable[[Array], Packed]
) -> tuple[Packed, Callable[[], None]]:
    """Lay a weight out that will change: what is returned beside it copies the new values to their places.

    These are found by laying out numbers in place of the values, in two parts that float32 has room
    for; and a layout that is filled up somewhere has a zero there where the weight has nothing but
    ones.
    """
    packed, numbers = layout(weight), np.arange(weight.size).reshape(weight.shape)
    high, low = (layout((part).astype(np.float32)).data for part in np.divmod(numbers, 4096))
    there = layout(np.ones(weight.shape, np.float32)).data != 0
    index = np.where(there, high.astype(np.int64) * 4096 + low.astype(np.int64), -1)
    return packed, partial(_refill, flat("pack", "weight", weight), index, packed.data)


@kernel()
def _refill(weight, index, data):
    """Every value to its place."""
    for i in range(len(data)):
        data[i] = weight[index[i]] if index[i] >= 0 else np.float32(0)


def geometry(
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    add: bool,
    relu: bool,
) -> Work:
    """The numbers of a convolution, not yet cut into tasks."""
    m = machine()
    numbers = (*x_shape, *y_shape[1:], *kernel, *stride, *padding, groups, int(add), int(relu))
    return Work(*numbers, m.lanes, m.half, ahead=0, size=0, length=0, blocks=0, parts=0, tasks=0)


def bind_work(
    source: Array, packed: Packed, bias: Array, other: Array, target: Array, g: Work
) -> Step:
    """Cut a convolution into tasks: flat arrays, and the numbers that `geometry` gave."""
    if grouped.suits(packed.shape, g.groups):
        return Step(
            grouped.strips_kernel(packed.shape[1], g.k_w, g.s_w),
            source,
            packed.data,
            bias,
            other,
            target,
            grouped.cut(g),
        )
    return Step(_kernel(), source, packed.data, bias, other, target, _cut(g))
