"""What a kernel did, in numbers that do not depend on a clock.

A GPU moves global memory in sectors of 32 bytes. The loads of a warp need at least as many as their
bytes fill; more of them mean that neighbouring threads do not read neighbouring places. Shared
memory has 32 banks of four bytes; one wavefront reads one word of each. A warp's access needs as
many wavefronts as the bank that most is asked of has different words to give; accesses of 8 and 16
bytes a thread go by halves and quarters of a warp.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .ptx.source.parse import Instruction

Array = np.ndarray[Any, Any]
SECTOR, BANKS = 32, 32


class Counters:
    """What one kernel did, over all its launches.

    Attributes
    ----------
    kernel : str
    instructions : Counter
        Executed instructions by name and type, such as ``fma.f32``; one of a warp counts as one.
    threads : Counter
        The same, each thread by itself.
    sectors, ideal_sectors : int
        Of global memory: what warps touched, and the fewest that hold as many bytes.
    wavefronts, ideal_wavefronts : int
        Of shared memory: what warps needed, and what they need without conflicts.
    lines : dict
        For each piece, instruction in it and memory that it touches: what it does, accesses of
        warps, sectors or wavefronts, and the fewest of them.
    """

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.instructions: Counter[str] = Counter()
        self.threads: Counter[str] = Counter()
        self.sectors = self.ideal_sectors = self.wavefronts = self.ideal_wavefronts = 0
        self.lines: dict[tuple[int, int, str], list[Any]] = {}

    def executed(self, piece: list[Instruction], warps: int, threads: int) -> None:
        """Count a piece of code that so many warps and threads ran."""
        for ins in piece:
            name = f"{ins.op}.{ins.type}" if ins.type else ins.op
            self.instructions[name] += warps
            self.threads[name] += threads

    def access(
        self, space: str, what: str, address: Array, warp: Array, size: int, at: tuple[int, int]
    ) -> None:
        """Count one access of some threads."""
        warps, units, ideal = (sectors if space == "global" else wavefronts)(address, warp, size)
        if space == "global":
            self.sectors, self.ideal_sectors = self.sectors + units, self.ideal_sectors + ideal
        else:
            self.wavefronts += units
            self.ideal_wavefronts += ideal
        line = self.lines.setdefault((*at, space), [what, 0, 0, 0])
        line[1:] = [line[1] + warps, line[2] + units, line[3] + ideal]


def sectors(address: Array, warp: Array, size: int) -> tuple[int, int, int]:
    """Return how many warps access memory, how many sectors they touch, and the fewest.

    The fewest are those that the different bytes of each warp would fill, side by side.
    """
    place = address.astype(np.int64)
    touched = np.unique(np.stack([warp, place // SECTOR]), axis=1)
    starts = np.unique(np.stack([warp, place]), axis=1)  # what threads share counts once
    warps, different = np.unique(starts[0], return_counts=True)
    return len(warps), touched.shape[1], int((-(-different * size // SECTOR)).sum())


def wavefronts(address: Array, warp: Array, size: int) -> tuple[int, int, int]:
    """Return how many warps access shared memory, how many wavefronts they need, and the fewest."""
    wide = max(1, size // 4)
    order = np.argsort(warp, kind="stable")
    warp, word = warp[order], address.astype(np.int64)[order] // 4
    first = np.concatenate([[True], warp[1:] != warp[:-1]])
    start = np.maximum.accumulate(np.where(first, np.arange(len(warp)), 0))
    part = (np.arange(len(warp)) - start) * wide // BANKS  # a half or a quarter of a warp
    group = np.repeat(warp * 8 + part, wide)
    words = (word[:, None] + np.arange(wide)).reshape(-1)
    asked = np.unique(np.stack([group, words]), axis=1)  # one word for several threads counts once
    keys, counts = np.unique(np.stack([asked[0], asked[1] % BANKS]), axis=1, return_counts=True)
    groups, where = np.unique(keys[0], return_inverse=True)
    most = np.zeros(len(groups), np.int64)
    np.maximum.at(most, where, counts)
    return int(first.sum()), int(most.sum()), len(groups)
