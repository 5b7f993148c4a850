"""Memory of an emulated GPU: bytes of this process, poisoned, with a guard on both sides."""

from __future__ import annotations

import ctypes

import numpy as np

from ..errors import OutOfMemoryError

GUARD = 1024  # bytes on each side of an allocation that nobody may write to
POISON = 0xFF  # as float32 not a number, as int32 -1: an index that leaves the array, but not far
ALIGNED = 256


class Capacity:
    """How many bytes an emulated GPU pretends to have, and how many of them are in use.

    Parameters
    ----------
    size : int
        How many there are.
    """

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0

    def free_bytes(self) -> int:
        """Return how many bytes can still be allocated."""
        return self.size - self.used

    def take(self, size: int) -> None:
        """Count bytes as used; raise `OutOfMemoryError` if there are not as many."""
        if size > self.free_bytes():
            raise OutOfMemoryError(
                f"the emulated GPU has {self.free_bytes():,} bytes left of {self.size:,}, "
                f"and {size:,} are needed",
                size,
                self.free_bytes(),
            )
        self.used += size

    def give_back(self, size: int) -> None:
        """Count bytes as free again."""
        self.used -= size


class Block:
    """One allocation of bytes that its heap has counted as used.

    Attributes
    ----------
    address : int
        Of the first byte, a multiple of 256.
    size : int
        In bytes.
    """

    def __init__(self, capacity: Capacity, size: int) -> None:
        self._capacity, self.size = capacity, size
        self._bytes = np.full(size + 2 * GUARD + ALIGNED, POISON, np.uint8)
        self._first = GUARD + -(self._bytes.ctypes.data + GUARD) % ALIGNED
        self.address = self._bytes.ctypes.data + self._first

    def __del__(self) -> None:
        """Give the bytes back to what can be allocated."""
        self._capacity.give_back(self.size)

    def overrun(self) -> int | None:
        """Return where somebody wrote outside, counted in bytes from the first; None if nobody."""
        for start, stop in (self._first - GUARD, self._first), (self._end, self._end + GUARD):
            guard = self._bytes[start:stop]
            if not (guard == POISON).all():
                return start + int(np.argmax(guard != POISON)) - self._first
        return None

    @property
    def _end(self) -> int:
        return self._first + self.size


class Heap:
    """The memory of one emulated GPU.

    Parameters
    ----------
    size : int
        How many bytes it pretends to have.
    """

    def __init__(self, size: int) -> None:
        self._capacity = Capacity(size)
        self.free_bytes = self._capacity.free_bytes

    def allocate(self, size: int) -> Block:
        """Return poisoned bytes; raise `OutOfMemoryError` if there are not as many."""
        self._capacity.take(size)
        return Block(self._capacity, size)

    @staticmethod
    def write(address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to an address."""
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    @staticmethod
    def read(address: int, out: np.ndarray) -> None:
        """Fill a contiguous array from an address."""
        ctypes.memmove(out.ctypes.data, address, out.nbytes)
