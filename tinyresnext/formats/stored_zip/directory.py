"""The central directory of a zip archive: its entries, one after the other.

A directory may be larger than memory should hold, so it is read in blocks, and the caller limits
what it keeps of the entries.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from .ends import Directory, find_directory
from .records import CENTRAL, CENTRAL_MAGIC, DEFLATED, DESCRIPTOR, UTF8, read_exactly, wide_fields

__all__ = ["MAX_MEMBERS", "Entry", "entries_in", "entry_at", "read_directory"]

# an entry takes about 500 bytes here; a ResNeXt-101 with optimiser and averaged copy has 3,200
MAX_MEMBERS = 20_000
MAX_DIRECTORY = 4 << 20  # bytes; an entry has about 130
_BLOCK = 1 << 20  # bytes read at once
_MOST_ENTRY = CENTRAL.size + 3 * 0xFFFF  # bytes of an entry: its name, extra field and comment


class Entry(NamedTuple):
    """One entry of the central directory; ``header`` is where the member's local header begins.

    ``kind`` is the type of file that Unix states, or 0; ``comment`` is the length of the comment.
    """

    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    crc: int
    header: int
    kind: int
    extra: bytes
    comment: int

    @property
    def is_folder(self) -> bool:
        """Return whether this stands for a folder, as other programs list them."""
        return self.name.endswith(b"/") and not self.size and not self.packed


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
    directory = find_directory(file, comment=False)
    if directory.entries > MAX_MEMBERS or directory.end - directory.begin > MAX_DIRECTORY:
        raise UnsafeError(
            f"the zip archive declares {directory.entries} members; a checkpoint has at most "
            f"{MAX_MEMBERS}"
        )
    entries: list[Entry] = []
    listed = entries_in(file, directory)
    for _, entry in islice(listed, directory.entries):
        _check_plain(entry, deflated)
        entries.append(entry)
    if len(entries) != directory.entries:
        raise FormatError("the zip directory is cut short")
    try:
        more = next(listed, None) is not None
    except FormatError:  # what follows is no entry
        more = True
    if more:
        raise UnsafeError(f"the zip directory has bytes beyond its {directory.entries} entries")
    return sorted(entries, key=lambda entry: entry.header), directory.begin


def _check_plain(entry: Entry, deflated: bool) -> None:
    """Raise an error for an entry that an archive of tensors does not have."""
    if entry.comment:
        raise FormatError("the zip directory has comments, which PyTorch never writes")
    if entry.flags & ~(DESCRIPTOR | UTF8):
        raise FormatError(
            f"a zip member is encrypted, patched or otherwise unusual (flags 0x{entry.flags:04x})"
        )
    if entry.method not in ((0, DEFLATED) if deflated else (0,)):
        raise FormatError(
            "a zip member is compressed with a method that is not read; unpack the archive, and "
            "pack its folder again without compression (zip -0 -r NEW.pth FOLDER)"
        )
    if entry.kind not in (0, stat.S_IFDIR if entry.is_folder else stat.S_IFREG):
        raise UnsafeError("a zip member is a link or a device")
    if entry.size != entry.packed and not entry.method:
        raise FormatError("a stored zip member has two different sizes")


def entries_in(file: BinaryIO, directory: Directory) -> Iterator[tuple[int, Entry]]:
    """Yield the place of each entry in the file, and the entry; only a block is in memory.

    Raises
    ------
    FormatError
        The directory is damaged.
    """
    data, offset, read = b"", 0, directory.begin
    while offset < len(data) or read < directory.end:
        if len(data) - offset < _MOST_ENTRY and read < directory.end:
            more = read_exactly(file, read, min(_BLOCK, directory.end - read))
            data, offset, read = data[offset:] + more, 0, read + len(more)
        entry, end = _parse(data, offset)
        yield read - len(data) + offset, entry
        offset = end


def entry_at(file: BinaryIO, place: int, directory: Directory) -> Entry:
    """Return the entry at a place that `entries_in` yielded."""
    count = min(_MOST_ENTRY, directory.end - place)
    return _parse(read_exactly(file, place, count), 0)[0]


def _parse(data: bytes, offset: int) -> tuple[Entry, int]:
    """Return the entry at an offset and the offset of the next."""
    if len(data) - offset < CENTRAL.size:
        raise FormatError("the zip directory is cut short")
    fields = CENTRAL.unpack_from(data, offset)
    magic, made_by, _, flags, method, _, _, crc, packed, size = fields[:10]
    n_name, n_extra, n_comment, disk, _, attributes, header = fields[10:]
    name_end = offset + CENTRAL.size + n_name
    end = name_end + n_extra + n_comment
    if magic != CENTRAL_MAGIC or end > len(data) or disk:
        raise FormatError("the zip directory is damaged")
    name, extra = data[name_end - n_name : name_end], data[name_end : name_end + n_extra]
    size, packed, header = wide_fields(extra, [size, packed, header])
    kind = stat.S_IFMT(attributes >> 16) if made_by >> 8 == 3 else 0
    return Entry(name, flags, method, packed, size, crc, header, kind, extra, n_comment), end
