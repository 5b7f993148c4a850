"""Zip archives with stored (uncompressed) members, read strictly and written plainly.

PyTorch's zip checkpoints are such archives, and so is NumPy's ``.npz``, whose members may also be
deflated. The standard library's ``zipfile`` accepts archives that two readers understand
differently: a name twice, other data before, between or behind the members, sizes that lie. Here an
archive is accepted only if every byte of the file belongs to exactly one member or to the
directory, and if the two descriptions of a member, local header and central directory, agree.

The section numbers are those of PKWARE's APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import FormatError, IntegrityError, UnsafeError, UsageError
from ..system.files import pieces

__all__ = ["Member", "read_members", "read_pieces", "write"]

# About 500 bytes each here; a ResNeXt-101 with optimiser and averaged copy has 3,200
MAX_MEMBERS = 20_000
MAX_DIRECTORY = 4 << 20  # bytes, read at once; 130 for each member
ALIGNMENT = 64  # of a member's first byte, as PyTorch writes it: whole cache lines

_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_END = struct.Struct("<4s4H2IH")  # 4.3.16
_END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sIQI")  # 4.3.15
_FULL = 0xFFFFFFFF  # "see the 64-bit field"
_DESCRIPTOR, _UTF8 = 0x0008, 0x0800  # the two flags that a stored member may carry


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its name, where its data begin in the file, their length in bytes and their CRC-32.

    ``packed`` is the length in the file: that of the data where they are stored, any other where
    they are deflated.
    """

    name: str
    start: int
    size: int
    crc: int
    packed: int
    deflated: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the central directory."""

    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    crc: int
    header: int


def read_members(file: BinaryIO, *, deflated: bool = False) -> dict[str, Member]:
    """The archive's members by name, in the order of their data.

    Parameters
    ----------
    file : binary file, seekable
        Only headers are read; see `read_pieces` for the data.
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
    size = file.seek(0, os.SEEK_END)
    begin, end, count = _find_directory(file, size)
    directory = _read(file, begin, end - begin)
    entries = []
    offset = 0
    for _ in range(count):
        entry, offset = _read_entry(directory, offset, deflated)
        entries.append(entry)
    if offset != len(directory):
        raise UnsafeError(
            f"the zip directory has {len(directory) - offset} bytes beyond its {count} entries"
        )
    entries.sort(key=lambda e: e.header)
    members: dict[str, Member] = {}
    expected = 0
    for entry in entries:
        if entry.header != expected:
            raise UnsafeError(
                f"a zip member begins at byte {entry.header}, not {expected} where the one before it ends"
            )
        member, expected = _locate(file, entry, begin)
        if member.name in members:
            raise UnsafeError(f"the zip archive has two members named {ascii(member.name)[:80]}")
        members[member.name] = member
    if expected != begin:
        raise UnsafeError(
            f"the zip archive has {begin - expected} bytes between its last member and its directory"
        )
    return members


