"""Read untrusted files."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

from ..errors import FormatError, ImageError, MachineError, TinyResNeXtError, UsageError

__all__ = [
    "ARCHIVE",
    "PIECE",
    "Part",
    "SharedFile",
    "as_utf8",
    "check_machine",
    "fill",
    "pieces",
    "regular",
    "sha256_of",
    "shown",
]

PIECE = 1 << 20  # bytes read at once
# not every system has each of these flags
READ_ONLY = sum(getattr(os, f"O_{flag}", 0) for flag in ("RDONLY", "BINARY", "NONBLOCK", "CLOEXEC"))

# Errors of storage, of a network, and of what a process may have; of Windows hardly any come so.
_OF_THE_MACHINE = {
    getattr(errno, name)
    for name in (
        *("EIO", "EREMOTEIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "ECONNRESET", "ECONNABORTED"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "EKEYEXPIRED"),
        *("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"),
    )
    if hasattr(errno, name)  # not every system has each of them
}


# What helps if a file stays unreadable; a run that goes on wants the same names.
ARCHIVE = "put a readable copy of the archive in its place"
_COPY = "put a readable copy in its place"
_IMAGE = f"{_COPY}, or an empty file of that name unless a training has all images in memory"


def shown(path: str | os.PathLike[str]) -> str:
    """Return a file's name for a message or a terminal.

    A name is escaped if it holds characters that could move the cursor or forge a line.
    """
    name = os.fspath(path)
    return name if isinstance(name, str) and name.isprintable() else repr(name)


def as_utf8(name: str) -> str:
    """Return a name as a file of UTF-8 has it: bytes that are none become escapes of Python.

    The bytes themselves would make the whole file unreadable for most programs.
    """
    return name.encode("utf-8", "backslashreplace").decode()


def check_machine(name: str, problem: BaseException, remedy: str = _COPY) -> None:
    """Raise `MachineError` for what no file is to blame for, such as storage that does not answer.

    A file that is missing or may not be read (EACCES) is a matter of the file.

    Parameters
    ----------
    name : str
        Of the file, for the message.
    problem : exception
        What reading it has raised.
    remedy : str
        What helps if the file stays so.
    """
    if isinstance(problem, OSError) and problem.errno in _OF_THE_MACHINE:
        raise MachineError(
            f"{name} cannot be read: {problem.strerror}; this is a fault of the machine or of its "
            "storage, and the file may be whole: when it is mended, run this again, with --resume "
            f"where results go to a file; if the fault stays with this file, {remedy}"
        ) from problem


@contextmanager
def regular(
    path: str | os.PathLike[str],
    *,
    error: type[TinyResNeXtError] = FormatError,
    buffering: int = -1,
    inside: str = "",
) -> Iterator[BinaryIO]:
    """Open a regular file for reading, without waiting for a pipe or a device.

    The kind of file is checked through the open handle, so nothing can be swapped in between.

    Parameters
    ----------
    path : path
    error : type
        Of the one error that any failure of the file raises, here or in the ``with`` block.
    buffering : int
        As for ``open``.
    inside : str
        The folder in which a relative path begins, by default the working directory. Messages do
        not name it.

    Yields
    ------
    binary file

    Raises
    ------
    UsageError
        ``path`` is not a path.
    MachineError
        As `check_machine` raises.
    """
    try:
        name = os.fspath(path)
    except TypeError:
        raise UsageError(f"a path was expected, found {type(path).__name__}") from None
    name = str(name) if isinstance(name, str) else name  # NumPy's texts would show their type
    remedy, mended = "name a file that you may read", _IMAGE if error is ImageError else _COPY
    try:
        handle = os.open(os.path.join(inside, name) if inside else name, READ_ONLY)
    except (OSError, ValueError) as problem:  # a NUL or a lone surrogate is a ValueError
        check_machine(repr(name), problem, mended)
        reason = getattr(problem, "strerror", None) or problem
        raise error(f"{name!r} cannot be read: {reason}; {remedy}") from problem
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
            raise error(f"{name!r} is {what}; name a regular file")
        with open(handle, "rb", buffering, closefd=False) as file:
            yield file
    except OSError as problem:
        check_machine(repr(name), problem, mended)
        reason = problem.strerror or problem
        raise error(f"{name!r} cannot be read: {reason}; {remedy}") from problem
    finally:
        os.close(handle)


def fill(file: BinaryIO, offset: int, buffer: memoryview, what: str) -> None:
    """Read bytes from ``offset`` on until the buffer is full.

    Raises
    ------
    FormatError
        The file ends before; the message says that it is cut short in ``what``.
    """
    # Every file here is opened by `regular`, so it has `readinto`, which BinaryIO does not name.
    source = cast(io.BufferedIOBase, file)
    source.seek(offset)
    while buffer:
        count = source.readinto(buffer)
        if not count:
            raise FormatError(
                f"the file is cut short in {what}: {len(buffer):,} bytes are missing; "
                "fetch or convert it again"
            )
        buffer = buffer[count:]


def pieces(file: BinaryIO, start: int, size: int, what: str) -> Iterator[memoryview]:
    """Yield a range of the file in pieces of at most `PIECE` bytes; each is valid until the next.

    Raises
    ------
    FormatError
        The file ends before.
    """
    buffer = memoryview(bytearray(min(size, PIECE)))
    end = start + size
    while start < end:
        piece = buffer[: min(PIECE, end - start)]
        fill(file, start, piece, what)
        yield piece
        start += len(piece)


class Part(io.RawIOBase):
    """A range of an open file as a stream of its own, of which nothing is in memory.

    Parameters
    ----------
    file : binary file
    start, size : int
        Of the range, which lies within the file.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the beginning, from here, or from the end."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return how many bytes there were."""
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        count = self._file.readinto(memoryview(buffer)[:count])  # type: ignore[attr-defined]
        self._at += count
        return count


