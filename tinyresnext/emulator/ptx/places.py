"""Where an address leads: to which memory, to which word of it, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import DeviceError
from .memory import Heap, Space
from .source.compute import CONSTANT, LOCAL, SHARED
from .source.parse import Code

Array = np.ndarray[Any, Any]


class Places:
    """The memory of the blocks that run together.

    Parameters
    ----------
    kernel : str
        Its name.
    code : Code
        It says how much shared and local memory there is.
    block : [lanes] int
        Of each thread its block, counted from 0.
    heap : Heap
    extents : list of tuple
        First and last address of each array that the kernel was given.
    fault : callable
        Called with a kind, a sentence and the number of a thread; it raises.

    Attributes
    ----------
    shared, local, constant : Space
        That of each block, that of each thread, side by side, and that of the kernel's own values.
    shared_words : int
        Of a block.
    """

    def __init__(
        self,
        kernel: str,
        code: Code,
        block: Array,
        heap: Heap,
        extents: list[tuple[int, int]],
        fault: Callable[[str, str, int], None],
    ) -> None:
        self._kernel = kernel
        self._block, self._heap, self._extents, self._fault = block, heap, extents, fault
        self.shared_words, self._local_words = -(-code.shared // 4), -(-code.local // 4)
        self.shared = Space(4 * self.shared_words * (int(block[-1]) + 1), "shared")
        self.local = Space(4 * self._local_words * len(block), "local")
        self.constant = Space(
            max((code.symbols[name] + len(code.fixed[name]) for name in code.fixed), default=0),
            "constant",
        )
        for name, values in code.fixed.items():
            first = code.symbols[name]
            self.constant.data.view(np.uint8)[first : first + len(values)] = list(values)
        self.constant.states[0].known[:] = True

    def apart(self, space: Space) -> int:
        """Return after how many words of a memory that of the next block or thread begins."""
        if space is self.shared:
            return self.shared_words
        return self._local_words if space is self.local else space.words

    def words(
        self, kind: str, address: Array, lanes: Array, size: int, multiple: int = 0
    ) -> tuple[Space, Array]:
        """Return the memory, and for each thread the number of its first word in it.

        Addresses have to be multiples of ``multiple`` bytes, or else of ``size``.
        """
        multiple = multiple or size
        low = int(address.min())
        if kind == "any":
            starts = ("local", LOCAL), ("shared", SHARED), ("global", 0)
            kind, start = next(pair for pair in starts if low >= pair[1])
            address = address - np.uint64(start)
        bad = address % np.uint64(multiple) != 0
        if bad.any():
            what = f"{multiple} bytes at an address that is no multiple of it"
            self._fault("misaligned", what, lanes[bad][0])
        if kind in ("global", "const") and low < CONSTANT:
            return self._global(address, lanes, size)
        space, words, row = self.shared, self.shared_words, self._block[lanes]
        if kind in ("global", "const"):
            space, words, row = self.constant, self.constant.words, np.zeros_like(lanes)
            kind, address = "constant", address - np.uint64(CONSTANT)
        if kind == "local":
            space, words, row = self.local, self._local_words, lanes
        last = 4 * words - size  # an address plus the size would begin again at 0
        outside = address > np.uint64(max(last, 0)) if last >= 0 else np.ones(len(lanes), bool)
        if outside.any():
            place = int(address[outside][0].astype(np.int64))
            what = f"{size} bytes at {place} of {kind} memory, which has {4 * words}"
            self._fault("bounds", what, lanes[outside][0])
        return space, row * words + (address >> np.uint64(2)).astype(np.int64)

    def _global(self, address: Array, lanes: Array, size: int) -> tuple[Space, Array]:
        """Return the allocation that all addresses are in; each has to be in an argument."""
        low, high = int(address.min()), int(address.max()) + size
        if not any(start <= low and high <= stop for start, stop in self._extents):
            inside = np.zeros(len(address), bool)
            for start, stop in self._extents:
                top = np.uint64(max(stop - size, 0))
                inside |= (address >= np.uint64(start)) & (address <= top)
            if not inside.all():
                self._fault("bounds", self._outside(int(address[~inside][0])), lanes[~inside][0])
        space = self._heap.find(low)
        if space is None:
            self._fault("bounds", "an access to memory that was freed", lanes[0])
        elif high <= space.address + space.size:
            return space, ((address - np.uint64(space.address)) >> np.uint64(2)).astype(np.int64)
        raise DeviceError(f"kernel {self._kernel}: threads access two arrays by one instruction")

    def _outside(self, address: int) -> str:
        """Describe an address by the array that it is nearest to."""
        if not self._extents:
            return f"an access to {address:#x}, and the kernel was given no array"
        near = min(self._extents, key=lambda one: max(one[0] - address, address - one[1], 0))
        size = near[1] - near[0]
        return f"an access to byte {address - near[0]} of an array of {size} bytes"
