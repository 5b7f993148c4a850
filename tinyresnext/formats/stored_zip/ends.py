"""The end records of a zip archive, which say where its central directory is.

Readers look for them from the end of the file backwards, and where there are several, they may
choose different ones. So an archive is accepted only where no reader has a choice: the last end
record is the last thing in the file, the directory ends where the end records begin, and the narrow
record and the wide one, if there is one, agree.
"""

from __future__ import annotations

import os
from typing import BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from .records import (
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    FULL,
    LOCATOR64,
    LOCATOR64_MAGIC,
    read_exactly,
)

__all__ = ["Directory", "find_directory"]

MOST_COMMENT = 0xFFFF  # bytes


class Directory(NamedTuple):
    """Where the central directory begins and ends, and the number of its entries.

    Without a wide record, the number is that of the entries modulo 65,536 in archives of some
    programs.
    """

    begin: int
    end: int
    entries: int


def find_directory(file: BinaryIO, comment: bool) -> Directory:
    """Return where the directory of an archive is.

    Parameters
    ----------
    file : binary file, seekable
    comment : bool
        Whether the archive may have a comment.

    Raises
    ------
    FormatError
        There is no directory, or not where the end records say.
    UnsafeError
        The end records contradict each other.
    """
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - END.size - (MOST_COMMENT if comment else 0))
    tail = read_exactly(file, start, size - start)
    at = tail.rfind(END_MAGIC)
    record = tail[at : at + END.size] if at >= 0 else b""
    length = int.from_bytes(record[-2:], "little")
    if len(record) < END.size or at + END.size + length != len(tail):
        raise FormatError(
            "the zip archive does not end with its directory: it is cut short, or something was "
            "appended"
        )
    return _read_end(file, start + at, record)


def _read_end(file: BinaryIO, at: int, record: bytes) -> Directory:
    """Return what the end record at a place says, and the wide one before it if there is one."""
    _, disk, first_disk, here, count, length, begin, _ = END.unpack(record)
    if disk or first_disk or here != count:
        raise FormatError("the zip archive has several parts; make it again as one file")
    end = at
    before = at - LOCATOR64.size
    locator = read_exactly(file, before, LOCATOR64.size) if before >= 0 else b""
    if locator.startswith(LOCATOR64_MAGIC):
        end = before - END64.size
        count, length, begin = _wide_end(file, end, locator, (count, length, begin))
    if begin + length != end:
        raise FormatError(
            f"the zip directory should end at byte {end}, its end record says {begin + length}"
        )
    return Directory(begin, end, count)


def _wide_end(
    file: BinaryIO, at: int, locator: bytes, narrow: tuple[int, int, int]
) -> tuple[int, int, int]:
    """Return count, length and begin from the zip64 end record, which must agree with the other."""
    if at < 0 or LOCATOR64.unpack(locator) != (LOCATOR64_MAGIC, 0, at, 1):
        raise FormatError("the zip64 locator does not point at the record before it")
    record = END64.unpack(read_exactly(file, at, END64.size))
    magic, rest, _, _, disk, first_disk, here, count, length, begin = record
    well_formed = magic == END64_MAGIC and rest == END64.size - 12
    if not well_formed or disk or first_disk or here != count:
        raise FormatError("the zip64 end record is damaged")
    wide, full = (count, length, begin), (0xFFFF, FULL, FULL)
    if any(a not in (b, most) for a, b, most in zip(narrow, wide, full, strict=True)):
        raise UnsafeError("the zip archive's two end records contradict each other")
    return wide
