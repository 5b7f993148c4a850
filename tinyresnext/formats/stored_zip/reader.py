"""Zip archives, read strictly: every byte of the file belongs to one member or to the directory.

The standard library's ``zipfile`` accepts archives that two readers understand differently: a name
twice, other data before, between or behind the members, sizes that are wrong. Here an archive is
accepted only if its parts fill it without a gap, and if the two descriptions of a member, its local
header and its entry in the central directory, agree.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from ...errors import FormatError, IntegrityError, UnsafeError, WeightsError
from ...system.files import PIECE, pieces
from .directory import MAX_MEMBERS, Entry, entries_in, read_directory
from .ends import find_directory
from .records import (
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTOR_MAGIC,
    FULL,
    LOCAL,
    LOCAL_MAGIC,
    read_exactly,
    wide_fields,
)

__all__ = ["Member", "check_crc", "listed_names", "read_members", "read_pieces", "unpacked"]


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its name, where its data begin in the file, their length in bytes, their CRC-32.

    ``packed`` is the length in the file: that of the data if they are stored; it may be any other
    if they are deflated.
    """

    name: str
    start: int
    size: int
    crc: int
    packed: int
    deflated: bool = False


def read_members(file: BinaryIO, *, deflated: bool = False) -> dict[str, Member]:
    """Return the archive's members by name, in the order of their data; folders are passed over.

    Parameters
    ----------
    file : binary file, seekable
        Only headers are read; `read_pieces` and `unpacked` read the data.
    deflated : bool
        Whether members may be compressed.

    Raises
    ------
    FormatError
        Not an archive of this kind: cut short, compressed, or its parts contradict each other.
    UnsafeError
        Made to be misread: bytes that belong to no member, overlapping members, names that leave
        the archive, links, or more members than a checkpoint has.
    """
    entries, begin = read_directory(file, deflated)
    members: dict[str, Member] = {}
    expected = 0
    for entry in entries:
        if entry.header != expected:
            raise UnsafeError(
                f"a zip member begins at byte {entry.header}, not at {expected}, where the one "
                "before it ends"
            )
        member, expected = _locate(file, entry, begin)
        if entry.is_folder:
            continue
        if member.name in members:
            raise UnsafeError(f"the zip archive has two members named {ascii(member.name)[:80]}")
        members[member.name] = member
    if expected != begin:
        raise UnsafeError(
            f"the zip archive has {begin - expected} bytes between its last member and its "
            "directory"
        )
    return members


def listed_names(file: BinaryIO) -> list[str]:
    """Return the names of the members, with nothing checked; none if there is no directory."""
    try:
        directory = find_directory(file, comment=True)
        listed = islice(entries_in(file, directory), MAX_MEMBERS)
        return [entry.name.decode("utf-8", "replace") for _, entry in listed]
    except WeightsError:
        return []


def read_pieces(file: BinaryIO, member: Member) -> Iterator[memoryview]:
    """Yield the bytes of a stored member; a piece is valid until the next. The CRC is checked last.

    Raises
    ------
    FormatError
        The file is cut short.
    IntegrityError
        The CRC differs: the data were changed after the archive was written.
    """
    crc = 0
    for piece in pieces(file, member.start, member.size, member.name):
        crc = zlib.crc32(piece, crc)
        yield piece
    check_crc(member, crc)


def check_crc(member: Member, crc: int) -> None:
    """Raise `IntegrityError` if the CRC of what was read is not the one that the archive states."""
    if crc != member.crc:
        raise IntegrityError(
            f"{member.name} is damaged: its CRC-32 is not the one stored with it; "
            "download or copy the file again"
        )


def unpacked(file: BinaryIO, member: Member, most: int) -> Iterator[bytes | memoryview]:
    """Yield a member's bytes, stored or deflated, if at most the first ``most`` are wanted.

    The CRC is not checked. A piece is valid until the next.
    """
    if member.deflated:
        return _inflated(file, member, max(1, min(most, PIECE)))  # for zlib, 0 is no limit
    return pieces(file, member.start, min(member.size, most), member.name)