class _Own(NamedTuple):
    """What one process reads from: an open file has one position, so a lock goes with it."""

    process: int
    source: Any
    lock: threading.Lock


class SharedFile:
    """An open file that is read by one thread at a time.

    A process that was forked would move the position under the other's reading. So it opens the
    file again, and with a lock of its own, since nobody frees one that was held at the fork.

    Parameters
    ----------
    path : path
    file : binary file
        It, open.
    reading : callable
        Returns what is read, for an open file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        file: BinaryIO,
        reading: Callable[[BinaryIO], Any] = lambda file: file,
    ) -> None:
        self._path, self._reading = os.path.abspath(path), reading
        self._status = _which(file)
        self._own = self._from(file)

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """Yield what is read, while no other thread reads it.

        Raises
        ------
        FormatError
            In a forked process: the file cannot be opened again, or it is another one now.
        """
        own = self._own
        if own.process != os.getpid():
            with regular(self._path) as file:
                if _which(file) != self._status:
                    raise FormatError(
                        f"{shown(self._path)} has changed since it was opened; open it again"
                    )
                own = self._own = self._from(file)
        with own.lock:
            yield own.source

    def _from(self, file: BinaryIO) -> _Own:
        """Return what this process reads from: a handle of its own, closed with this object."""
        kept = os.fdopen(os.dup(file.fileno()), "rb")
        weakref.finalize(self, kept.close)
        return _Own(os.getpid(), self._reading(kept), threading.Lock())


def _which(file: BinaryIO) -> tuple[int, ...]:
    """Return what tells whether a file is still the same."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def sha256_of(*files: BinaryIO) -> str:
    """Return the SHA-256 of whole open files, one behind the other, in hexadecimal."""
    import hashlib  # late: it takes milliseconds of every start, and few commands need it

    digest = hashlib.sha256()
    for file in files:
        file.seek(0)
        hashlib.file_digest(cast(io.BufferedReader, file), lambda: digest)
    return digest.hexdigest()
