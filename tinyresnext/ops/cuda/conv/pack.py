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
from ..runtime.machine import Launch
from ..words import shared
from .windows import Windows

BK = 16  # rows of a slice of `gemm`'s; a matrix has whole slices
SLAB = 128  # filters of `grouped`'s warps
SIDE = 32  # filters whose weights a block copies
LINES = 8  # of 32 values that a block stores at once
THREADS = SIDE * LINES
QUARTERS = SLAB // SIDE
# Weights of a filter that a block copies for `Columns`, at most, and taps that are not divided.
MOST_VALUES, MOST_TAPS = 160, 64
COLUMNS_SHARED = SIDE * (MOST_VALUES + SIDE)
SLABS_SHARED = SIDE * (32 * 9 + SIDE)  # `grouped` takes up to 32 channels and nine taps

Room = Callable[..., DeviceArray]  # `empty`, or `scratch` for one call


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
    """``[slab of 128 filters, turn, tap, channel of the four, filter of the slab]``.

    In each turn a filter sees four channels of its group. The filters of a group begin with
    different fours, each four filters with the next: so what they read of an image at one time lies
    side by side. Filter o of its group sees the four ``(turn + o // 4) % fours``.
    """

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

    A block copies the weights of 32 filters of a group, for some channels and taps, through shared
    memory. Threads side by side load what lies side by side in the weight: the channels and taps of
    one filter after the other if ``TURN``, as the weight of a forward convolution lies, else the
    filters and taps of one channel after the other. They store rows of the matrix.
    """

    def run(
        weight, taps, out, count, channels, width, deep, wide, some_taps, some, pitch,
        down, beside, across, s_group, s_filter, s_channel,
    ):  # fmt: skip
        s = shared(COLUMNS_SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        lane, line = int32(thread % SIDE), int32(thread // SIDE)
        square, right = uint32(block // uint32(across)), int32(block % uint32(across))
        square, later = uint32(square // uint32(beside)), int32(square % uint32(beside))
        group, below = int32(square // uint32(down)), int32(square % uint32(down))
        first_tap, first = int32(later * some_taps), int32(below * some)
        size = int32(some * some_taps)
        filters = int32(width - right * SIDE)  # of these, how many there are
        filters = int32(SIDE) if filters > SIDE else filters
        inner = uint32(some if TURN else filters)
        for i in range(thread, filters * size, THREADS):
            tap = int32(uint32(i) % uint32(some_taps))
            rest = uint32(uint32(i) // uint32(some_taps))
            o, c = int32(rest // inner), int32(rest % inner)
            if not TURN:
                o, c = c, o
            at = int32(o * pitch + c * some_taps + tap)
            column, channel, tap = int32(right * SIDE + o), first + c, first_tap + tap
            value = float32(0)
            if tap < count and channel < channels:
                if not TURN:  # as the weight has them
                    tap = int32(taps[int32(count - 1 - tap)])
                start = group * s_group + column * s_filter + channel * s_channel
                value = weight[int32(start + tap)]
            s[at] = value
        cuda.syncthreads()
        column, rows = int32(right * SIDE + lane), int32(group * deep)
        if column < wide:
            for k in range(line, size, LINES):
                tap, c = int32(uint32(k) // uint32(some)), int32(uint32(k) % uint32(some))
                row = int32(first_tap + tap if TURN else count - 1 - first_tap - tap)
                row = int32(row * channels + first + c)
                if first_tap + tap < count and first + c < channels:
                    value = float32(0)
                    if lane < filters:
                        value = s[int32(lane * pitch + c * some_taps + tap)]
                    out[int32((rows + row) * wide + column)] = value
            if below == down - 1 and later == beside - 1:
                for row in range(count * channels + line, deep, LINES):
                    out[int32((rows + int32(row)) * wide + column)] = float32(0)

    name = f"pack_columns{'_turn' if TURN else ''}"
    return Kernel(name, run, (floats, ints, floats, *[int32] * 14), THREADS)


@cache
def slabs_kernel(TURN: bool) -> Kernel:
    """Return the kernel of `Slabs`.

    A block copies all weights of 32 filters through shared memory, as `columns_kernel` does; there
    the fours of channels are brought into the order of the turns.
    """
    THREADS, LINES = 1024, 1024 // SIDE

    def run(
        weight, taps, out, count, channels, filters, width, together, pitch,
        s_group, s_filter, s_channel,
    ):  # fmt: skip
        s = shared(SLABS_SHARED)
        thread, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        lane, line = int32(thread % SIDE), int32(thread // SIDE)
        size, fours = int32(channels * count), uint32(channels // 4)
        # A line of threads takes a filter after the other, or ``together`` filters of a channel.
        lines, length = int32(SIDE), size
        if not TURN:
            lines, length = int32(SIDE // together * channels), int32(together * count)
        for step in range(line, lines, LINES):
            for i in range(lane, length, SIDE):
                o, tap = uint32(step), uint32(i) % uint32(count)
                c = uint32(i) // uint32(count)
                if not TURN:
                    o, c = (
                        uint32(o // uint32(channels) * uint32(together) + c),
                        o % uint32(channels),
                    )
                at = int32(int32(o) * pitch)
                o = uint32(uint32(block * SIDE) + o)
                group, o_within = uint32(o) // uint32(width), uint32(o) % uint32(width)
                turn = uint32((c // uint32(4) + fours - o_within // uint32(4) % fours) % fours)
                at += int32((int32(turn) * 4 + int32(c % uint32(4))) * count + int32(tap))
                value = float32(0)
                if o < uint32(filters):
                    start = int32(group) * s_group + int32(o_within) * s_filter
                    tap = int32(tap if TURN else uint32(count - 1) - tap)  # as the weight has them
                    value = weight[int32(start + int32(c) * s_channel + taps[tap])]
                s[int32(at)] = value
        cuda.syncthreads()
        slab, quarter = int32(block // QUARTERS), int32(block % QUARTERS)
        for row in range(line, size, LINES):
            e, rest = uint32(row) % uint32(4), uint32(row) // uint32(4)
            turn, tap = uint32(rest) // uint32(count), uint32(rest) % uint32(count)
            if not TURN:
                tap = uint32(count - 1) - tap
            at = int32(lane * pitch + (int32(turn) * 4 + int32(e)) * count + int32(tap))
            out[int32((slab * size + int32(row)) * SLAB + quarter * SIDE + lane)] = s[at]

    name = f"pack_slabs{'_turn' if TURN else ''}"
    return Kernel(name, run, (floats, ints, floats, *[int32] * 9), THREADS)


# --- launchers ------------------------------------------------------------------------------------


def pitch(size: int, run: int) -> int:
    """Return how far the weights of two filters are apart in shared memory, at least ``size``.

    Threads side by side store ``run`` values of one filter and then those of the next; they load a
    value of 32 filters. With this remainder both are in different banks (if ``run`` is odd).
    """
    return size + ((run | 1) - size) % SIDE


def columns(
    weight: DeviceArray, source: Source, win: Windows, memory: Room
) -> tuple[Columns, list[Launch]]:
    """Return the matrices of a convolution, and the launches that fill them from ``weight``."""
    deep, wide, count = slices(win.depth) * BK, -(-win.width // 4) * 4, len(source.taps)
    some_taps = count if count <= MOST_TAPS else SIDE
    some = min(win.narrow, MOST_VALUES // some_taps)
    some = some if some < 8 else some // 8 * 8  # whole sectors
    down, beside, across = -(-win.narrow // some), -(-count // some_taps), -(-wide // SIDE)
    made = Columns(memory(weight.machine, (win.groups, deep, wide)), deep, wide)
    size, turn = some * some_taps, source.s_channel < source.s_filter
    numbers = (
        count, win.narrow, win.width, deep, wide, some_taps, some,
        pitch(size, size if turn else some_taps), down, beside, across,
        source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    kernel = columns_kernel(turn)
    arrays = (weight, _offsets(weight, source), made.data)
    return made, [Launch(kernel, win.groups * down * beside * across, (*arrays, *numbers))]


def slabs(
    weight: DeviceArray, source: Source, win: Windows, memory: Room
) -> tuple[Slabs, list[Launch]]:
    """Return the slabs of a convolution, and the launches that fill them from ``weight``."""
    count, many = len(source.taps), -(-win.c_out // SLAB)
    made = Slabs(memory(weight.machine, (many, win.narrow // 4, count, 4, SLAB)))
    size, turn = win.narrow * count, source.s_channel < source.s_filter
    numbers = (
        count, win.narrow, win.c_out, win.width, win.width if SIDE % win.width == 0 else 4,
        pitch(size, size if turn else count), source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    kernel = slabs_kernel(turn)
    arrays = (weight, _offsets(weight, source), made.data)
    return made, [Launch(kernel, many * QUARTERS, (*arrays, *numbers))]


def _offsets(weight: DeviceArray, source: Source) -> DeviceArray:
    return upload(weight.machine, np.array(source.taps, np.int32))
