"""Pictures in folders, one folder for each class, as they lie on a disk or in a zip archive.

::

    SPLIT/CLASS/any/folders/picture.jpg      with splits: folders called train, val, valid, validation or test
    CLASS/any/folders/picture.jpg            without

A single folder around all that, without pictures of its own, is looked through. Classes are sorted
by name, and are those of all splits together, so that a label means the same in each. What does not
end like a picture, or begins with a dot, is no picture.

An archive is read where it is. The standard library's ``zipfile`` finds the members; here stands
what it lets pass: names that lead out of the archive, links, names that occur twice, and sizes that
are not what they claim. A member is never larger in memory than a picture file may be.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, ImageError, UnsafeError, UsageError
from ..images.decode import MAX_FILE_BYTES, picture_in
from ..images.preprocess import decode
from ..system.files import regular, shown
from .dataset import Dataset, Reading, from_files

__all__ = ["open_folder", "open_zip"]

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_ALL_SPLITS = frozenset(name for names in SPLITS.values() for name in names)
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_OTHER_ENDINGS = (
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".jp2",
    ".ppm",
    ".pgm",
)  # pictures that are named when they are refused
# What zipfile answers to damage with; MemoryError and what is our own mistake are not among them.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
_MAX_DIRECTORY = (
    512 << 20
)  # bytes of a zip's directory; ImageNet's 1.3 million pictures need 130 MB

Parts = tuple[str, ...]


def open_folder(path: Path, split: str, reading: Reading) -> Dataset:
    """The data set in a folder on the disk. Parameters and errors as for `data.open_dataset`."""
    root = path
    while (
        len(folders := _subfolders(root)) == 1
        and folders[0] not in _ALL_SPLITS
        and _is_wrapping(root / folders[0])
    ):
        root = root / folders[0]
    part, classes = _choose(split, folders, lambda name: _subfolders(root / name), path)
    found = []
    for label, name in enumerate(classes):
        found += [
            (label, file)
            for file in sorted(
                _walk(root.joinpath(*part, name)), key=lambda file: file.split(os.sep)
            )
        ]
    start = len(os.path.join(root, ""))
    names = [file[start:].replace(os.sep, "/") for _, file in found]

    def read(i: int) -> NDArray[np.uint8]:
        return decode(found[i][1])

    return from_files(classes, [label for label, _ in found], names, read, shown(path), reading)


def open_zip(path: Path, split: str, reading: Reading) -> Dataset:
    """The data set in a zip archive. Parameters and errors as for `data.open_dataset`."""
    archive = _Zip(path)
    split_names = ((tuple(name.split("/")), name) for name in archive.members)
    paths = {
        parts: name
        for parts, name in split_names
        if _is_picture(parts[-1]) and not any(map(_is_hidden, parts))
    }
    while len({parts[0] for parts in paths}) == 1 and not any(
        p[0] in _ALL_SPLITS or len(p) < 3 for p in paths
    ):
        paths = {parts[1:]: name for parts, name in paths.items()}
    below: dict[str, set[str]] = {}
    for parts in paths:
        if len(parts) > 1:
            below.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else ())
    part, classes = _choose(split, sorted(below), lambda name: sorted(below[name]), path)
    number = {name: label for label, name in enumerate(classes)}
    depth = len(part)
    found = sorted(p for p in paths if p[:depth] == part and len(p) > depth + 1)
    files = [paths[parts] for parts in found]

    def read(i: int) -> NDArray[np.uint8]:
        name = f"{shown(path)}: {shown(files[i])}"
        return decode(picture_in(archive.read(files[i], name), name))

    labels = [number[parts[depth]] for parts in found]
    return from_files(
        classes, labels, ["/".join(parts) for parts in found], read, shown(path), reading
    )


def _choose(
    split: str, folders: list[str], inside: Callable[[str], list[str]], path: Path
) -> tuple[Parts, list[str]]:
    """The folder of the split, as a path of at most one part, and the sorted names of the classes."""
    present = [name for name in folders if name in _ALL_SPLITS]
    if not present:
        if split != "train":
            raise UsageError(
                f"{shown(path)} has no splits (folders called {', '.join(sorted(_ALL_SPLITS))}), so there is no {split!r}; "
                "what it has is read as 'train'"
            )
        if not folders:
            raise FormatError(
                f"{shown(path)} has no folders with pictures; expected CLASS/picture.jpg or SPLIT/CLASS/picture.jpg"
            )
        return (), folders
    wanted = SPLITS.get(split, (split,))
    name = next((name for name in (split, *wanted) if name in present), None)
    if name is None:
        raise UsageError(f"{shown(path)} has no split {split!r}; it has {', '.join(present)}")
    return (name,), sorted({inner for each in present for inner in inside(each)})


def _subfolders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name)
            )
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"the folder {shown(folder)} cannot be read: {reason}") from error


def _is_wrapping(folder: Path) -> bool:
    """Whether a folder has folders in it and no pictures: then it is no class."""
    return bool(_subfolders(folder)) and not any(map(_is_picture, os.listdir(folder)))


def _walk(top: Path) -> Iterator[str]:
    """All pictures below a folder; links to folders are not followed, links to pictures are."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # the class occurs in another split only
            raise FormatError(
                f"the folder {shown(error.filename)} cannot be read: {error.strerror}"
            ) from error

    for folder, inner, files in os.walk(top, onerror=refuse):
        inner[:] = [name for name in inner if not _is_hidden(name)]
        yield from (os.path.join(folder, name) for name in files if _is_picture(name))


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of the data: hidden, or what macOS adds to archives."""
    return name.startswith((".", "__MACOSX"))


def _is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return not _is_hidden(name) and name.lower().endswith(_ENDINGS + _OTHER_ENDINGS)


class _Zip:
    """An open archive whose members are read one at a time, from any thread."""

    def __init__(self, path: Path) -> None:
        with regular(path) as file:
            self._file = os.fdopen(os.dup(file.fileno()), "rb")
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # zipfile counts its open members without one
        self._zip = _checked_zip(self._file, shown(path))
        self.members = {info.filename: info for info in self._zip.infolist() if not info.is_dir()}

    def read(self, name: str, shown_name: str) -> bytes:
        """All bytes of a member, if they are what its entry says, and not more than a picture may have."""
        info = self.members[name]
        try:
            if info.file_size > MAX_FILE_BYTES:
                raise ImageError(
                    f"it has {info.file_size:,} bytes, more than the {MAX_FILE_BYTES:,} that are accepted"
                )
            if info.flag_bits & 1:
                raise ImageError("it is encrypted; make the archive anew without a password")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ImageError(
                    f"it is compressed by method {info.compress_type}; make the archive anew with deflate"
                )
            with self._lock, self._zip.open(info) as member:
                data = member.read(info.file_size + 1)  # zipfile inflates no more than is asked for
            if len(data) != info.file_size:
                raise ImageError(f"{info.file_size:,} bytes were expected, found {len(data):,}")
        except (ImageError, *DAMAGE) as error:
            raise ImageError(
                f"{shown_name} cannot be read: {error or type(error).__name__}"
            ) from error
        return data


def _checked_zip(file: BinaryIO, name: str) -> zipfile.ZipFile:
    """Open an archive whose directory is of a sensible size and names only what lies inside."""
    try:
        _check_directory(file)
        archive = zipfile.ZipFile(file)
    except UnsafeError as error:
        raise UnsafeError(f"{name}: {error}") from error
    except Exception as error:  # as above
        raise FormatError(
            f"{name} is no zip archive that can be read: {error or type(error).__name__}"
        ) from error
    seen = set()
    for info in archive.infolist():
        member = info.filename
        parts = member.removesuffix("/").split("/")
        if (
            any(part in ("", ".", "..") for part in parts)
            or "\\" in member
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
                f"{name} has a member {ascii(member)[:80]} that is a link or a device; pack the files themselves"
            )
        if member in seen:
            raise UnsafeError(
                f"{name} has two members called {ascii(member)[:80]}; make the archive anew"
            )
        seen.add(member)
    return archive


def _check_directory(file: BinaryIO) -> None:
    """Refuse a directory that `zipfile` would need gigabytes for; it reads all of it at once."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 65_633)  # the end records, 56, 20 and 22 bytes, with the longest comment
    file.seek(start)
    tail = file.read(65_633)
    at = tail.rfind(b"PK\5\6")
    if at < 0:
        raise FormatError("it does not end with a directory; it is cut short or of another kind")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if tail[max(0, at - 20) : at].startswith(
        b"PK\6\7"
    ):  # large archives have a second end record, and that one counts
        record = tail[max(0, at - 76) : at - 20]
        if not record.startswith(b"PK\6\6"):
            raise FormatError("its zip64 end record is not where it should be")
        length = int.from_bytes(record[40:48], "little")
    if length > _MAX_DIRECTORY:
        raise UnsafeError(
            f"its directory claims {length:,} bytes, more than the {_MAX_DIRECTORY:,} that are accepted"
        )
