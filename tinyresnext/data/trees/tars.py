"""The files in a tar archive, which is read where it is, by any number of threads."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import numpy as np

from ...errors import FormatError, ImageError, WeightsError
from ...formats.stored_zip.archive import MOST_LEVELS
from ...formats.stored_zip.names import Names
from ...formats.tar import BLOCK, Placed, fields, files_in
from ...images.files import MAX_FILE_BYTES
from ...system.files import ARCHIVE, SharedFile, check_machine, regular, shown
from ..rules import image_kind
from .gzipped import Unpacked
from .listing import Entries, Parts

__all__ = ["TarFile", "TarTree", "has_images"]

_BEGINNING = 8 << 20  # bytes, unpacked, before the first image


class TarFile:
    """An open archive whose files are read one at a time, from any thread.

    Parameters
    ----------
    path : path
    forwards : bool
        Whether files will be read in about their order: then the archive may be compressed with
        gzip. A file that is far behind the last one is unpacked from the beginning.

    Raises
    ------
    FormatError
        It cannot be read, or it is compressed and may not be.
    """

    def __init__(self, path: str | os.PathLike[str], forwards: bool = False) -> None:
        self._path = path
        with regular(path) as file:
            self.packed = file.read(2) == b"\x1f\x8b"
            if self.packed and not forwards:
                raise FormatError(
                    f"{shown(path)} is compressed, so its images cannot be read in any order; "
                    "unpack it (tar xzf), or decompress it to a .tar (gunzip)"
                )
            self._shared = SharedFile(path, file, Unpacked if self.packed else lambda file: file)

    def __iter__(self) -> Iterator[Placed]:
        """Yield the files, in the order of the archive; errors are those of `each`."""
        return (placed for placed, _ in self.each())

    def each(self) -> Iterator[tuple[Placed, Callable[[int], bytes]]]:
        """Yield each file, and a function that reads so many bytes of it before the next comes.

        Raises
        ------
        FormatError, UnsafeError
            As `formats.tar.files_in` raises: after the files before the place that is wrong.
        """
        with regular(self._path) as file:  # a position of its own
            source = cast(BinaryIO, Unpacked(file, 0)) if self.packed else file

            def read(most: int) -> bytes:
                source.seek(now.start)
                return source.read(min(most, now.size))

            try:
                for now in files_in(source):
                    yield now, read
            except WeightsError as error:
                raise type(error)(f"{shown(self._path)}: {error}") from error

    def read(self, start: int, shown_name: str, most: int = MAX_FILE_BYTES) -> bytes:
        """Read a file of the archive, if it has at most ``most`` bytes.

        Parameters
        ----------
        start
            Its first byte, as a `Placed` has it.
        shown_name
            For messages.

        Raises
        ------
        ImageError
            The file is too large, or the archive was cut short or has changed.
        """
        try:
            with self._shared.alone() as source:
                source.seek(start - BLOCK)
                size = fields(source.read(BLOCK))[2]
                data = source.read(min(size, most))
        except OSError as error:
            check_machine(shown_name, error, ARCHIVE)
            raise ImageError(f"{shown_name} cannot be read: {error.strerror}") from error
        except WeightsError as error:
            raise ImageError(f"{shown_name} cannot be read: {error}") from error
        if size > most:
            raise ImageError(
                f"{shown_name} has {size:,} bytes, more than the {most:,} that are accepted"
            )
        if len(data) < size:
            raise ImageError(f"{shown_name} is cut short: the archive has changed; get it again")
        return data


class TarTree:
    """The folders of a tar archive, as a `Listing`, and its files in the order of the archive.

    A file takes the bytes of its name and 16. ``forwards`` is that of `TarFile`; ``check`` takes
    each file in the order of the archive, and may raise an error.

    Attributes
    ----------
    packed : bool
        Whether the archive is compressed, so that files are quick to read only in its order.

    Raises
    ------
    FormatError, UnsafeError
        As for `TarFile`; or two files have one name, or too many folders are inside each other.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        forwards: bool = False,
        check: Callable[[Placed], None] | None = None,
    ) -> None:
        self._archive = TarFile(path, forwards)
        self.packed, self.read = self._archive.packed, self._archive.read
        inside: dict[Parts, tuple[set[str], Names]] = {(): (set(), Names())}
        for placed in self._archive:
            if check is not None:
                check(placed)
            place = tuple(part for part in placed.name.split("/") if part not in ("", "."))
            if not place or len(place) > MOST_LEVELS:
                raise _unlike(path, placed.name)
            for depth, name in enumerate(place[:-1]):
                inside.setdefault(place[: depth + 1], (set(), Names()))
                inside[place[:depth]][0].add(name)
            inside[place[:-1]][1].add(place[-1], placed.start)
        for place, (_, files) in inside.items():
            if (twice := files.sort()) is not None:
                raise _unlike(path, "/".join((*place, twice)))
        self._folders = inside

    def listing(self, place: Parts) -> Entries:
        """Return what is in a folder of the archive; nothing if there is no such folder."""
        folders, files = self._folders.get(place, (set(), Names()))
        return Entries(sorted(folders), list(files))

    def where(self, place: Parts) -> int:
        """Return where a file is, for `read`: its first byte."""
        return self._folders[place[:-1]][1][place[-1]]

    def __iter__(self) -> Iterator[Parts]:
        """Yield the places of all files, in the order of the archive."""
        every = (_in_order(place, files) for place, (_, files) in self._folders.items())
        for _, place, name in heapq.merge(*every):
            yield (*place, name)


def _in_order(place: Parts, files: Names) -> Iterator[tuple[int, Parts, str]]:
    """Yield where each file of a folder begins, the place of the folder, and the name of the file.

    They come in the order of the archive; 4 bytes are kept of a file.
    """
    starts = files.numbers()
    for i in map(int, np.argsort(starts, kind="stable").astype(np.uint32)):
        yield int(starts[i]), place, files.name(i)


def _unlike(path: str | os.PathLike[str], name: str) -> FormatError:
    """Return the error for a file that no tree of folders has."""
    why = "has no name, lies in too many folders, or is there twice"
    return FormatError(f"{shown(path)}: {shown(name)} {why}; pack it again")


def has_images(path: str | os.PathLike[str]) -> bool:
    """Return whether there is an image among the files of a tar archive, as far as it is right.

    Of a compressed archive, only the beginning is looked at.
    """
    try:
        archive = TarFile(path, forwards=True)
        for placed in archive:
            if image_kind(placed.name):
                return True
            if archive.packed and placed.start > _BEGINNING:
                return False
    except WeightsError:
        pass
    return False
