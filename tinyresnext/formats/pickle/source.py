"""The bytes of a pickle, counted: numbers, texts, lines, and frames.

The functions understand numbers and texts as protocols 0 and 1 write them: in letters, one a line.
"""

from __future__ import annotations

import codecs
import re
import struct
from typing import Any, BinaryIO

from ...errors import FormatError, UnsafeError

__all__ = ["Source", "float_of", "integer_of", "quoted", "slot_of", "unescaped"]

MAX_LINE = 256  # bytes of a line in which a module, a name or a number stands
_INTEGER = re.compile(rb"[+-]?\d+L?", re.ASCII)
_FLOAT = re.compile(rb"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf|nan)", re.IGNORECASE)


class Source:
    """A stream that is read once, and how much of it was read.

    Parameters
    ----------
    stream : binary file
        Only ``read`` and ``readline`` are used.
    longest : int
        Bytes of a text.
    passes_over : bool
        Whether longer texts are passed over; else they are refused.
    """

    def __init__(self, stream: BinaryIO, longest: int, passes_over: bool) -> None:
        self._stream, self._longest, self._passes_over = stream, longest, passes_over
        self.position = 0
        self.frame_end = 0
        self.passed = (0, 0)  # where the last text that was passed over begins, and its bytes

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

    def payload(self, layout: str) -> bytes | None:
        """Return the bytes of a text, whose length stands before them; None if it was passed over.

        The numbers of an array, or the history of a loss, may be longer than all names.
        """
        count = self.number(layout)
        if count < 0 or (count > self._longest and not self._passes_over):
            raise UnsafeError(
                f"the pickle declares a text of {count} bytes; it may have {self._longest}"
            )
        if count <= self._longest:
            return self.read(count)
        self.passed = self.position, count
        while count:
            count -= len(self.read(min(count, 1 << 16)))
        return None

    def line(self) -> bytes:
        """Return a line without its end."""
        line = self._stream.readline(MAX_LINE)
        self.position += len(line)
        if not line.endswith(b"\n"):
            raise FormatError(
                f"a name or number before byte {self.position} of the pickle is cut short or "
                f"longer than {MAX_LINE} bytes"
            )
        return line[:-1]

    def text_line(self) -> bytes | None:
        """Return a line that is a text, without its end; None if it was passed over."""
        line = self._stream.readline(self._longest + 1)
        self.position += len(line)
        if line.endswith(b"\n"):
            return line[:-1]
        if len(line) > self._longest and not self._passes_over:
            raise UnsafeError(f"the pickle has a text of more than {self._longest} bytes")
        while line and not line.endswith(b"\n"):
            line = self._stream.readline(1 << 16)
            self.position += len(line)
        if not line:
            raise FormatError(f"the pickle is cut short in a text before byte {self.position}")
        return None

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


def integer_of(line: bytes) -> int:
    """Return a whole number; ``00`` and ``01`` are False and True, and an L may stand behind."""
    if line in (b"00", b"01"):
        return line == b"01"
    if not _INTEGER.fullmatch(line):
        raise FormatError(f"{ascii(line)[1:80]} in the pickle is no whole number")
    return int(line.removesuffix(b"L"))


def float_of(line: bytes) -> float:
    """Return a number of floating point."""
    if not _FLOAT.fullmatch(line):
        raise FormatError(f"{ascii(line)[1:80]} in the pickle is no number")
    return float(line)


def slot_of(line: bytes) -> int:
    """Return the number of a slot of the memo."""
    if not line.isdigit() or len(line) > 10:
        raise FormatError(f"{ascii(line)[1:80]} in the pickle is no slot of the memo")
    return int(line)


def quoted(line: bytes) -> bytes:
    """Return the bytes of a string in quotes, as Python 2 shows it."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise FormatError("a string in the pickle does not stand in quotes")
    try:
        return codecs.escape_decode(line[1:-1])[0]
    except ValueError:
        raise FormatError("a string in the pickle has a damaged escape") from None


def unescaped(line: bytes) -> str:
    """Return a text whose characters beyond Latin-1 are escaped."""
    try:
        return codecs.raw_unicode_escape_decode(line)[0]
    except UnicodeDecodeError:
        raise FormatError("a text in the pickle has a damaged escape") from None
