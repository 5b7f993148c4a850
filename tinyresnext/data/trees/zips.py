"""The images in a zip archive, which is read where it is, by any number of threads."""

from __future__ import annotations

from pathlib import Path

from ...errors import FormatError, ImageError, WeightsError
from ...formats.stored_zip.archive import open_archive, read_whole
from ...images.files import MAX_FILE_BYTES
from ...system.files import ARCHIVE, SharedFile, check_machine, regular, shown
from .listing import Entries, Parts

__all__ = ["ZipFile"]


class ZipFile:
    """An open archive whose members are read one at a time, from any thread.

    A member never takes more memory than an image file may have bytes.

    Raises
    ------
    FormatError, UnsafeError
        As `formats.stored_zip.archive.open_archive` raises.
    """

    def __init__(self, path: Path) -> None:
        with regular(path) as file:
            self._shared = SharedFile(path, file)
        try:
            with self._shared.alone() as file:
                self._archive = open_archive(file)
        except (WeightsError, OSError) as error:
            check_machine(shown(path), error)
            kind = type(error) if isinstance(error, WeightsError) else FormatError
            raise kind(f"{shown(path)}: {error}") from error

    def listing(self, place: Parts) -> Entries:
        """Return what is in a folder of the archive; nothing if there is no such folder."""
        folder = self._archive.folders.get(place)
        return Entries(sorted(folder.folders), list(folder.files)) if folder else Entries([], [])

    def where(self, place: Parts) -> int:
        """Return where a member is, for `read`."""
        return self._archive.folders[place[:-1]].files[place[-1]]

    def read(self, where: int, shown_name: str) -> bytes:
        """Read a member, if its size is what its entry says and at most `MAX_FILE_BYTES`.

        Parameters
        ----------
        where
            As `where` returns it.
        shown_name
            For messages.

        Raises
        ------
        ImageError
            The member is damaged, encrypted, too large or compressed by an unusual method.
        """
        try:
            with self._shared.alone() as file:
                return read_whole(file, self._archive, where, MAX_FILE_BYTES)
        except (WeightsError, OSError) as error:
            check_machine(shown_name, error, ARCHIVE)
            raise ImageError(f"{shown_name} cannot be read: {error}") from error
