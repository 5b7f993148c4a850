"""The weight of a convolution, laid out as the kernels read it.

`gemm` reads a matrix for each group, a row for each value that a position sees: `Columns`.
`grouped` reads four channels of 128 filters at a time: `Slabs`. The gradient of the input is a
convolution of ``dy`` with the taps in reverse order, input and output channels exchanged; with a
stride it is several, each with some of the taps. `Source` says where their weights lie in the
weight of the forward convolution, which is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import gcd, lcm
from typing import NamedTuple

import numpy as np
from numba import cuda

from ..runtime.arrays import DeviceArray, upload, view
from ..runtime.kernel import Kernel, float32, floats, int32, ints, uint32
from ..runtime.machine import Launch
from ..words import shared
from ..words.whole import quotient
from .windows import SECTOR, Windows, beside, whole

BK = 16  # rows of a slice of `gemm`'s; a matrix has whole slices
RUN = 4  # channels that `gemm` copies at once
SLAB = 128  # filters of `grouped`'s warps
SIDE = 32  # filters whose weights a block copies
LINES = 8  # of 32 values that a block stores at once
THREADS = SIDE * LINES
QUARTERS = SLAB // SIDE
# Weights of a filter that a block copies for `Columns`, at most, and taps that are not divided.
MOST_VALUES, MOST_TAPS = 160, 64
COLUMNS_SHARED = (SIDE + 1) * MOST_VALUES  # with the words that are left free
SLABS_SHARED = SIDE * (32 * 9 + 1)  # `grouped` takes up to 32 channels and nine taps

Room = Callable[..., DeviceArray]  # `empty`, or `scratch` for one call


class Source(NamedTuple):
    """Where the values of a convolution's weight lie, and what is made of them.

    Filter o of group g, channel c of the group and tap t lie at ``g * s_group + o * s_filter + c *
    s_channel + t``. Each tap is a tap of one of ``kinds`` convolutions, or of none.

    Attributes
    ----------
    kinds : tuple of tuple of int
        For each convolution the taps of the weight that it has, in its order.
    taps, channels : int
        Of the weight, all taps of a filter and channel, and the channels of a group.
    s_group, s_filter, s_channel : int
    """

    kinds: tuple[tuple[int, ...], ...]
    taps: int
    channels: int
    s_group: int
    s_filter: int
    s_channel: int

    @property
    def turn(self) -> bool:
        """Return whether the channels of a filter lie side by side, and not the filters."""
        return self.s_channel < self.s_filter


class Columns(NamedTuple):
    """For each group a matrix of ``wide`` columns, filled up with zeros, ``deep`` rows apart.

    If ``line`` is not 0, lines of the kernel are filled up to so many taps (`windows.line_of`).
    """

    data: DeviceArray
    deep: int
    wide: int
    line: int = 0


class Slabs(NamedTuple):
    """``[slab of 128 filters, turn, tap, channel of the four, filter of the slab]``.

    A turn begins ``apart`` values behind the turn before. In each turn a filter sees four channels
    of its group. The filters of a group begin with different fours, each four filters with the
    next: so what they read of an image at one time lies side by side. Filter o of its group sees
    the four ``(turn + o // 4) % fours``.
    """

    data: DeviceArray
    apart: int


def forward(win: Windows) -> Source:
    """Return where a forward convolution's weight lies: ``[filter, channel, tap]``."""
    taps = win.k_h * win.k_w
    return Source((tuple(range(taps)),), taps, win.narrow, win.width * win.depth, win.depth, taps)


def backward(win: Windows, kinds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Source:
    """Return where the weights of the gradient of the input lie, for these rows and columns."""
    taps = win.k_h * win.k_w
    each = tuple(tuple(i * win.k_w + j for i in rows for j in columns) for rows, columns in kinds)
    return Source(each, taps, win.width, win.width * win.depth, taps, win.depth)


def slices(depth: int) -> int:
    """Return how many slices of `BK` rows a depth has."""
    return -(-depth // BK)


# --- kernels --------------------------------------------------------------------------------------


@cache
def columns_kernel(TURN: bool) -> Kernel:
    """Return the kernel of `Columns`.

    A block copies the weights of 32 filters of a group, for some channels and taps, through shared
    memory. Threads side by side load what lies side by side in the weight, a *line*: the channels
    and taps of one filter if ``TURN``, as in a forward convolution, else the filters and taps of
    one channel. Where lines do not follow each other, threads begin before each, at a whole sector.
    They store rows of the matrices. ``rows`` says where the rows of each tap begin, below zero for
    none, and then which rows are to be zeros. Lines follow each other in shared memory. If filters
    are an even number of words apart there, they lie in few banks, so a word is left free wherever
    they come back to the first.
    """

    def run(
        weight, rows, out, count, channels, filled, width, deep, wide, empty, some_taps, some,
        down, beside, across, s_group, s_filter, s_channel,
    ):  # fmt: skip
        s = shared(COLUMNS_SHARED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        lane, line = int32(thread % SIDE), int32(thread // SIDE)
        square, right = uint32(block // uint32(across)), int32(block % uint32(across))
        square, later = uint32(square // uint32(beside)), int32(square % uint32(beside))
        group, below = int32(square // uint32(down)), int32(square % uint32(down))
        first_tap, first = int32(later * some_taps), int32(below * some)
        filters = int32(width - right * SIDE) if width - right * SIDE < SIDE else int32(SIDE)
        here = int32(channels - first) if channels - first < some else int32(some)
        here = int32(0) if here < 0 else here  # channels
        start = int32(group * s_group + right * SIDE * s_filter + first * s_channel + first_tap)
        lines, length, s_line, s_within = filters, int32(here * some_taps), s_filter, s_channel
        apart, follow = length, down * beside == 1
        if not TURN:
            lines, length, s_line, s_within = here, int32(filters * some_taps), s_channel, s_filter
            apart, follow = int32(some_taps), across * beside == 1
        low = int32(apart & int32(-apart))  # filters are as far apart as an odd number times this
        many = quotient(int32(SIDE), low) if low > 0 and low < SIDE else int32(1)
        pitch = length if TURN else int32(length + quotient(filters, many))  # of a line
        span, before = int32(length), int32(uint32(start) % uint32(SECTOR))
        if not follow:
            span, before = int32((length + (SECTOR + SIDE - 2)) & -SIDE), int32(0)
        for i in range(thread - before, lines * span, THREADS):
            one = quotient(int32(i if i > 0 else 0), span)
            of, k = int32(start + int32(one * s_line)), int32(int32(i) - int32(one * span))
            if not follow:
                k = int32(k - int32(uint32(of) % uint32(SECTOR)))
            within = quotient(int32(k if k > 0 else 0), some_taps)
            tap = int32(k - int32(within * some_taps))
            if k >= 0 and k < length and first_tap + tap < count:
                to = int32(int32(one * pitch) + quotient(one if TURN else within, many))
                s[int32(to + k)] = weight[int32(of + int32(int32(within * s_within) + tap))]
        cuda.syncthreads()
        column, top = int32(right * SIDE + lane), int32(group * deep)
        mine = int32(int32(lane * apart) + quotient(lane, many))
        step = int32(some_taps) if TURN else pitch
        if column < wide:
            for k in range(line, some * some_taps, LINES):
                tap, c = int32(uint32(k) // uint32(some)), int32(uint32(k) % uint32(some))
                if first_tap + tap < count and first + c < filled:
                    row, value = int32(rows[int32(first_tap + tap)]), float32(0)
                    if lane < filters and c < here:
                        value = s[int32(mine + int32(int32(c * step) + tap))]
                    if row >= 0:
                        out[int32((top + row + first + c) * wide + column)] = value
            if below == down - 1 and later == beside - 1:
                for k in range(count + line, count + empty, LINES):
                    out[int32((top + rows[int32(k)]) * wide + column)] = float32(0)

    parameters = (floats, ints, floats, *[int32] * 15)
    return Kernel(f"pack_columns{'_turn' if TURN else ''}", run, parameters, THREADS)


@cache
def slabs_kernel(TURN: bool) -> Kernel:
    """Return the kernel of `Slabs`.

    A block copies all weights of 32 filters to shared memory, line by line as they lie: the
    channels and taps of a filter if ``TURN``, else the taps of ``together`` filters for a channel.
    Then a warp loads a channel and tap of all. If ``TURN``, filters are an odd number of words
    apart, and each begins with its first turn. Else channels are a multiple of 32 words apart, and
    a word is left free wherever filters come back to the first bank.
    """
    THREADS, LINES = 1024, 1024 // SIDE

    def run(
        weight, places, out, count, taps, channels, filters, width, together, pitch, period,
        s_group, s_filter, s_channel,
    ):  # fmt: skip
        s = shared(SLABS_SHARED)
        thread, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        lane, line = int32(thread % SIDE), int32(thread // SIDE)
        lines, length, fours = int32(SIDE), int32(channels * count), uint32(channels // 4)
        if not TURN:
            lines, length = int32(SIDE // together * channels), int32(together * count)
        for step in range(line, lines, LINES):
            o, c = uint32(step), uint32(0)
            if not TURN:
                c = uint32(o % uint32(channels))
                o = uint32(o // uint32(channels) * uint32(together))
            at, before = int32(int32(c) * pitch), int32(-int32(o) * count)
            o = uint32(uint32(block * SIDE) + o)
            if TURN:
                at = int32(int32(step) * pitch)
                before = int32(o % uint32(width) // uint32(4) % fours) * int32(4 * count)
            start = int32(o // uint32(width)) * s_group + int32(o % uint32(width)) * s_filter
            start = int32(start + int32(c) * s_channel)
            for i in range(lane, length, SIDE):
                to, value = int32(int32(i) - before), float32(0)
                if o < uint32(filters):
                    value = weight[int32(start + int32(i))]
                to = int32(to + length) if to < 0 else int32(to + quotient(to, period))
                s[int32(at + to)] = value
        cuda.syncthreads()
        slab, quarter = int32(block // QUARTERS), int32(block % QUARTERS)
        within = uint32(uint32(block * SIDE + lane) % uint32(width)) // uint32(4)
        for step in range(line, channels * count, LINES):
            row, e = uint32(step) // uint32(4), int32(uint32(step) % uint32(4))
            turn, tap = uint32(row) // uint32(count), int32(uint32(row) % uint32(count))
            if TURN:
                at = int32(lane * pitch + (int32(turn) * 4 + e) * count + tap)
            else:
                c, at = int32((turn + within) % fours) * 4 + e, int32(lane * count + tap)
                at = int32(c * pitch + at + quotient(at, period))
            place = int32(places[tap])
            if place >= 0:
                row = int32(((slab * int32(fours) + int32(turn)) * taps + place) * 4 + e)
                out[int32(row * SLAB + quarter * SIDE + lane)] = s[at]

    parameters = (floats, ints, floats, *[int32] * 11)
    return Kernel(f"pack_slabs{'_turn' if TURN else ''}", run, parameters, THREADS)


# --- launchers ------------------------------------------------------------------------------------


def columns(
    weight: DeviceArray, source: Source, win: Windows, memory: Room, run: int = RUN
) -> tuple[list[Columns], list[Launch]]:
    """Return the matrices of each kind of convolution, and the launches that fill them.

    Their groups have the channels of `windows.filled`.
    """
    filled, wide = whole(source.channels, win.groups, run), beside(win.width, win.groups)
    some_taps = count if (count := source.taps) <= MOST_TAPS else SIDE
    some = min(filled, MOST_VALUES // some_taps)
    some = some if some < 8 else some // 8 * 8  # whole sectors
    down, later, across = -(-filled // some), -(-count // some_taps), -(-wide // SIDE)
    rows, begins, ends = [-1] * count, [], 0
    for taps in source.kinds:
        begins.append(ends)
        for place, tap in enumerate(taps):
            rows[tap] = ends + place * filled
        used = ends + len(taps) * filled
        ends += slices(len(taps) * filled) * BK
        rows += range(used, ends)
    made = memory(weight.machine, (win.groups, ends, wide))
    numbers = (
        count, source.channels, filled, win.width, ends, wide, len(rows) - count, some_taps, some,
        down, later, across, source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    blocks = win.groups * down * later * across
    arrays = (weight, upload(weight.machine, np.array(rows, np.int32)), made)
    each = [Columns(view(made, (made.size - b * wide,), b * wide), ends, wide) for b in begins]
    return each, [Launch(columns_kernel(source.turn), blocks, (*arrays, *numbers))]


def slabs(
    weight: DeviceArray, source: Source, win: Windows, memory: Room
) -> tuple[list[Slabs], list[Launch]]:
    """Return the slabs of each kind of convolution, and the launches that fill them."""
    many, narrow, count = -(-win.c_out // SLAB), source.channels, source.taps
    order = [tap for taps in source.kinds for tap in taps]
    places = [order.index(tap) if tap in order else -1 for tap in range(count)]
    together, apart = gcd(win.width, SIDE), len(order) * RUN * SLAB
    made = memory(weight.machine, (many, narrow // RUN, apart))
    turned, other = (narrow * count | 1, SLABS_SHARED), (SIDE * (count | 1), lcm(count, SIDE))
    pitch, period = turned if source.turn else other  # turned, no word is left free
    numbers = (
        count, len(order), narrow, win.c_out, win.width, together, pitch, period,
        source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    arrays = (weight, upload(weight.machine, np.array(places, np.int32)), made)
    starts = np.cumsum([0, *(len(taps) * RUN * SLAB for taps in source.kinds)]).tolist()[:-1]
    each = [Slabs(view(made, (made.size - at,), at), apart) for at in starts]
    return each, [Launch(slabs_kernel(source.turn), many * QUARTERS, (*arrays, *numbers))]
