"""Zip archives as people pack them: any number of files in folders, comments, names of old systems.

Such an archive is read where it is. It may have gaps, comments and compressed members, which
archives of tensors (see `reader`) may not. It may not have what two readers understand differently:
a name twice, members that overlap, a name that leads elsewhere, a name that differs between the
directory and the member's own header.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from array import array
from typing import BinaryIO, NamedTuple

import numpy as np

from ...errors import FormatError, UnsafeError
from .directory import Entry, entries_in, entry_at
from .ends import Directory, find_directory
from .names import Names
from .reader import Member, check_crc, unpacked
from .records import DEFLATED, LOCAL, LOCAL_MAGIC, UTF8, read_exactly

__all__ = ["MOST_LEVELS", "Archive", "Folder", "open_archive", "read_whole"]

MOST_LEVELS = 32  # folders inside each other; data sets have three or four
_MOST_PART = 255  # characters of a name, which is what file systems allow
# A member takes the bytes of its name and 12, and a folder about 700, of memory. So what a
# directory takes stays within the length of the file and some 60 MB.
_FEW_MEMBERS, _MEMBER = 100_000, 512
_FEW_FOLDERS, _FOLDER = 20_000, 1024
_ENCRYPTED = 0x0001
_UNICODE_PATH = 0x7075  # 4.6.9: the tag of the block with a member's name in UTF-8


class Folder(NamedTuple):
    """What is in a folder of an archive: the folders, and the files with their entries' places."""

    folders: set[str]
    files: Names


class Archive(NamedTuple):
    """An archive: where its directory is, and its folders by the parts of their paths."""

    directory: Directory
    folders: dict[tuple[str, ...], Folder]


