"""The weight of a convolution in 16 bits, laid out as tensor cores take it: pairs of depths.

A word has two neighbouring depths of one column; the columns of a group of 32 stand in the order
that `column_of` says. It is made of the float32 matrix that `conv.pack` lays out.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numba import cuda

from ..conv.pack import Room, Source, columns
from ..conv.windows import Windows, rounded, whole
from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, ending, float32, floats, halves, int32, pointer, uint32
from ..runtime.machine import Launch
from ..words import put2

BK = 32  # depths of a slice of the product: two instructions
RUN = 8  # channels that are copied at once
GROUP = 32  # columns of a warp
THREADS = 256


class Pairs(NamedTuple):
    """For each group a matrix ``[deep / 2, wide, 2]`` of 16 bits, filled up as `Columns` are."""

    data: DeviceArray
    deep: int
    wide: int
    line: int = 0


def column_of(place: int) -> int:
    """Return which of 32 columns stands at a place of the packed weight.

    Instruction ``j`` of four has the places ``8 j + g``, and gives columns ``2 t`` and ``2 t + 1``
    of its eight to thread t of four, which is to have the columns ``4 t`` to ``4 t + 3`` of the
    first two instructions, and those of the second half of the group of the other two.
    """
    j, g = divmod(place, 8)
    return 16 * (j // 2) + 4 * (g // 2) + 2 * (j % 2) + g % 2


# --- kernel ---------------------------------------------------------------------------------------


@cache
def pairs_kernel(kind: Any = halves) -> Kernel:
    """Return the kernel of `Pairs` of a type from `Columns`: a thread for each pair."""

    def run(matrix, out, size, half, wide, rows, columns):
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if i < size:
            row, place = uint32(i) // uint32(wide), uint32(i) % uint32(wide)
            group, k = int32(row // uint32(half)), int32(int32(row % uint32(half)) * 2)
            g, j = uint32(place) % uint32(8), uint32(uint32(place) % uint32(32)) // uint32(8)
            o = int32(uint32(place) // uint32(32) * uint32(32))
            o = int32(o + j // uint32(2) * uint32(16) + j % uint32(2) * uint32(2))
            o = int32(uint32(o) + uint32(g) // uint32(2) * uint32(4) + g % uint32(2))
            first, second = float32(0), float32(0)
            if k < rows and o < columns:  # which are even, as k is
                at = int32(int32(int32(group * rows) + k) * columns + o)
                first, second = matrix[at], matrix[int32(at + columns)]
            put2(out, int32(i * 2), first, second)

    name = "pack_pairs" if kind == halves else f"pack_pairs{ending(kind)}"
    return Kernel(name, run, (floats, kind, *[int32] * 5), THREADS)


# --- launcher -------------------------------------------------------------------------------------


def pairs(
    weight: DeviceArray, source: Source, win: Windows, memory: Room, dtype: Any
) -> tuple[list[Pairs], list[Launch]]:
    """Return the matrices of a convolution, and the launches that fill them from ``weight``."""
    deep = rounded(source.taps * whole(source.channels, win.groups, RUN), BK)
    wide = rounded(win.width, GROUP)
    [matrix], launches = columns(weight, source, win, scratch, RUN)
    data = memory(weight.machine, (win.groups, deep // 2, wide, 2), dtype)
    size = data.size // 2
    numbers = (size, deep // 2, wide, matrix.deep, matrix.wide)
    last = Launch(pairs_kernel(pointer(data)), -(-size // THREADS), (matrix.data, data, *numbers))
    return [Pairs(data, deep, wide)], [*launches, last]
