"""The bytes of a pickle, counted: numbers, texts of a stated length, lines, and frames."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

from ...errors import FormatError, UnsafeError

__all__ = ["Source"]

MAX_LINE = 256  # bytes of a line, in which a name's module or name stands


class Source:
    """A stream that is read once, and how much of it was read.

    Parameters
    ----------
    stream : binary file
        Only ``read`` and ``readline`` are used.
    most_text : int
        Bytes that all texts together may have.
    """

    def __init__(self, stream: BinaryIO, most_text: int) -> None:
        self._stream = stream
        self._text_left = self._most_text = most_text
        self.position = 0
        self.frame_end = 0

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        data = self._stream.read(count)
        if len(data) != count:
            raise FormatError(
                f"the pickle is cut short: {count} bytes were expected at {self.position}, "
                f"{len(data)} are there"
            )
        self.position += count
        return data

    def number(self, layout: str) -> Any:
        """Return one number of the size that ``layout`` (as for `struct`) says."""
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def payload(self, layout: str) -> bytes:
        """Return the bytes of a text, whose length stands before them."""
        count = self.number(layout)
        self._text_left -= count
        if count < 0 or self._text_left < 0:
            raise UnsafeError(
                f"the pickle declares a text of {count} bytes; all texts together may have "
                f"{self._most_text}"
            )
        return self.read(count)

    def skip_payload(self, layout: str) -> None:
        """Pass over the bytes of a text, however long it is."""
        left = self.number(layout)
        while left:
            left -= len(self.read(min(left, 1 << 16)))

    def line(self) -> bytes:
        """Return a line without its end."""
        line = self._stream.readline(MAX_LINE)
        self.position += len(line)
        if not line.endswith(b"\n"):
            raise FormatError(
                f"a name before byte {self.position} of the pickle is cut short or longer than "
                f"{MAX_LINE} bytes"
            )
        return line[:-1]

    def frame(self) -> None:
        """Note where a frame of protocol 4 ends; frames neither nest nor overlap."""
        if self.position <= self.frame_end:
            raise FormatError("a frame of the pickle begins inside another")
        self.frame_end = self.position + 8 + self.number("<Q")

    def check_frame(self, start: int) -> None:
        """Raise `FormatError` if the opcode from ``start`` on crosses the end of its frame."""
        if start < self.frame_end < self.position:
            raise FormatError(
                f"the opcode at byte {start} of the pickle crosses the end of its frame"
            )
