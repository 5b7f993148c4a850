"""Numbers and texts as protocols 0 and 1 write them: in letters, one a line."""

from __future__ import annotations

import codecs
import re

from ...errors import FormatError

__all__ = ["float_of", "integer_of", "quoted", "slot_of", "unescaped"]

_INTEGER = re.compile(rb"[+-]?\d+L?", re.ASCII)
_FLOAT = re.compile(rb"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|inf|nan)", re.IGNORECASE)


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
