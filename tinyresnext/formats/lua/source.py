"""The bytes of a Torch7 file: numbers, strings, and how much is left."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from ...errors import FormatError, UnsafeError

__all__ = ["Source"]

MAX_TEXT = 8 << 20  # bytes of all strings together, of which few are kept


class Source:
    """A file that is read once from front to back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.at = 0
        self._text = 0
        file.seek(0)

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return self._size - self.at

    def string(self) -> str:
        """Return bytes, each as the character of that number: Lua does not say what they mean."""
        size = self.count("bytes of a string")
        self._text += size
        if self._text > MAX_TEXT:
            raise UnsafeError(
                f"the file has more than {MAX_TEXT:,} bytes of text; a network has some kilobytes"
            )
        return self.take(size).decode("latin-1")

    def boolean(self) -> bool:
        """Return a truth value, which must be 0 or 1."""
        value = self.number()
        if value not in (0, 1):
            raise FormatError(f"a truth value is {value}; expected 0 or 1; fetch the file again")
        return value == 1

    def count(self, what: str) -> int:
        """Return how many of something follow, for which the rest of the file must have room."""
        count, left = self.number(), self.left
        if not 0 <= count <= left:
            raise FormatError(
                f"there should be {count:,} {what} in the last {left:,} bytes; fetch the file again"
            )
        return count

    def number(self) -> int:
        """Return an integer of 4 bytes."""
        return struct.unpack("<i", self.take(4))[0]

    def long_number(self) -> int:
        """Return an integer of 8 bytes."""
        return struct.unpack("<q", self.take(8))[0]

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self._file.read(size)
        if len(data) != size:
            raise FormatError(
                f"the file is cut short at byte {self.at + len(data):,}; fetch it again"
            )
        self.at += size
        return data

    def skip(self, size: int) -> None:
        """Pass over the next bytes."""
        self.at += size
        self._file.seek(self.at)