def _inflated(file: BinaryIO, member: Member, limit: int) -> Iterator[bytes]:
    """Yield a compressed member's bytes, in pieces of at most ``limit``.

    Raises
    ------
    FormatError
        The deflated data are damaged, or are not as long as the directory says.
    UnsafeError
        The data continue beyond that length.
    """
    unpack, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for packed in pieces(file, member.start, member.packed, member.name):
        data, full = bytes(packed), True
        while data or full:  # zlib may hold more although it has taken all its input
            if unpack.eof:
                break
            try:
                out = unpack.decompress(data, limit)
            except zlib.error as error:
                raise FormatError(
                    f"{member.name} cannot be unpacked ({error}); download or copy the file again"
                ) from None
            data, full, total = unpack.unconsumed_tail, len(out) == limit, total + len(out)
            if total > member.size:
                break
            yield out
        if data or unpack.unused_data or total > member.size:
            raise UnsafeError(
                f"{member.name} continues beyond the {member.size:,} bytes that the directory "
                "states"
            )
    if not unpack.eof or total != member.size:
        raise FormatError(
            f"{member.name} unpacks to {total:,} bytes; the directory says {member.size:,}; "
            "download or copy the file again"
        )


def _locate(file: BinaryIO, entry: Entry, directory: int) -> tuple[Member, int]:
    """Check the local header against the entry; return the member and the offset behind it."""
    where = f"zip member {ascii(entry.name)[2:-1][:80]}"
    fixed = read_exactly(file, entry.header, LOCAL.size)
    magic, _, flags, method, _, _, crc, packed, size, n_name, n_extra = LOCAL.unpack(fixed)
    start = entry.header + LOCAL.size + n_name + n_extra
    if start + entry.packed > directory:
        raise FormatError(f"{where} does not fit before the directory")
    text = read_exactly(file, entry.header + LOCAL.size, n_name + n_extra)
    name, extra = text[:n_name], text[n_name:]
    same = (magic, name, flags, method) == (LOCAL_MAGIC, entry.name, entry.flags, entry.method)
    if same:
        # NumPy asks for 64-bit fields in the local header even where the directory needs none.
        told = (crc, *wide_fields(extra, [size, packed]))
        deferred = bool(flags & DESCRIPTOR) and told == (0, 0, 0)
        same = deferred or told == (entry.crc, entry.size, entry.packed)
    if not same:
        raise UnsafeError(f"{where}: its local header differs from the directory")
    end = start + entry.packed
    if flags & DESCRIPTOR:
        end = _check_descriptor(file, entry, end, directory, where)
    name_in = _checked_name(entry.name.removesuffix(b"/") if entry.is_folder else entry.name)
    deflated = entry.method == DEFLATED
    return Member(name_in, start, entry.size, entry.crc, entry.packed, deflated), end


def _check_descriptor(file: BinaryIO, entry: Entry, at: int, directory: int, where: str) -> int:
    """Check the data descriptor, which repeats CRC and sizes, and return its end (4.3.9).

    Its signature may be missing. The next part must begin where it ends, so no wrong form passes.
    """
    found = read_exactly(file, at, min(24, directory - at))
    layouts = ("<I2Q", "<3I") if max(entry.size, entry.packed) < FULL else ("<I2Q",)
    for magic in (DESCRIPTOR_MAGIC, b""):
        for layout in layouts:
            expected = magic + struct.pack(layout, entry.crc, entry.packed, entry.size)
            if found.startswith(expected):
                return at + len(expected)
    raise UnsafeError(f"{where}: the descriptor behind its data differs from the directory")


def _checked_name(raw: bytes) -> str:
    """Return a member's name, which must be a relative path that stays inside the archive."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("a zip member's name is not UTF-8") from None
    leaves = any(part in ("", ".", "..") for part in name.split("/"))
    if leaves or any(c in name for c in "\\:") or not name.isprintable():
        raise UnsafeError(
            f"a zip member has the name {ascii(name)[:80]}, which is not a plain relative path"
        )
    return name
