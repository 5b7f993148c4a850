"""The central directory of a zip archive: finding it, and reading its entries."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from .records import (
    CENTRAL,
    CENTRAL_MAGIC,
    DEFLATED,
    DESCRIPTOR,
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    FULL,
    LOCATOR64,
    LOCATOR64_MAGIC,
    UTF8,
    read_exactly,
    wide_fields,
)

__all__ = ["Entry", "read_directory"]

# an entry takes about 500 bytes here; a ResNeXt-101 with optimiser and averaged copy has 3,200
MAX_MEMBERS = 20_000
MAX_DIRECTORY = 4 << 20  # bytes, read at once; an entry has about 130


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the central directory; ``header`` is where the member's local header begins."""

    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    crc: int
    header: int


def read_directory(file: BinaryIO, deflated: bool) -> tuple[list[Entry], int]:
    """Return the entries in the order of their data, and the offset at which the directory begins.

    Parameters
    ----------
    file : binary file, seekable
    deflated : bool
        Whether members may be compressed.

    Raises
    ------
    FormatError, UnsafeError
        As for `reader.read_members`.
    """
    size = file.seek(0, os.SEEK_END)
    begin, end, count = _find_directory(file, size)
    directory = read_exactly(file, begin, end - begin)
    entries = []
    offset = 0
    for _ in range(count):
        entry, offset = _read_entry(directory, offset, deflated)
        entries.append(entry)
    if offset != len(directory):
        raise UnsafeError(
            f"the zip directory has {len(directory) - offset} bytes beyond its {count} entries"
        )
    return sorted(entries, key=lambda entry: entry.header), begin


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return begin, end and number of entries of the directory, the last part of the file."""
    at = size - END.size
    tail = read_exactly(file, at, END.size) if at >= 0 else b""
    if not tail.startswith(END_MAGIC):
        raise FormatError(
            "the zip archive does not end with its directory: it is cut short, or something was "
            "appended"
        )
    _, disk, first_disk, here, count, length, begin, comment = END.unpack(tail)
    if disk or first_disk or here != count or comment:
        raise FormatError(
            "the zip archive has several parts or a comment, which PyTorch never writes"
        )
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
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise UnsafeError(
            f"the zip archive declares {count} members; a checkpoint has at most {MAX_MEMBERS}"
        )
    return begin, end, count


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


def _read_entry(directory: bytes, offset: int, deflated: bool) -> tuple[Entry, int]:
    """Return one entry of the central directory and the offset of the next."""
    if len(directory) - offset < CENTRAL.size:
        raise FormatError("the zip directory is cut short")
    fields = CENTRAL.unpack_from(directory, offset)
    magic, made_by, _, flags, method, _, _, crc, packed, size = fields[:10]
    n_name, n_extra, n_comment, disk, _, attributes, header = fields[10:]
    name_end = offset + CENTRAL.size + n_name
    name = directory[name_end - n_name : name_end]
    extra = directory[name_end : name_end + n_extra]
    complete = len(name) == n_name and len(extra) == n_extra
    if magic != CENTRAL_MAGIC or not complete or n_comment or disk:
        raise FormatError("the zip directory is damaged")
    if flags & ~(DESCRIPTOR | UTF8):
        raise FormatError(
            f"a zip member is encrypted, patched or otherwise unusual (flags 0x{flags:04x})"
        )
    if method not in ((0, DEFLATED) if deflated else (0,)):
        raise FormatError(
            "a zip member is compressed with a method that is not read; unpack the members and "
            "store them (zip -0)"
        )
    if made_by >> 8 == 3 and stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG):
        raise UnsafeError("a zip member is a link or a device")
    size, packed, header = wide_fields(extra, [size, packed, header])
    if size != packed and not method:
        raise FormatError("a stored zip member has two different sizes")
    return Entry(name, flags, method, packed, size, crc, header), name_end + n_extra
