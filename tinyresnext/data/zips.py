"""Reading the members of a zip archive that may be damaged or made to do harm.

An archive is read where it is. The standard library's ``zipfile`` finds the members; this module
refuses what ``zipfile`` accepts: names that lead out of the archive, links, names that occur twice,
and sizes that are not what they claim. A backslash in a name is read as a slash before the name is
checked. A member never takes more memory than an image file may have bytes.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, ImageError, UnsafeError
from ..images.files import MAX_FILE_BYTES
from ..system.files import regular, shown

__all__ = ["ZipFile"]

# What zipfile raises for damage. MemoryError and the errors of a mistake of ours are not in it.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
_MAX_DIRECTORY = 512 << 20  # bytes of a zip's directory; ImageNet's 1.3 million images need 130 MB


class ZipFile:
    """An open archive whose members are read one at a time, from any thread."""

    def __init__(self, path: Path) -> None:
        with regular(path) as file:
            self._file = os.fdopen(os.dup(file.fileno()), "rb")
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # zipfile counts its open members without one
        self._zip = _checked_zip(self._file, shown(path))
        every = [(info, _plain(info.filename)) for info in self._zip.infolist()]
        self.members = {name: info for info, name in every if not name.endswith("/")}
        """The files, by name."""
        self.names = [
            (tuple(name.removesuffix("/").split("/")), name[-1:] == "/") for _, name in every
        ]
        """For each member the parts of its name, and whether it is a folder."""

    def read(self, name: str, shown_name: str) -> bytes:
        """Read a member, if its size is what its entry says and at most `MAX_FILE_BYTES`.

        Parameters
        ----------
        name
            A key of `members`.
        shown_name
            For messages.

        Raises
        ------
        ImageError
            The member is damaged, encrypted, too large or compressed by an unusual method.
        """
        info = self.members[name]
        try:
            if info.file_size > MAX_FILE_BYTES:
                raise ImageError(
                    f"it has {info.file_size:,} bytes, "
                    f"more than the {MAX_FILE_BYTES:,} that are accepted"
                )
            if info.flag_bits & 1:
                raise ImageError("it is encrypted; create the archive again without a password")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ImageError(
                    f"it is compressed by method {info.compress_type}; "
                    "create the archive again with deflate"
                )
            with self._lock, self._zip.open(info) as member:
                data = member.read(info.file_size + 1)  # zipfile inflates no more than that
            if len(data) != info.file_size:
                raise ImageError(f"{info.file_size:,} bytes were expected, found {len(data):,}")
        except (ImageError, *_DAMAGE) as error:
            raise ImageError(
                f"{shown_name} cannot be read: {error or type(error).__name__}"
            ) from error
        return data


def _checked_zip(file: BinaryIO, name: str) -> zipfile.ZipFile:
    """Open an archive, and check the size of its directory and the names in it."""
    try:
        _check_directory(file)
        archive = zipfile.ZipFile(file)
    except UnsafeError as error:
        raise UnsafeError(f"{name}: {error}") from error
    except Exception as error:  # for damage zipfile raises more than any list has
        raise FormatError(
            f"{name} is no zip archive that can be read: {error or type(error).__name__}"
        ) from error
    seen = set()
    for info in archive.infolist():
        member = _plain(info.filename)
        parts = member.removesuffix("/").split("/")
        if (
            any(part in ("", ".", "..") for part in parts)
            or ":" in parts[0]
            or "\0" in info.orig_filename
        ):
            raise UnsafeError(
                f"{name} has a member called {ascii(member)[:80]}, which is no plain relative path"
            )
        if (
            stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
            and info.create_system == 3
        ):
            raise UnsafeError(
                f"{name} has a member {ascii(member)[:80]} that is a link or a device; "
                "pack the files themselves"
            )
        if member in seen:
            raise UnsafeError(
                f"{name} has two members called {ascii(member)[:80]}; create the archive again"
            )
        seen.add(member)
    return archive


def _plain(name: str) -> str:
    """Return a name with slashes for the backslashes that Windows PowerShell writes."""
    return name.replace("\\", "/")


def _check_directory(file: BinaryIO) -> None:
    """Raise `UnsafeError` for a huge directory: `zipfile` reads all of it at once."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 65_633)  # the end records, 56, 20 and 22 bytes, with the longest comment
    file.seek(start)
    tail = file.read(65_633)
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise FormatError("it does not end with a directory; it is cut short or of another kind")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    # Large archives have a second end record, which overrides the first.
    if tail[max(0, at - 20) : at].startswith(b"PK\6\7"):
        record = tail[max(0, at - 76) : at - 20]
        if not record.startswith(b"PK\6\6"):
            raise FormatError("its zip64 end record is not where it should be")
        length = int.from_bytes(record[40:48], "little")
    if length > _MAX_DIRECTORY:
        raise UnsafeError(
            f"its directory claims {length:,} bytes, "
            f"more than the {_MAX_DIRECTORY:,} that are accepted"
        )
