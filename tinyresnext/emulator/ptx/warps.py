"""What the threads of a warp say to each other, and whether those that are named are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def special(thread: Array, block: Array, threads: int, grid: int) -> dict[str, Array]:
    """Return the special registers of threads by name."""
    everywhere = np.ones_like(thread)
    values = {
        "tid_x": thread,
        "ctaid_x": block,
        "ntid_x": threads * everywhere,
        "nctaid_x": grid * everywhere,
        "laneid": thread % 32,
        "warpid": thread // 32,
        "lanemask_lt": (1 << thread % 32) - 1,
    }
    for name, value in (("tid", 0), ("ctaid", 0), ("ntid", 1), ("nctaid", 1)):
        for axis in "yz":
            values[f"{name}_{axis}"] = value * everywhere
    return {name: value.astype(np.uint32) for name, value in values.items()}


class Warps:
    """The warps of the blocks that run together.

    Parameters
    ----------
    threads : int
        Of a block.
    lanes : int
        Of all blocks together.
    fault : callable
        Called with a kind, a sentence and the number of a thread; it raises.
    """

    def __init__(self, threads: int, lanes: int, fault: Callable[[str, str, int], None]) -> None:
        self._size, self._lanes, self._fault = threads, lanes, fault
        self._warps = -(-threads // 32)
        number = np.arange(lanes)
        self.lane = number % threads % 32
        self.warp = number // threads * self._warps + number % threads // 32
        self._bit = (np.uint32(1) << self.lane.astype(np.uint32)).astype(np.uint32)
        self._everyone = np.zeros(self.warp[-1] + 1, np.uint32)
        np.bitwise_or.at(self._everyone, self.warp, self._bit)

    def here(self, lanes: Array) -> Array:
        """Return, for each thread, a bit for each thread of its warp that executes this with it."""
        masks = np.zeros(self.warp[-1] + 1, np.uint32)
        np.bitwise_or.at(masks, self.warp[lanes], self._bit[lanes])
        return masks[self.warp[lanes]]

    def check(self, lanes: Array, mask: Array, what: str) -> None:
        """Report a thread that a mask names and that is elsewhere, or that names other threads."""
        bad = ((mask & ~self.here(lanes)) != 0) | ((mask & self._bit[lanes]) == 0)
        if bad.any():
            self._fault("shuffle", f"{what} names a thread that is elsewhere", int(lanes[bad][0]))
        if (mask == mask[0]).all():
            return
        masks = np.zeros((self.warp[-1] + 1, 32), np.uint32)
        masks[self.warp[lanes], self.lane[lanes]] = mask
        named = (mask[:, None] >> np.arange(32, dtype=np.uint32)) & 1 == 1
        bad = (named & (masks[self.warp[lanes]] != mask[:, None])).any(1)
        if bad.any():
            said = f"{what} names a thread that names other threads"
            self._fault("shuffle", said, int(lanes[bad][0]))

    def whole(self, lanes: Array, mask: Array) -> bool:
        """Return whether each mask names all threads of its warp."""
        return bool((mask == self._everyone[self.warp[lanes]]).all())

    def shuffle(
        self, mode: str, lanes: Array, value: Array, b: Array, c: Array, mask: Array
    ) -> Any:
        """Return values of other threads, and whether the place asked for is in range."""
        self.check(lanes, mask, "a shuffle")
        lane, b, c = self.lane[lanes], b.astype(np.int64) & 31, c.astype(np.int64)
        segment = (c >> 8) & 31
        low, last = lane & segment, (lane & segment) | (c & 31 & ~segment)
        place = {"idx": low | (b & ~segment), "up": lane - b, "down": lane + b, "bfly": lane ^ b}[
            mode
        ]
        inside = place >= last if mode == "up" else place <= last
        place = np.where(inside, place, lane)
        if ((mask >> place.astype(np.uint32)) & 1 == 0).any():
            bad = (mask >> place.astype(np.uint32)) & 1 == 0
            self._fault("shuffle", "a shuffle reads a thread it does not name", int(lanes[bad][0]))
        row = np.zeros(self._lanes, np.uint32)
        row[lanes] = value
        return row[lanes - lane + place], inside

    def multiply(
        self,
        depth: int,
        kind: str,
        lanes: Array,
        left: list[Array],
        right: list[Array],
        sums: list[Array],
    ) -> Array:
        """Return the four sums of each thread after a matrix product 16 x 8, 8 or 16 deep.

        ``kind`` is ``f16`` or ``bf16``, the type of both matrices. ``left``, ``right`` and ``sums``
        are the fragments of the matrices, by register, as the PTX ISA deals them to threads
        ("Matrix Fragments for mma.m16n8k16", and for m16n8k8).
        """
        everyone = np.full(len(lanes), 0xFFFFFFFF, np.uint32)
        self.check(lanes, everyone, "a matrix product")
        order = np.argsort(self.warp[lanes] * 32 + self.lane[lanes], kind="stable")

        def dealt(values: list[Array], kind: str) -> Array:
            """Return fragments as [warp, group of four threads, thread of these, register, ...]."""
            whole, each = np.stack(values, 1)[order], 4 // np.dtype(kind).itemsize
            return np.ascontiguousarray(whole).view(kind).reshape(-1, 8, 4, len(values), each)

        two = "f2" if kind == "f16" else "u2"  # bfloat16 are the upper halves of float32
        a, b = dealt(left, two), dealt(right, two)  # [warp, g, t, register, value of a pair]
        if kind == "bf16":
            a, b = ((each.astype("u4") << np.uint32(16)).view("f4") for each in (a, b))
        c = dealt(sums, "f4")[..., 0].reshape(-1, 8, 4, 2, 2)  # [warp, g, t, upper half, column]
        upper = depth // 8  # registers of a row: the second is eight depths on
        a = a.reshape(-1, 8, 4, upper, 2, 2).transpose(0, 4, 1, 3, 2, 5).reshape(-1, 16, depth)
        b = b.reshape(-1, 8, 4, upper, 2).transpose(0, 3, 2, 4, 1).reshape(-1, depth, 8)
        c = c.transpose(0, 3, 1, 2, 4).reshape(-1, 16, 8)
        made = (a.astype("f8") @ b.astype("f8") + c).astype("f4")
        back = made.reshape(-1, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 4)
        found = np.empty_like(back)
        found[order] = back
        return found.T

    def vote(self, mode: str, lanes: Array, flag: Array, mask: Array) -> Array:
        """Return what the threads of a mask say together."""
        self.check(lanes, mask, "a vote")
        yes = np.zeros(self.warp[-1] + 1, np.uint32)
        np.bitwise_or.at(yes, self.warp[lanes], np.where(flag, self._bit[lanes], np.uint32(0)))
        said = yes[self.warp[lanes]] & mask
        results = {"ballot": said, "any": said != 0, "all": said == mask}
        return results[mode] if mode in results else (said == 0) | (said == mask)
