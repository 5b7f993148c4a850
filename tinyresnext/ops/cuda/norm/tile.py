"""How the kernels of norms share ``[positions, channels]`` among threads.

A block has `COLUMNS` neighbouring channels and some neighbouring positions, a *chunk*, which its
`ROWS` rows of threads take in turn. So threads side by side read values side by side, and a thread
has one channel, whose numbers it computes once. What a block has does not depend on the GPU, so
sums are the same bits on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

COLUMNS, ROWS = 32, 8
THREADS = COLUMNS * ROWS
BLOCKS = 1024  # of a launch, about: some for each multiprocessor of a large GPU
SHORTEST = 8 * ROWS  # positions of a chunk, at least


class Tiles(NamedTuple):
    """The numbers of a pass over ``[positions, channels]``.

    Attributes
    ----------
    positions, channels : int
    length : int
        Positions of a chunk; the last chunk may have fewer.
    tiles, chunks : int
        How many blocks lie side by side, and how many one under the other.
    """

    positions: int
    channels: int
    length: int
    tiles: int
    chunks: int

    @property
    def blocks(self) -> int:
        """The number of blocks; none where there are no values."""
        return self.tiles * self.chunks


def tiled(shape: Sequence[int]) -> Tiles:
    """Return how a pass over an array [..., channels] is shared."""
    *before, channels = shape
    positions, tiles = prod(before), -(-channels // COLUMNS)
    chunks = max(1, min(BLOCKS // max(1, tiles), positions // SHORTEST))
    length = max(1, -(-positions // chunks))
    return Tiles(positions, channels, length, tiles, -(-positions // length))
