"""How the kernels of norms share ``[positions, channels]`` among threads.

A row of values is as many positions side by side as fill whole warps: one position of 64 channels,
two of 16, and 32 of 3 channels, which are 96 values. So threads side by side read values side by
side, no thread is idle, and each row begins where a sector begins. A block has `COLUMNS`
neighbouring columns of some rows, a *chunk*, which its `ROWS` rows of threads take in turn. So a
thread has one channel, whose numbers it computes once. What a block has does not depend on the GPU,
so sums are the same bits on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import NamedTuple

from numba.core import types

from ..words.llvm import INT32, intrinsic

COLUMNS, ROWS = 32, 8
EACH = 4  # numbers of a channel that lie side by side, and are loaded at once: half a sector
THREADS = COLUMNS * ROWS
BLOCKS = 1024  # of a launch, about: some for each multiprocessor of a large GPU
SHORTEST = 8 * ROWS  # rows of a chunk, at least
SECTOR = 8  # float32 values in 32 bytes


class Tiles(NamedTuple):
    """The numbers of a pass over ``[positions, channels]``.

    Attributes
    ----------
    positions, channels : int
    beside : int
        Positions of a row.
    length : int
        Rows of a chunk; the last chunk may have fewer, and the last row may end early.
    tiles, chunks : int
        How many blocks lie side by side, and how many one under the other.
    """

    positions: int
    channels: int
    beside: int
    length: int
    tiles: int
    chunks: int

    @property
    def blocks(self) -> int:
        """The number of blocks; none where there are no values."""
        return self.tiles * self.chunks

    @property
    def parts(self) -> int:
        """The number of parts of which the sums of a channel consist.

        A block of fewer than `COLUMNS` channels adds up each; another has a part of one position.
        """
        return self.chunks * (self.tiles if self.channels < COLUMNS else self.beside)

    @property
    def walk(self) -> tuple[int, ...]:
        """What a kernel takes to find its values: ``size, channels, columns, length, tiles``."""
        columns = self.beside * self.channels
        return self.positions * self.channels, self.channels, columns, self.length, self.tiles


def tiled(shape: Sequence[int]) -> Tiles:
    """Return how a pass over an array [..., channels] is shared."""
    *before, channels = shape
    positions, beside = prod(before), COLUMNS // gcd(COLUMNS, channels)
    tiles, rows = beside * channels // COLUMNS, -(-positions // beside)
    chunks = max(1, min(BLOCKS // max(tiles, beside), rows // SHORTEST))
    length = max(1, -(-rows // chunks))
    return Tiles(positions, channels, beside, length, tiles, -(-rows // length))


@intrinsic
def taken(typingctx, t, block, size, channels, columns, length, tiles):
    """Return what thread ``t`` of a block takes: ``part, column, channel, row, last``.

    It takes the values ``row * columns + column`` of each `ROWS`-th row below ``last``, and what it
    sums belongs to part ``part`` of `Tiles.parts`. The other numbers are `Tiles.walk`.
    """

    def codegen(context, builder, signature, args):
        t, block, size, channels, columns, length, tiles = args
        add, sub, mul, div = builder.add, builder.sub, builder.mul, builder.udiv
        chunk = div(block, tiles)
        tile = sub(block, mul(chunk, tiles))
        column = add(mul(tile, INT32(COLUMNS)), builder.urem(t, INT32(COLUMNS)))
        beside, position = div(columns, channels), div(column, channels)
        channel = sub(column, mul(position, channels))
        narrow = builder.icmp_unsigned("<", channels, INT32(COLUMNS))
        part = builder.select(narrow, block, add(mul(chunk, beside), position))
        row = add(mul(chunk, length), div(t, INT32(COLUMNS)))
        end = add(mul(chunk, length), length)
        rows = div(add(size, sub(sub(columns, INT32(1)), column)), columns)
        last = builder.select(builder.icmp_unsigned("<", rows, end), rows, end)
        numbers = [part, column, channel, row, last]
        return context.make_tuple(builder, signature.return_type, numbers)

    return types.UniTuple(types.int32, 5)(*[types.int32] * 7), codegen


def wide(channels: int) -> int:
    """Return how far apart vectors of ``channels`` lie in an array: each is whole sectors."""
    return -(-channels // SECTOR) * SECTOR


def even(channels: int) -> int:
    """Return how many channels have room in an array of `EACH` numbers a channel.

    They are whole sectors. A warp begins with any channel, and moves 17 sectors at most where 16
    would do. Of vectors, one for each number, it would move five in place of four.
    """
    return channels + channels % 2
