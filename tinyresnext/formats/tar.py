"""Reading tar archives: a few files of one, compressed with gzip or not, or where each file is.

The standard library's ``tarfile`` follows what an archive says: headers of any length, links,
sparse files. Here an archive is a row of plain files and folders with short names, in blocks of 512
bytes (POSIX 1003.1, "ustar Interchange Format"). Only the files that are asked for are kept, and
everything else that an archive can hold is refused.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from ..errors import FormatError, IntegrityError, UnsafeError

__all__ = ["BLOCK", "MAX_PART", "Placed", "fields", "files_in", "placed", "read_tar", "unpacking"]

MAX_PART = 256 << 20
"""Bytes of one file; the training images of CIFAR-100 have 154 MB."""

_MAX_UNPACKED = 1 << 30  # bytes of the whole archive, unpacked
# Photographs hardly become smaller: the published archives unpack to 1.1 times their size.
_MOST_RATIO, _FEW_BYTES = 2, 8 << 20
_MAX_MEMBERS = 1000  # the published archives have nine
_MAX_NOTE = 64 << 10  # bytes of an extended header, such as a time in fractions of a second
BLOCK = 512  # bytes of a header, which stands before each file
_CHUNK = 1 << 20


def read_tar(file: BinaryIO, wanted: Collection[str]) -> dict[str, bytes]:
    """Return the wanted files of an archive, by the last part of their names.

    Parameters
    ----------
    file : binary file
        At its beginning; a tar archive, or one inside gzip.
    wanted : collection of str
        The last parts of the names: without folders.

    Raises
    ------
    FormatError
        It is not such an archive, or it is cut short.
    IntegrityError
        A checksum is wrong.
    UnsafeError
        It has links, devices or names that lead elsewhere, or holds more than any data set that we
        read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(2)
    file.seek(0)
    most = min(_MAX_UNPACKED, _MOST_RATIO * size + _FEW_BYTES)
    stream = _Stream(gzip.GzipFile(fileobj=file) if start == b"\x1f\x8b" else file, most)
    found: dict[str, bytes] = {}
    for _ in range(_MAX_MEMBERS):
        header = stream.take(BLOCK)
        if not any(header):
            stream.expect_zeros()
            return found
        name, kind, size = _parse(header)
        padded = -(-size // BLOCK) * BLOCK
        last = name.rsplit("/", 1)[-1]
        if kind == "note":
            _name_in(stream.take, padded)
        elif kind == "file" and last in wanted:
            if size > MAX_PART:
                raise UnsafeError(
                    f"{name} in the archive has {size:,} bytes, more than the {MAX_PART:,} that "
                    "are accepted"
                )
            if last in found:
                raise UnsafeError(
                    f"the archive has two files called {last}; download it again from its publisher"
                )
            found[last] = stream.take(size)
            stream.skip(padded - size)
        else:
            stream.skip(padded)
    raise UnsafeError(
        f"the archive has more than {_MAX_MEMBERS} members; a data set of this kind has about ten"
    )


def placed(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Return the first byte and the size of each file in an archive that is not compressed.

    Nothing of these files is read.

    Raises
    ------
    FormatError
        It is not such an archive, or it is cut short.
    UnsafeError
        It has links, devices or names that lead elsewhere, or two files of one name.
    """
    end = file.seek(0, os.SEEK_END)
    found: dict[str, tuple[int, int]] = {}
    at = 0
    for _ in range(_MAX_MEMBERS):
        file.seek(at)
        header = file.read(BLOCK)
        if not any(header) and len(header) == BLOCK:
            return found
        name, kind, size = _parse(header)
        start, at = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
        if at > end:
            raise FormatError(f"the archive is cut short in {ascii(name)[:80]}; fetch it again")
        if kind == "note":
            _name_in(file.read, size)
        elif kind == "file" and found.setdefault(name, (start, size)) != (start, size):
            raise UnsafeError(f"the archive has two files called {ascii(name)[:80]}")
    raise UnsafeError(f"the archive has more than {_MAX_MEMBERS} members; save it anew")


class Placed(NamedTuple):
    """A file in an archive: its name, its first byte and its size."""

    name: str
    start: int
    size: int


def files_in(file: BinaryIO) -> Iterator[Placed]:
    """Yield each file of an archive that is not compressed, in its order, without reading it.

    There may be any number. Long names are understood as GNU tar and POSIX write them.

    Raises
    ------
    FormatError
        It is not such an archive, or it is cut short: then the files before have been yielded.
    UnsafeError
        It has links, devices or names that lead elsewhere.
    """
    end = file.seek(0, os.SEEK_END)
    at, longer = 0, b""
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) == BLOCK and not any(header):
            if any(file.read(_CHUNK)):
                raise FormatError("the archive has something behind its end; pack it again")
            return
        raw, flag, size = fields(header)
        start, at = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
        name = (longer or raw).decode("utf-8", "surrogateescape").removeprefix("./")
        if at > end:
            raise FormatError(f"the archive is cut short in {ascii(name)[:80]}; fetch it again")
        if flag in (b"L", b"x", b"g"):
            longer = _name_in(file.read, size, flag) or longer
            continue
        longer = b""
        # in the oldest form the name of a folder ends so, and nothing else tells it
        is_folder = flag == b"5" or (flag == b"\0" and name.endswith("/"))
        if flag in (b"0", b"\0") and not is_folder:
            if name.startswith("/") or ".." in name.split("/") or "\0" in name:
                raise UnsafeError(f"the archive has a member called {ascii(name)[:80]}")
            yield Placed(name, start, size)
        elif not is_folder:
            raise UnsafeError(
                f"{ascii(name)[:80]} in the archive is a link, a device or of another kind that is "
                "no file; unpack the archive and give the folder"
            )


def _name_in(read: Callable[[int], bytes], size: int, flag: bytes = b"g") -> bytes:
    """Return the name that an extended header gives the next member, or nothing.

    GNU tar's (L) is the name; others are rows of records: "LENGTH KEY=VALUE" and the end of a line.
    Raise `UnsafeError` if a record changes something else, and if one for all members (g) does.
    """
    if size > _MAX_NOTE:
        raise UnsafeError(
            f"a header in the archive has {size:,} bytes, more than the {_MAX_NOTE:,} that are "
            "accepted"
        )
    note = read(size).rstrip(b"\0")
    if flag == b"L":
        return note
    found, at, end = b"", 0, len(note)
    while at < end:
        digits = note[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not len(digits) + 2 < length <= end - at:
            raise FormatError("an extended header in the archive is damaged; pack it again")
        key, _, value = note[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if key == b"path" and flag != b"g":
            found = value
        elif key in (b"path", b"size", b"linkpath") or key.startswith(b"GNU.sparse"):
            raise UnsafeError(
                f"a header in the archive changes the {ascii(key)[2:-1][:40]} of a member; pack it "
                "again plainly"
            )
        at += length
    return found


@contextmanager
def unpacking(taken: int) -> Iterator[None]:
    """Raise an error of gzip, after ``taken`` unpacked bytes, as one of this package."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise IntegrityError(f"the archive is damaged: {error}; download it again") from error
    except (EOFError, zlib.error) as error:
        how = "cut short" if isinstance(error, EOFError) else "damaged"
        raise FormatError(
            f"the archive is {how} after {taken:,} unpacked bytes: {error}; download it again"
        ) from error


class _Stream:
    """The unpacked bytes, counted; an error of unpacking becomes one of this package's errors."""

    def __init__(self, source: BinaryIO | gzip.GzipFile, most: int) -> None:
        self.source, self.most = source, most
        self.taken = 0

    def some(self, count: int) -> bytes:
        """Return at most ``count`` bytes; none at the end."""
        with unpacking(self.taken):
            data = self.source.read(count)
        self.taken += len(data)
        if self.taken > self.most:
            raise UnsafeError(
                f"the archive unpacks to more than the {self.most:,} bytes that are accepted from "
                "one of its length"
            )
        return data

    def take(self, count: int) -> bytes:
        """Return exactly ``count`` bytes; memory grows only with the bytes that are there."""
        parts, missing = [], count
        while missing:
            data = self.some(min(missing, _CHUNK))
            if not data:
                raise FormatError(
                    f"the archive is cut short: {count:,} bytes were expected, "
                    f"{count - missing:,} are there"
                )
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass over exactly ``count`` bytes."""
        while count:
            count -= len(self.take(min(count, _CHUNK)))

    def expect_zeros(self) -> None:
        """Read to the end, which must be zeros; only so is gzip's checksum compared."""
        while data := self.some(_CHUNK):
            if any(data):
                raise FormatError(
                    "the archive has something behind its end; download it again from its publisher"
                )


def fields(header: bytes) -> tuple[bytes, bytes, int]:
    """Return the name, the kind and the size that a header states, if its checksum is right."""
    if len(header) < BLOCK:
        raise FormatError("the archive is cut short in a header; fetch it again")
    raw_name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        raw_name = header[345:500].split(b"\0", 1)[0] + b"/" + raw_name
    size, checksum = _octal(header[124:136]), _octal(header[148:156])
    if sum(header[:148]) + sum(header[156:]) + 8 * ord(" ") != checksum:
        raise FormatError("not a tar archive, or damaged: the checksum of a header is wrong")
    return raw_name, header[156:157], size


def _parse(header: bytes) -> tuple[str, str, int]:
    """Return name, kind ("file", "folder" or "note") and size of a member."""
    raw_name, flag, size = fields(header)
    name = raw_name.decode("latin-1")
    shown = ascii(name)[:80]
    kinds = {b"0": "file", b"\0": "file", b"5": "folder", b"x": "note", b"g": "note"}
    kind = "folder" if flag == b"\0" and raw_name.endswith(b"/") else kinds.get(flag)
    if kind is None:
        what = "is a link, a device or of another kind that no data set needs"
        raise UnsafeError(f"{shown} in the archive {what}")
    leaves = name.startswith("/") or ".." in name.split("/") or any(c in name for c in "\\:")
    if kind != "note" and (leaves or not name.isprintable()):
        raise UnsafeError(f"the archive has a member {shown}, which is not a plain relative path")
    return name, kind, size


def _octal(field: bytes) -> int:
    """Return a number in octal digits, ended by spaces or zeros."""
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise FormatError(f"not a tar archive, or damaged: a header has the number {digits[:12]!r}")
    return int(digits, 8)
