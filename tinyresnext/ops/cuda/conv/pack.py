"""The weight of a convolution, laid out as the kernels read it.

`gemm` reads a matrix for each group, a row for each value that a position sees: `Columns`.
`grouped` reads four channels of 128 filters at a time: `Slabs`. The gradient of the input is a
convolution of ``dy`` with some of the taps in reverse order, input and output channels exchanged;
`Source` says where its weight lies in the weight of the forward convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda

from ..runtime.arrays import DeviceArray, upload
from ..runtime.kernel import Kernel, float32, floats, int32, ints, uint32
from ..runtime.machine import Launch, Machine
from ..words import shared
from .windows import Windows

BK = 16  # rows of a slice of `gemm`'s; a matrix has whole slices
SLAB = 128  # filters of `grouped`'s warps
SIDE = 32  # of the squares that are turned
LINES = 8  # of a square, at once
THREADS = SIDE * LINES

Room = Callable[[Machine, Sequence[int]], DeviceArray]  # `empty`, or `scratch` for one call


class Source(NamedTuple):
    """Where the values of a convolution's weight lie in memory.

    Filter o of group g, channel c of the group and tap t: ``g * s_group + o * s_filter + c *
    s_channel + taps[t]``.
    """

    taps: tuple[int, ...]
    s_group: int
    s_filter: int
    s_channel: int


class Columns(NamedTuple):
    """For each group a matrix of ``deep`` rows and ``wide`` columns, filled up with zeros."""

    data: DeviceArray
    deep: int
    wide: int


class Slabs(NamedTuple):
    """``[slab of 128 filters, four channels, tap, channel of the four, filter of the slab]``."""

    data: DeviceArray


def forward(win: Windows) -> Source:
    """Return where a forward convolution's weight lies: ``[filter, channel, tap]``."""
    taps = win.k_h * win.k_w
    return Source(tuple(range(taps)), win.width * win.depth, win.depth, taps)


def backward(win: Windows, rows: Sequence[int], columns: Sequence[int]) -> Source:
    """Return where the weight of the gradient of the input lies, for these taps of ``win``."""
    taps = tuple(i * win.k_w + j for i in rows for j in columns)
    return Source(taps, win.width * win.depth, win.k_h * win.k_w, win.depth)


def slices(depth: int) -> int:
    """Return how many slices of `BK` rows a depth has."""
    return -(-depth // BK)


# --- kernels --------------------------------------------------------------------------------------


@cache
def columns_kernel(TURN: bool) -> Kernel:
    """Return the kernel of `Columns`.

    A block copies a square of 32 rows and columns through shared memory: lines of threads load what
    lies side by side in the weight, a column of the square if ``TURN``, and store rows.
    """
    PITCH, SHARED = (
        SIDE + 1,
        SIDE * (SIDE + 1),
    )  # so that a row and a column of the square lie in different banks

    def run(
        weight, taps, out, count, channels, width, deep, wide, down, across,
        s_group, s_filter, s_channel,
    ):  # fmt: skip
        s = shared(SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        lane, line = int32(thread % SIDE), int32(thread // SIDE)
        square, right = uint32(block // uint32(across)), int32(block % uint32(across))
        group, below = int32(square // uint32(down)), int32(square % uint32(down))
        for i in range(0, SIDE, LINES):
            row, column = int32(line + i), int32(lane)
            if TURN:
                row, column = column, row
            at = int32(row * PITCH + column)
            row, column = int32(below * SIDE + row), int32(right * SIDE + column)
            tap, c = uint32(row) // uint32(channels), int32(uint32(row) % uint32(channels))
            value = float32(0)
            if tap < uint32(count) and column < width:
                value = weight[
                    int32(group * s_group + column * s_filter + c * s_channel + taps[int32(tap)])
                ]
            s[at] = value
        cuda.syncthreads()
        for i in range(0, SIDE, LINES):
            row, column = int32(below * SIDE + line + i), int32(right * SIDE + lane)
            if row < deep and column < wide:
                out[int32((group * deep + row) * wide + column)] = s[
                    int32((line + i) * PITCH + lane)
                ]

    name = f"pack_columns{'_turn' if TURN else ''}"
    return Kernel(name, run, (floats, ints, floats, *[int32] * 10), THREADS)


@cache
def slabs_kernel() -> Kernel:
    """Return the kernel of `Slabs`: a thread for each value."""

    def run(weight, taps, out, size, count, fours, filters, width, s_group, s_filter, s_channel):
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if i < size:
            row, lane = uint32(i) // uint32(SLAB), uint32(i) % uint32(SLAB)
            row, e = uint32(row) // uint32(4), uint32(row) % uint32(4)
            row, tap = uint32(row) // uint32(count), uint32(row) % uint32(count)
            slab, four = uint32(row) // uint32(fours), uint32(row) % uint32(fours)
            o, c = uint32(slab * uint32(SLAB) + lane), int32(four * uint32(4) + e)
            value = float32(0)
            if o < uint32(filters):
                group, o = int32(uint32(o) // uint32(width)), int32(uint32(o) % uint32(width))
                value = weight[
                    int32(group * s_group + o * s_filter + c * s_channel + taps[int32(tap)])
                ]
            out[i] = value

    return Kernel("pack_slabs", run, (floats, ints, floats, *[int32] * 8), THREADS)


# --- launchers ------------------------------------------------------------------------------------


def columns(
    weight: DeviceArray, source: Source, win: Windows, memory: Room
) -> tuple[Columns, list[Launch]]:
    """Return the matrices of a convolution, and the launches that fill them from ``weight``."""
    deep, wide = slices(win.depth) * BK, -(-win.width // 4) * 4
    down, across = -(-deep // SIDE), -(-wide // SIDE)
    made = Columns(memory(weight.machine, (win.groups, deep, wide)), deep, wide)
    numbers = (
        len(source.taps), win.narrow, win.width, deep, wide, down, across,
        source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    kernel = columns_kernel(source.s_channel < source.s_filter)
    arrays = (weight, _offsets(weight, source), made.data)
    return made, [Launch(kernel, win.groups * down * across, (*arrays, *numbers))]


def slabs(
    weight: DeviceArray, source: Source, win: Windows, memory: Room
) -> tuple[Slabs, list[Launch]]:
    """Return the slabs of a convolution, and the launches that fill them from ``weight``."""
    shape = (-(-win.c_out // SLAB), win.narrow // 4, len(source.taps), 4, SLAB)
    made = Slabs(memory(weight.machine, shape))
    size = made.data.size
    numbers = (
        size, len(source.taps), shape[1], win.c_out, win.width,
        source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    arrays = (weight, _offsets(weight, source), made.data)
    return made, [Launch(slabs_kernel(), -(-size // THREADS), (*arrays, *numbers))]


def _offsets(weight: DeviceArray, source: Source) -> DeviceArray:
    return upload(weight.machine, np.array(source.taps, np.int32))
