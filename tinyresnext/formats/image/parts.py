"""What is kept of an image file: ranges of its bytes, which a decoder reads as one file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO, NamedTuple

from ...errors import ImageError

__all__ = ["MOST_METADATA", "Bare", "Part", "as_file", "check_coded"]

MOST_METADATA = 1 << 20  # bytes of EXIF, of XMP, or of a part that is not pixels; usual are 64 KiB
_FEW_BYTES, _MOST_TIMES = 1 << 16, 2  # of coded pixels, and for each byte of them

Part = bytes | memoryview


class Bare(NamedTuple):
    """An image file without metadata, and the metadata that may say how it is turned."""

    parts: Sequence[Part]
    exif: bytes | None = None
    xmp: bytes | None = None


def check_coded(coded: int, pixels: int) -> None:
    """Raise `ImageError` for coded pixels that are far larger than the pixels can need.

    A decoder copies all of them before it looks at them. Both numbers are bytes; codings that are
    unfortunate need less than twice the pixels.
    """
    if coded > _FEW_BYTES + _MOST_TIMES * pixels:
        raise ImageError(f"it has {coded:,} bytes for {pixels:,} bytes of pixels; save it again")


def as_file(parts: Sequence[Part]) -> BinaryIO:
    """Return a file that reads the parts one after the other; they are not copied."""
    return io.BufferedReader(_Parts(parts), 1 << 16)


class _Parts(io.RawIOBase):
    """The file, without a buffer."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self._parts)))
        self._at = self._index = 0  # the place in the file, and a part that is not behind it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._at, self._ends[-1] if self._ends else 0)[whence]
        if base + offset < self._at:
            self._index = 0
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._index < len(self._ends) and self._ends[self._index] <= self._at:
            self._index += 1
        if self._index == len(self._ends):
            return 0
        part, end = self._parts[self._index], self._ends[self._index]
        start = self._at - (end - len(part))
        count = min(len(part) - start, len(buffer))
        memoryview(buffer)[:count] = part[start : start + count]
        self._at += count
        return count