def open_archive(file: BinaryIO) -> Archive:
    """Read the directory of an archive, in blocks.

    Raises
    ------
    FormatError
        Not an archive, or one that is damaged.
    UnsafeError
        A name leads elsewhere, is there twice, is too long or has too many levels; a member is a
        link or a device; members overlap; there are more members than such a file can mean.
    """
    directory = find_directory(file, comment=True)
    found = Archive(directory, {(): Folder(set(), Names())})
    most = _FEW_MEMBERS + directory.end // _MEMBER
    count, behind, apart = 0, 0, True  # where the last member ends; whether the next begins there
    for at, entry in entries_in(file, directory):
        if count == most:
            raise UnsafeError(
                f"the zip archive has more members than the {most:,} that one of its length may "
                "have; unpack it and give the folder"
            )
        end = _end(entry)
        if end > directory.begin:
            raise FormatError("a zip member does not fit before the directory")
        apart, behind = apart and entry.header >= behind, end
        count += 1
        _add(found.folders, entry, at, _FEW_FOLDERS + directory.end // _FOLDER)
    if count != directory.entries and count & 0xFFFF != directory.entries:
        raise FormatError(f"the zip directory has {count} entries and states {directory.entries}")
    if not apart:  # members are listed in another order than they stand in, which is allowed
        _check_apart(file, directory)
    for place, folder in found.folders.items():
        _check_names(place, folder)
    return found


def _end(entry: Entry) -> int:
    """Return where a member ends, at the earliest."""
    return entry.header + LOCAL.size + len(entry.name) + entry.packed


def _check_apart(file: BinaryIO, directory: Directory) -> None:
    """Raise `UnsafeError` for members that overlap; their places take 40 bytes of memory each."""
    spans = array("Q")  # where each member begins and ends
    for _, entry in entries_in(file, directory):
        spans.extend((entry.header, _end(entry)))
    begins, ends = np.frombuffer(spans, np.uint64).reshape(-1, 2).T
    order = np.argsort(begins)
    if (begins[order][1:] < ends[order][:-1]).any():
        raise UnsafeError("members of the zip archive overlap; create the archive again")


def _check_names(place: tuple[str, ...], folder: Folder) -> None:
    """Sort the names of a folder; raise `UnsafeError` if one is there twice."""
    if (twice := folder.files.sort()) is not None:
        name = ascii("/".join((*place, twice)))
        raise UnsafeError(
            f"the zip archive has two members called {name[:80]}; create the archive again"
        )
    if any(name in folder.files for name in folder.folders):
        raise UnsafeError("the zip archive has a folder and a file of the same name")


def read_whole(file: BinaryIO, archive: Archive, place: int, most: int) -> bytes:
    """Return the bytes of the member whose entry is at a place, if there are at most ``most``.

    Raises
    ------
    FormatError
        It is damaged, encrypted, or compressed by an unusual method.
    IntegrityError
        Its CRC differs.
    UnsafeError
        It is too long, continues beyond the length that the archive states, or has another name.
    """
    entry = entry_at(file, place, archive.directory)
    if entry.size > most:
        raise UnsafeError(f"it has {entry.size:,} bytes, more than the {most:,} that are accepted")
    fixed = LOCAL.unpack(read_exactly(file, entry.header, LOCAL.size))
    magic, flags, method, n_name, n_extra = fixed[0], fixed[2], fixed[3], fixed[9], fixed[10]
    start = entry.header + LOCAL.size + n_name + n_extra
    name = read_exactly(file, entry.header + LOCAL.size, n_name)
    if (magic, name, method) != (LOCAL_MAGIC, entry.name, entry.method):
        raise UnsafeError("its local header differs from the directory")
    if (flags | entry.flags) & _ENCRYPTED:
        raise FormatError("it is encrypted; create the archive again without a password")
    if method not in (0, DEFLATED):
        raise FormatError(
            f"it is compressed by method {method}; create the archive again with deflate"
        )
    whole = entry.size == entry.packed or method
    if start + entry.packed > archive.directory.begin or not whole:
        raise FormatError("its size is not what the directory says")
    if entry.packed > 2 * entry.size + 4096:
        raise UnsafeError(f"it is packed into {entry.packed:,} bytes, more than it can need")
    member = Member("it", start, entry.size, entry.crc, entry.packed, method == DEFLATED)
    data = io.BytesIO()  # its bytes are handed over without a copy
    for piece in unpacked(file, member, member.size):
        data.write(piece)
    check_crc(member, zlib.crc32(data.getbuffer()))
    return data.getvalue()


def _add(
    folders: dict[tuple[str, ...], Folder], entry: Entry, place: int, most_folders: int
) -> None:
    """Add an entry to its folder, and the folder to those around it."""
    name = _name(entry)
    *above, last = parts = tuple(name.removesuffix("/").split("/"))
    _check(name, parts, entry.kind)
    around = tuple(above)
    if around not in folders:
        for depth in range(len(around)):
            folders.setdefault(around[: depth + 1], Folder(set(), Names()))
            folders[around[:depth]].folders.add(around[depth])
        if len(folders) > most_folders:
            raise UnsafeError(
                f"the zip archive has more than {most_folders:,} folders; unpack it and give the "
                "folder"
            )
    if name.endswith("/"):
        folders.setdefault(parts, Folder(set(), Names()))
        folders[around].folders.add(last)
    else:
        folders[around].files.add(last, place)


def _name(entry: Entry) -> str:
    """Return the name, with slashes for the backslashes that Windows PowerShell writes.

    Programs of macOS write UTF-8 and do not say so. A name in cp437, which the format has where
    nothing else is said, is hardly ever UTF-8 too.
    """
    try:
        if entry.flags & UTF8:
            name = entry.name.decode()
        else:
            name = (_unicode_path(entry) if entry.extra else "") or _unsaid(entry.name)
    except UnicodeDecodeError:
        raise FormatError(
            f"the zip archive has a name that is not UTF-8, {ascii(entry.name)[:80]}; "
            "create the archive again"
        ) from None
    return name.replace("\\", "/")


def _unsaid(name: bytes) -> str:
    """Return a name of which the archive does not say how it is written."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _unicode_path(entry: Entry) -> str:
    """Return the name in UTF-8 that old programs put beside a name in another encoding."""
    extra = entry.extra
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<2H", extra)
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == _UNICODE_PATH and body[:5] == struct.pack("<BI", 1, zlib.crc32(entry.name)):
            return body[5:].decode()
    return ""


def _check(name: str, parts: tuple[str, ...], kind: int) -> None:
    """Raise `UnsafeError` for a name that leads elsewhere or is too long, and for a link."""
    plain = ":" not in parts[0] and not any(part in ("", ".", "..") for part in parts)
    if not plain or "\0" in name:
        raise UnsafeError(
            f"it has a member called {ascii(name)[:80]}, which is no plain relative path"
        )
    if len(parts) > MOST_LEVELS or max(map(len, parts)) > _MOST_PART:
        raise UnsafeError(
            f"it has a member called {ascii(name)[:80]}..., {len(parts) - 1} folders deep; at most "
            f"{MOST_LEVELS - 1} are accepted, and names of at most {_MOST_PART} characters"
        )
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeError(
            f"it has a member {ascii(name)[:80]} that is a link or a device; pack the files "
            "themselves"
        )
