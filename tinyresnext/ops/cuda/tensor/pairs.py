"""The weight of a convolution in float16, laid out as tensor cores take it: pairs of depths.

A word has two neighbouring depths of one column; the columns of a group of 32 stand in the order
that `column_of` says.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from ..conv.pack import Room, Source
from ..conv.windows import Windows
from ..runtime.arrays import DeviceArray, upload
from ..runtime.kernel import Kernel, ending, float32, floats, halves, int32, ints, pointer, uint32
from ..runtime.machine import Launch
from ..words import get, put

BK = 32  # depths of a slice of the product: two instructions
GROUP = 32  # columns of a warp
THREADS = 256


class Pairs(NamedTuple):
    """For each group a matrix ``[deep / 2, wide, 2]`` of float16, filled up with zeros."""

    data: DeviceArray
    deep: int
    wide: int


def column_of(place: int) -> int:
    """Return which of 32 columns stands at a place of the packed weight.

    Instruction ``j`` of four has the places ``8 j + g``, and gives columns ``2 t`` and ``2 t + 1``
    of its eight to thread t of four, which is to have the columns ``8 t`` to ``8 t + 7``.
    """
    j, g = divmod(place, 8)
    return 8 * (g // 2) + 2 * j + g % 2


# --- kernel ---------------------------------------------------------------------------------------


@cache
def pairs_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of `Pairs`: a thread for each pair. ``kind`` is the type of the weight."""

    def run(
        weight, taps, out, size, count, channels, width, half, wide, s_group, s_filter, s_channel
    ):
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if i < size:
            row, place = uint32(i) // uint32(wide), uint32(i) % uint32(wide)
            group, pair = int32(uint32(row) // uint32(half)), int32(uint32(row) % uint32(half))
            g, j = uint32(place) % uint32(8), uint32(uint32(place) % uint32(32)) // uint32(8)
            o = int32(uint32(place) // uint32(32) * uint32(32))
            o = int32(o + uint32(g) // uint32(2) * uint32(8) + j * uint32(2) + g % uint32(2))
            for q in range(2):
                k = int32(int32(pair * 2) + q)
                tap, c = uint32(k) // uint32(channels), int32(uint32(k) % uint32(channels))
                value = float32(0)
                if tap < uint32(count) and o < width:
                    at = int32(group * s_group + o * s_filter + c * s_channel + taps[int32(tap)])
                    value = get(weight, at)
                put(out, int32(int32(i * 2) + q), value)

    parameters = (kind, ints, halves, *[int32] * 9)
    return Kernel(f"pack_pairs{ending(kind)}", run, parameters, THREADS)


# --- launcher -------------------------------------------------------------------------------------


def pairs(
    weight: DeviceArray, source: Source, win: Windows, memory: Room
) -> tuple[Pairs, list[Launch]]:
    """Return the matrices of a convolution, and the launches that fill them from ``weight``."""
    deep, wide = -(-win.depth // BK) * BK, -(-win.width // GROUP) * GROUP
    data = memory(weight.machine, (win.groups, deep // 2, wide, 2), np.float16)
    made = Pairs(data, deep, wide)
    size = data.size // 2
    numbers = (
        size, len(source.taps), win.narrow, win.width, deep // 2, wide,
        source.s_group, source.s_filter, source.s_channel,
    )  # fmt: skip
    arrays = (weight, upload(weight.machine, np.array(source.taps, np.int32)), data)
    return made, [Launch(pairs_kernel(pointer(weight)), -(-size // THREADS), (*arrays, *numbers))]