def read_pieces(file: BinaryIO, member: Member) -> Iterator[memoryview]:
    """The bytes of a stored member; each piece is valid until the next. The CRC is checked behind the last.

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
    if crc != member.crc:
        raise IntegrityError(
            f"{member.name} is damaged: its CRC-32 is not the one stored with it; fetch the file again"
        )


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Begin, end and number of entries of the central directory, which must lie at the very end of the file."""
    at = size - _END.size
    tail = _read(file, at, _END.size) if at >= 0 else b""
    if not tail.startswith(b"PK\x05\x06"):
        raise FormatError(
            "the zip archive does not end with its directory: it is cut short, or something was appended"
        )
    _, disk, first_disk, here, count, length, begin, comment = _END.unpack(tail)
    if disk or first_disk or here != count or comment:
        raise FormatError(
            "the zip archive has several parts or a comment, which PyTorch never writes"
        )
    end = at
    locator = _read(file, at - _LOCATOR64.size, _LOCATOR64.size) if at >= _LOCATOR64.size else b""
    if locator.startswith(b"PK\x06\x07"):
        end = at - _LOCATOR64.size - _END64.size
        if end < 0 or _LOCATOR64.unpack(locator) != (b"PK\x06\x07", 0, end, 1):
            raise FormatError("the zip64 locator does not point at the record before it")
        magic, rest, _, _, disk, first_disk, here, count64, length64, begin64 = _END64.unpack(
            _read(file, end, _END64.size)
        )
        if (
            magic != b"PK\x06\x06"
            or rest != _END64.size - 12
            or disk
            or first_disk
            or here != count64
        ):
            raise FormatError("the zip64 end record is damaged")
        pairs = ((count, count64, 0xFFFF), (length, length64, _FULL), (begin, begin64, _FULL))
        if any(small not in (large, full) for small, large, full in pairs):
            raise UnsafeError("the zip archive's two end records contradict each other")
        count, length, begin = count64, length64, begin64
    if begin + length != end:
        raise FormatError(
            f"the zip directory should end at byte {end}, its end record says {begin + length}"
        )
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise UnsafeError(
            f"the zip archive declares {count} members; a checkpoint has at most {MAX_MEMBERS}"
        )
    return begin, end, count


def _read_entry(directory: bytes, offset: int, deflated: bool) -> tuple[_Entry, int]:
    """One entry of the central directory and the offset of the next."""
    if len(directory) - offset < _CENTRAL.size:
        raise FormatError("the zip directory is cut short")
    fields = _CENTRAL.unpack_from(directory, offset)
    (
        magic,
        made_by,
        _,
        flags,
        method,
        _,
        _,
        crc,
        packed,
        size,
        n_name,
        n_extra,
        n_comment,
        disk,
        _,
        attributes,
        header,
    ) = fields
    name_end = offset + _CENTRAL.size + n_name
    name = directory[name_end - n_name : name_end]
    extra = directory[name_end : name_end + n_extra]
    if magic != b"PK\x01\x02" or len(name) != n_name or len(extra) != n_extra or n_comment or disk:
        raise FormatError("the zip directory is damaged")
    if flags & ~(_DESCRIPTOR | _UTF8):
        raise FormatError(
            f"a zip member is encrypted, patched or otherwise unusual (flags 0x{flags:04x})"
        )
    if method not in ((0, 8) if deflated else (0,)):
        raise FormatError(
            "a zip member is compressed in a way that is not read; unpack the members and store them (zip -0)"
        )
    if made_by >> 8 == 3 and stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG):
        raise UnsafeError("a zip member is a link or a device")
    size, packed, header = _wide_fields(extra, [size, packed, header])
    if size != packed and not method:
        raise FormatError("a stored zip member has two different sizes")
    return _Entry(name, flags, method, packed, size, crc, header), name_end + n_extra


def _wide_fields(extra: bytes, fields: list[int]) -> list[int]:
    """Replace each field that says 0xFFFFFFFF by its 64-bit value in the zip64 extra block (4.5.3)."""
    missing = fields.count(_FULL)
    if not missing:
        return fields
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<2H", extra)
        if tag == 1 and length == 8 * missing and len(extra) >= 4 + length:
            values = iter(struct.unpack_from(f"<{missing}Q", extra, 4))
            return [next(values) if field == _FULL else field for field in fields]
        extra = extra[4 + length :]
    raise FormatError("a zip member's 64-bit size is missing")


