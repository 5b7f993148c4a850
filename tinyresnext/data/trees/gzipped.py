"""What is inside a gzip file, read forwards, so that it needs no room of its own."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from ...errors import IntegrityError, UnsafeError
from ...formats.tar import unpacking

__all__ = ["KEPT", "Unpacked"]

KEPT = 32 << 20
"""Bytes that are kept behind the place that was read last, for threads that read a little later."""

_BLOCK = 1 << 20  # unpacked bytes, at most, that are made at once
_PIECE = 1 << 16  # packed bytes that are read at once
_GZIP = 16 + zlib.MAX_WBITS
# Photographs do not become smaller, and an image of one colour by some hundreds.
_MOST_RATIO, _FEW_BYTES = 200, 64 << 20


class Unpacked:
    """What is inside a gzip file, as a file that is read.

    Reading goes on from where it was, or takes what is kept; what is further back is unpacked again
    from the beginning.

    Parameters
    ----------
    file : binary file
    kept : int
        Bytes to keep.

    Raises
    ------
    FormatError, IntegrityError
        While reading: it is damaged or cut short, behind all bytes that come before the damage.
    UnsafeError
        While reading: it unpacks to far more than images do.
    """

    def __init__(self, file: BinaryIO, kept: int = KEPT) -> None:
        self._file, self._kept, self._at = file, kept, 0
        self._begin()

    def _begin(self) -> None:
        """Go back to the beginning."""
        self._file.seek(0)
        self._inflate, self._packed = zlib.decompressobj(_GZIP), b""
        self._damage: EOFError | zlib.error | None = None
        self._blocks: deque[bytes] = deque()
        self._first = self._last = 0  # the first byte in the blocks, and the end of them

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Choose the next byte to read.

        The end is not known before it is reached: for ``SEEK_END``, more than any file has is
        returned.
        """
        if whence == os.SEEK_END:
            return 1 << 62
        self._at = offset
        return offset

    def read(self, count: int) -> bytes:
        """Return so many bytes, or fewer at the end."""
        if self._at < self._first:
            self._begin()
        while self._last < self._at + count and (block := self._next()):
            self._blocks.append(block)
            self._last += len(block)
            self._drop()
        parts, begin, end = [], self._first, self._at + count
        for block in self._blocks:
            parts.append(block[max(0, self._at - begin) : max(0, end - begin)])
            begin += len(block)
        found = b"".join(parts)
        self._at += len(found)
        return found

    def _drop(self) -> None:
        """Drop blocks that are too far back."""
        while self._blocks:
            after = self._first + len(self._blocks[0])
            if after > self._at or self._last - after < self._kept:
                return
            self._blocks.popleft()
            self._first = after

    def _next(self) -> bytes:
        """Unpack some more; nothing at the end."""
        while self._damage is None:
            packed = self._packed or self._file.read(_PIECE)
            self._packed = b""
            if self._inflate.eof:
                if not packed:
                    return b""
                if not (packed := packed.lstrip(b"\0")):  # tapes are filled up with zeros
                    continue
                self._inflate = zlib.decompressobj(_GZIP)  # gzip files may stand one behind another
            if block := self._inflated(packed):
                return self._checked(block)
            if not packed:
                self._damage = EOFError("it ends within compressed data")
        with unpacking(self._last):
            if "data check" in str(self._damage) or "length check" in str(self._damage):
                raise IntegrityError(
                    f"the archive is damaged: the checksum (CRC) of its first {self._last:,} "
                    "unpacked bytes, or their number, is wrong; download it again"
                )
            raise self._damage

    def _inflated(self, packed: bytes) -> bytes:
        """Return what some bytes unpack to, up to the damage if there is one; keep the others."""
        before = self._inflate.copy()
        try:
            block = self._inflate.decompress(packed, _BLOCK)
        except zlib.error as error:
            self._damage = error
            return b"".join(_before_damage(before, packed))
        self._packed = self._inflate.unconsumed_tail or self._inflate.unused_data
        return block

    def _checked(self, block: bytes) -> bytes:
        """Return a block, if the file does not unpack to too much."""
        if self._last + len(block) > _MOST_RATIO * self._file.tell() + _FEW_BYTES:
            raise UnsafeError(
                f"the archive unpacks to more than {_MOST_RATIO} times its length, which images do "
                "not; unpack it yourself if you trust it"
            )
        return block


def _before_damage(inflate: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """Yield what comes before the damage: zlib drops what it has made in the call that fails."""
    with suppress(zlib.error):
        for i in range(len(packed)):
            yield inflate.decompress(packed[i : i + 1])
