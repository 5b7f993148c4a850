"""The files in a tar archive, which is read where it is, by any number of threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator

from ...errors import FormatError, ImageError, WeightsError
from ...formats.tar import Placed, files_in
from ...images.files import MAX_FILE_BYTES
from ...system.files import regular, shown

__all__ = ["TarFile"]


class TarFile:
    """An open archive, not compressed, whose files are read one at a time, from any thread.

    Raises
    ------
    FormatError
        It cannot be read, or it is compressed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        with regular(path) as file:
            if file.read(2) == b"\x1f\x8b":
                raise FormatError(
                    f"{shown(path)} is compressed, so its images cannot be read one by one; unpack "
                    "it (tar xzf), or decompress it to a .tar (gunzip)"
                )
            self._file = os.fdopen(os.dup(file.fileno()), "rb")
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # the file has one position

    def __iter__(self) -> Iterator[Placed]:
        """Yield the files, in the order of the archive.

        Raises
        ------
        FormatError, UnsafeError
            As `formats.tar.files_in` raises: after the files before the place that is wrong.
        """
        with regular(self._path) as file:  # a position of its own
            try:
                yield from files_in(file)
            except WeightsError as error:
                raise type(error)(f"{shown(self._path)}: {error}") from error

    def read(self, placed: Placed, shown_name: str, most: int = MAX_FILE_BYTES) -> bytes:
        """Read a file of the archive, if it has at most ``most`` bytes.

        Parameters
        ----------
        placed
            One of those that the iteration yields.
        shown_name
            For messages.

        Raises
        ------
        ImageError
            The file is too large, or the archive was cut short.
        """
        if placed.size > most:
            raise ImageError(
                f"{shown_name} has {placed.size:,} bytes, more than the {most:,} that are accepted"
            )
        try:
            with self._lock:
                self._file.seek(placed.start)
                data = self._file.read(placed.size)
        except OSError as error:
            raise ImageError(f"{shown_name} cannot be read: {error.strerror}") from error
        if len(data) < placed.size:
            raise ImageError(f"{shown_name} is cut short: the archive has changed; get it again")
        return data
