"""Sums of what several blocks have computed, in a fixed order: the same bits in every run.

A kernel that splits a long sum writes the sums of each part one after the other, ``[part, ...]``;
these kernels add the parts from first to last, and put the totals where they belong.
"""

from __future__ import annotations

from functools import cache
from math import lcm
from typing import Any

import numpy as np
from numba import cuda

from ..elementwise import widened
from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, ending, float32, floats, halves, int32, pointer, uint32
from ..runtime.machine import Launch
from ..words import get, put, shared
from ..words.whole import quotient
from .pack import LINES, MOST_TAPS, QUARTERS, RUN, SIDE, SLAB, SLABS_SHARED
from .windows import SECTOR, Windows, filled, rounded, turned

THREADS = 256
CHANNELS = 32  # that a block of the sums over positions adds up
DEEP = 64  # rows for each of its threads, at least
CHUNK = 1024  # values of a filter that are turned at once, at most
TURNED = 2 * CHUNK  # with what keeps them in different banks


# --- kernels --------------------------------------------------------------------------------------


@cache
def rows_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of the parts of a convolution's result, with its bias, residual, ReLU.

    A row of the sums is a group of filters at a position. What only fills it up is added up too,
    and left out: a block brings `THREADS` values of the result together in shared memory. It loads
    from a whole sector on, and the bias of groups is filled up as well: ``across`` values are a
    position's. The ReLU in float16 is that of `words.floor4_or_nan`.
    """
    NARROW = kind == halves

    def run(sums, bias, residual, y, size, count, across, width, wide, parts, shift, add, floor):
        s = shared(THREADS)
        thread, first = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x * int32(THREADS))
        last = int32(first + int32(THREADS)) if first + int32(THREADS) < count else int32(count)
        filling = int32(wide - width)
        start = int32(first + int32(quotient(first, width) * filling))
        end = int32(last + int32(quotient(last, width) * filling))
        begins = int32(start - int32(uint32(start) % uint32(SECTOR)))
        for i in range(int32(begins + thread), end, THREADS):
            total, at = float32(0), int32(i)
            for _ in range(parts):
                total += sums[at]
                at = int32(at + size)
            row = quotient(int32(i), wide)
            within, into = int32(int32(i) - int32(row * wide)), int32(int32(i) - first)
            into = int32(into - int32(row * filling))
            if shift and (within < width or wide < across):
                total += bias[int32(int32(i) - int32(quotient(int32(i), across) * across))]
            if within < width and into >= int32(0):
                s[into] = total
        cuda.syncthreads()
        at = int32(first + thread)
        if at < last:
            total = s[thread]
            if add:
                total += get(residual, at)
            if total < floor:
                total = total - total + floor if NARROW else float32(floor)
            put(y, at, total)

    parameters = (floats, floats, kind, kind, *[int32] * 8, float32)
    return Kernel(f"fold_rows{ending(kind)}", run, parameters, THREADS)


@cache
def sums_kernel() -> Kernel:
    """Return the kernel of parts whose totals lie as they do, each part ``apart`` from the next."""

    def run(sums, out, size, apart, parts, add):
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if i < size:
            total, at = float32(0), int32(i)
            for _ in range(parts):
                total += sums[at]
                at = int32(at + apart)
            out[i] = out[i] + total if add else total

    return Kernel("fold_sums", run, (floats, floats, *[int32] * 4), THREADS)


@cache
def weight_kernel() -> Kernel:
    """Return the kernel of the parts of a weight's gradient.

    They are ``[part, filter, tap, channel]``, as positions see them, with filters and channels that
    only fill up a group, and rows of whole sectors; a weight is ``[filter, channel, tap]``. A block
    turns some channels and taps of a filter in shared memory, or all of ``many`` filters. A warp
    loads from ``length`` values that lie side by side; those that store begin at a whole sector.
    """

    def run(
        sums, out, size, deep, taps, channels, seen, filters, width, wide, many, some_taps, some,
        length, lanes, pitch, period, free, down, beside, parts, add,
    ):  # fmt: skip
        s = shared(TURNED)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        square, later = uint32(block // uint32(beside)), int32(block % uint32(beside))
        o, below = int32(square // uint32(down)) * many, int32(square % uint32(down))
        first_tap, first = int32(later * some_taps), int32(below * some)
        here = int32(filters - o) if filters - o < many else int32(many)
        left = int32(channels - first) if channels - first < some else int32(some)
        each = quotient(int32(some * some_taps + length - 1), length)  # of a filter
        begins = int32(int32(int32(o * channels) + first) * taps + first_tap)
        before = int32(uint32(begins) % uint32(SECTOR))
        for i in range(thread, here * each * lanes, THREADS):
            turn = quotient(int32(i), lanes)
            one, k = quotient(turn, each), int32(int32(i) - int32(turn * lanes))
            within, up = int32(k + int32(int32(turn - int32(one * each)) * length)), int32(o + one)
            tap, c = quotient(within, some), int32(uint32(within) % uint32(some))
            if k < length and first_tap + tap < taps and first + c < seen:
                row = int32(up + int32(quotient(up, width) * int32(wide - width)))
                at = int32(int32(row * deep) + int32(int32(first_tap + tap) * seen))
                at, total = int32(at + int32(first + c)), float32(0)
                for _ in range(parts):
                    total += sums[at]
                    at = int32(at + size)
                if c < left:
                    to = int32(before + int32(int32(int32(one * left) + c) * pitch) + tap)
                    s[int32(to + int32(quotient(to, period) * free))] = total
        cuda.syncthreads()
        for i in range(thread - before, here * left * some_taps, THREADS):
            line = quotient(int32(i if i > 0 else 0), some_taps)  # a filter and a channel
            tap = int32(int32(i) - int32(line * some_taps))
            if i >= 0 and first_tap + tap < taps:
                into = int32(begins + int32(int32(line * taps) + tap))
                of = int32(before + int32(line * pitch) + tap)
                total = s[int32(of + int32(quotient(of, period) * free))]
                out[into] = out[into] + total if add else total

    return Kernel("fold_weight", run, (floats, floats, *[int32] * 20), THREADS)


@cache
def slabs_kernel() -> Kernel:
    """Return the kernel of the parts of a weight's gradient that lie as `pack.Slabs`.

    A block adds those of 32 filters, and brings them into the weight's order in shared memory.
    """
    THREADS, LINES = 1024, 1024 // SIDE

    def run(sums, out, apart, taps, narrow, width, c_out, pitch, parts, add):
        s = shared(SLABS_SHARED)
        thread, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        lane, line = int32(thread % SIDE), int32(thread // SIDE)
        slab, quarter = int32(block // QUARTERS), int32(block % QUARTERS)
        size, fours = int32(narrow * taps), uint32(narrow // 4)
        for row in range(line, size, LINES):
            at = int32((slab * size + int32(row)) * SLAB + quarter * SIDE + lane)
            total = float32(0)
            for _ in range(parts):
                total += sums[at]
                at = int32(at + apart)
            e, rest = uint32(row) % uint32(4), uint32(row) // uint32(4)
            turn, tap = uint32(rest) // uint32(taps), uint32(rest) % uint32(taps)
            s[int32(lane * pitch + (int32(turn) * 4 + int32(e)) * taps + int32(tap))] = total
        cuda.syncthreads()
        for step in range(line, SIDE, LINES):  # a line of threads stores a filter
            o = int32(block * SIDE + int32(step))
            begins = uint32(uint32(o) % uint32(width) // uint32(4) % fours)
            if o < c_out:
                for i in range(lane, size, SIDE):
                    c, tap = uint32(i) // uint32(taps), uint32(i) % uint32(taps)
                    turn = uint32((c // uint32(4) + fours - begins) % fours)
                    row = int32((int32(turn) * 4 + int32(c % uint32(4))) * taps + int32(tap))
                    into, total = int32(o * size + int32(i)), s[int32(int32(step) * pitch + row)]
                    out[into] = out[into] + total if add else total

    return Kernel("fold_slabs", run, (floats, floats, *[int32] * 8), THREADS)


@cache
def channels_kernel() -> Kernel:
    """Return the kernel of the sums over rows ``[rows, channels]``, ``[part, channels]``.

    A block adds up `CHANNELS` channels of a part of the rows: thread t those of channel ``t % 32``
    in every eighth row; then the eight are added in order.
    """
    LINES = THREADS // CHANNELS

    def run(x, sums, rows, channels, across, length):
        s = shared(THREADS)
        thread, block = int32(cuda.threadIdx.x), uint32(cuda.blockIdx.x)
        part, slab = int32(block // uint32(across)), int32(block % uint32(across))
        lane, line = int32(thread % CHANNELS), int32(thread // CHANNELS)
        channel = int32(slab * CHANNELS + lane)
        row, total = int32(part * length + line), float32(0)
        end = int32(part * length + length) if part * length + length < rows else int32(rows)
        if channel < channels:
            while row < end:
                total += x[int32(row * channels + channel)]
                row = int32(row + LINES)
        s[thread] = total
        cuda.syncthreads()
        if line == 0 and channel < channels:
            for i in range(1, LINES):
                total += s[int32(thread + i * CHANNELS)]
            sums[int32(part * channels + channel)] = total

    return Kernel("fold_channels", run, (floats, floats, *[int32] * 4), THREADS)


# --- launchers ------------------------------------------------------------------------------------


def rows(
    sums: DeviceArray,
    bias: DeviceArray | None,
    residual: DeviceArray | None,
    out: DeviceArray,
    win: Windows,
    relu: bool,
) -> list[Launch]:
    """Return the launches that add ``sums [part, position, filter]`` and end a convolution.

    The groups of ``win``, and so of the sums, may have more filters than those of ``out``.
    """
    parts, width, launches = sums.shape[0], out.shape[-1] // win.groups, []
    if bias is not None and win.groups > 1 and width < win.width:
        narrow, bias = bias, scratch(out.machine, (win.groups * win.width,))
        launches.append(widened(narrow, bias, width, win.width))
    shift, add, floor = int(bias is not None), int(residual is not None), 0.0 if relu else -np.inf
    across = win.groups * win.width
    numbers = (sums.size // parts, out.size, across, width, win.width, parts, shift, add, floor)
    arrays, blocks = (sums, bias, residual, out), -(-out.size // THREADS)
    return [*launches, Launch(rows_kernel(pointer(out)), blocks, (*arrays, *numbers))]


def weight(sums: DeviceArray, win: Windows, seen: Windows, out: DeviceArray, more: bool) -> Launch:
    """Return the launch that adds ``sums [part, filter, (tap, channel)]`` to a weight's gradient.

    The groups of ``seen``, and so of the sums, may have more filters and channels than those of
    ``win``. Each row of ``sums`` is whole sectors.
    """
    (parts, filters, deep), taps, channels = sums.shape, win.k_h * win.k_w, win.narrow
    if taps == 1 and (filters, deep) == (win.c_out, channels):
        return in_place(sums, parts, out, more)
    some_taps = taps if taps <= MOST_TAPS else SIDE
    some = min(seen.narrow, CHUNK // some_taps)
    some = some if some < 8 else some // 8 * 8  # whole sectors
    down, beside = -(-seen.narrow // some), -(-taps // some_taps)
    # Channels of one tap lie in different banks: for an even number of taps, words are left free
    # wherever they come back to the first. Where channels are few, a warp takes more taps.
    length, pitch, free, gaps = some, some_taps, 1, 2
    if some < LINES:
        at_once, pitch = turned(min(channels, some), some_taps)
        length, free, gaps = some * at_once, LINES, 16
    period, lanes = TURNED if some_taps % gaps else lcm(some_taps, SIDE), rounded(length, SIDE)
    # Filters with few values follow each other, and share a block.
    each = -(-some * some_taps // length)
    many = max(1, THREADS // (lanes * each)) if down == beside == 1 else 1
    numbers = (
        filters * deep, deep, taps, channels, seen.narrow, win.c_out, win.width, seen.width, many,
        some_taps, some, length, lanes, pitch, period, free, down, beside, parts, int(more),
    )  # fmt: skip
    return Launch(weight_kernel(), -(-win.c_out // many) * down * beside, (sums, out, *numbers))


def in_place(sums: DeviceArray, parts: int, out: DeviceArray, more: bool) -> Launch:
    """Return the launch that adds ``sums [part, ...]``, which begin as ``out`` does, to ``out``."""
    numbers = (out.size, sums.size // sums.shape[0], parts, int(more))
    return Launch(sums_kernel(), -(-out.size // THREADS), (sums, out, *numbers))


def slabs(sums: DeviceArray, parts: int, win: Windows, out: DeviceArray, more: bool) -> Launch:
    """Return the launch that adds ``sums``, parts of `pack.Slabs`, to a weight's gradient."""
    each, taps, pitch = sums.size // parts, win.k_h * win.k_w, win.depth | 1
    numbers = (each, taps, win.narrow, win.width, win.c_out, pitch, parts, int(more))
    return Launch(slabs_kernel(), -(-win.c_out // SLAB) * QUARTERS, (sums, out, *numbers))


def channels(x: DeviceArray, out: DeviceArray, more: bool) -> list[Launch]:
    """Return the launches that set ``out`` to the sum of each channel, or add it to ``out``."""
    if out.size == 0:
        return []
    x, launches = filled(x, 1, RUN)
    count = x.shape[-1]
    total, across, lines = x.size // count, -(-count // CHANNELS), THREADS // CHANNELS
    parts = max(1, min(total // (DEEP * lines), 2 * x.machine.multiprocessors // across))
    length = -(-total // parts)
    parts = -(-total // length) if total else 0
    sums = scratch(x.machine, (max(1, parts), count))
    if parts:
        numbers = (total, count, across, length)
        launches.append(Launch(channels_kernel(), across * parts, (x, sums, *numbers)))
    return [*launches, in_place(sums, parts, out, more)]