def _locate(file: BinaryIO, entry: _Entry, directory: int) -> tuple[Member, int]:
    """Check the local header against the directory; the member and the offset behind it."""
    where = f"zip member {ascii(entry.name)[2:-1][:80]}"
    fixed = _read(file, entry.header, _LOCAL.size)
    magic, _, flags, method, _, _, crc, packed, size, n_name, n_extra = _LOCAL.unpack(fixed)
    start = entry.header + _LOCAL.size + n_name + n_extra
    if start + entry.packed > directory:
        raise FormatError(f"{where} does not fit before the directory")
    text = _read(file, entry.header + _LOCAL.size, n_name + n_extra)
    name, extra = text[:n_name], text[n_name:]
    deferred = bool(flags & _DESCRIPTOR) and (crc, packed, size) == (0, 0, 0)
    if (
        magic != b"PK\x03\x04"
        or name != entry.name
        or (flags, method) != (entry.flags, entry.method)
    ):
        raise UnsafeError(f"{where}: its local header differs from the directory")
    # NumPy asks for 64-bit fields in the local header even where the directory needs none.
    if not deferred and (crc, *_wide_fields(extra, [size, packed])) != (
        entry.crc,
        entry.size,
        entry.packed,
    ):
        raise UnsafeError(f"{where}: its local header differs from the directory")
    end = start + entry.packed
    if flags & _DESCRIPTOR:
        end = _check_descriptor(file, entry, end, directory, where)
    return Member(
        _checked_name(entry.name), start, entry.size, entry.crc, entry.packed, entry.method == 8
    ), end


def _check_descriptor(file: BinaryIO, entry: _Entry, at: int, directory: int, where: str) -> int:
    """The data descriptor behind a member (4.3.9) repeats CRC and sizes; the offset behind it."""
    found = _read(file, at, min(24, directory - at))
    head = struct.pack("<4sI", b"PK\x07\x08", entry.crc)
    for layout in ("<2Q", "<2I") if max(entry.size, entry.packed) < _FULL else ("<2Q",):
        expected = head + struct.pack(layout, entry.packed, entry.size)
        if found.startswith(expected):
            return at + len(expected)
    raise UnsafeError(f"{where}: what stands behind its data differs from the directory")


def _checked_name(raw: bytes) -> str:
    """A relative name that stays inside the archive."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("a zip member's name is not UTF-8") from None
    if (
        any(part in ("", ".", "..") for part in name.split("/"))
        or any(c in name for c in "\\:")
        or not name.isprintable()
    ):
        raise UnsafeError(
            f"a zip member has the name {ascii(name)[:80]}, which is no plain relative path"
        )
    return name


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    """Exactly ``count`` bytes at ``offset``."""
    file.seek(offset)
    data = file.read(count)
    if len(data) != count:
        raise FormatError(f"the zip archive is cut short at byte {offset + len(data)}")
    return data


def write(file: BinaryIO, members: Iterable[tuple[str, list[bytes | memoryview]]]) -> None:
    """Write an archive with stored members whose data begin at multiples of 64 bytes. Equal input, equal bytes.

    Parameters
    ----------
    file : binary file
        Empty, at its beginning.
    members : iterable of (name, parts)
        ASCII names, and the pieces that make up each member.

    Raises
    ------
    UsageError
        The archive would reach 4 GiB or 65,535 members, beyond which other readers need the zip64
        form.
    """
    directory = []
    for name, parts in members:
        raw = name.encode("ascii")
        header = file.tell()
        size = sum(memoryview(part).nbytes for part in parts)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        if header + size + (1 << 16) >= _FULL or len(directory) >= 0xFFFE:
            raise UsageError("the archive would exceed 4 GiB; write .safetensors or .h5 instead")
        padding = 4 + -(header + _LOCAL.size + len(raw) + 4) % ALIGNMENT
        common = (0, 0, 0, 0x21, crc, size, size, len(raw))  # flags, method, 0:00, 1 January 1980
        file.write(_LOCAL.pack(b"PK\x03\x04", 20, *common, padding))
        file.write(
            raw + struct.pack("<2H", 0x4246, padding - 4) + bytes(padding - 4)
        )  # PyTorch's own padding block
        for part in parts:
            file.write(part)
        directory.append(_CENTRAL.pack(b"PK\x01\x02", 20, 20, *common, 0, 0, 0, 0, 0, header) + raw)
    begin = file.tell()
    listing = b"".join(directory)
    file.write(listing)
    file.write(
        _END.pack(b"PK\x05\x06", 0, 0, len(directory), len(directory), len(listing), begin, 0)
    )
