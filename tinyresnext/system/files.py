"""Read untrusted files, and replace files atomically."""

from __future__ import annotations

import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import FormatError, TinyResNeXtError, UsageError

__all__ = ["PIECE", "fill", "locked", "pieces", "regular", "replacing", "sha256_of", "shown"]

PIECE = 1 << 20  # bytes read at once
# not every system has each of these flags
READ_ONLY = sum(getattr(os, f"O_{flag}", 0) for flag in ("RDONLY", "BINARY", "NONBLOCK", "CLOEXEC"))


def shown(path: str | os.PathLike[str]) -> str:
    """Return a file's name for a message or a terminal.

    A name is escaped if it holds characters that could move the cursor or forge a line.
    """
    name = os.fspath(path)
    return name if isinstance(name, str) and name.isprintable() else repr(name)


@contextmanager
def regular(
    path: str | os.PathLike[str],
    *,
    error: type[TinyResNeXtError] = FormatError,
    buffering: int = -1,
) -> Iterator[BinaryIO]:
    """Open a regular file for reading, without waiting for a pipe or a device.

    The kind of file is checked through the open handle, so nothing can be swapped in between.

    Parameters
    ----------
    path : path
    error : type
        Of the one error that any failure raises, here or in the ``with`` block.
    buffering : int
        As for ``open``.

    Yields
    ------
    binary file

    Raises
    ------
    UsageError
        ``path`` is not a path.
    """
    try:
        name = os.fspath(path)
    except TypeError:
        raise UsageError(f"a path was expected, found {type(path).__name__}") from None
    remedy = "name a file that you may read"
    try:
        handle = os.open(name, READ_ONLY)
    except (OSError, ValueError) as problem:  # a NUL or a lone surrogate is a ValueError
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
        reason = problem.strerror or problem
        raise error(f"{name!r} cannot be read: {reason}; {remedy}") from problem
    finally:
        os.close(handle)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same directory; on success it replaces ``path`` in one step.

    The new content is flushed to the disk before the name changes. So a crash, a full disk or
    Ctrl-C at any moment leaves the old file, and the temporary file is removed. The permissions are
    those of a newly made file. If ``path`` is a symbolic link, the file that it points at is
    replaced.

    Parameters
    ----------
    path : path
        The file to make or to replace. Its directory must exist.

    Yields
    ------
    pathlib.Path
        An empty file: open it for writing, and close it before the ``with`` block ends.

    Raises
    ------
    UsageError
        ``path`` cannot be written: no such directory, no permission, not a regular file, no space.
    """
    try:
        target = Path(os.path.realpath(os.fspath(path)))
        if target.exists() and not target.is_file():
            raise UsageError(f"cannot write {shown(path)}: it exists and is not a regular file")
        temporary = target.with_name(f".{os.urandom(8).hex()}.tmp")
    # a NUL in the name is a ValueError, a number in the place of a path a TypeError
    except (OSError, ValueError, TypeError) as error:
        raise _cannot_write(path, error) from None
    try:
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            raise _cannot_write(path, error) from error
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)


def _cannot_write(path: object, error: Exception) -> UsageError:
    """Return the one error that a failed writing raises."""
    if isinstance(error, UsageError):
        return error
    reason = getattr(error, "strerror", None) or error
    return UsageError(
        f"cannot write {path}: {reason}; choose an existing directory that you may write to and "
        "that has room"
    )


def _sync_directory(directory: Path) -> None:
    """Make the new name survive a power cut, where the system can: Windows opens no directory."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(
    path: str | os.PathLike[str], waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold an exclusive lock during the block. The end of the process frees it too.

    Parameters
    ----------
    path : path
        An empty file that stays; it is made if it does not exist.
    waiting : callable
        Called once if another process holds the lock.

    Raises
    ------
    UsageError
        The file cannot be made or locked.
    """
    try:
        file = open(path, "ab")  # noqa: SIM115
    except OSError as error:
        raise _cannot_write(path, error) from error
    with file:
        if not _try_lock(file):
            waiting()
            while not _try_lock(file):
                time.sleep(0.05)
        yield


def _try_lock(file: BinaryIO) -> bool:
    """Take the lock if no process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise UsageError(
            f"cannot lock {file.name}: {error.strerror}; its file system has no locks: choose a "
            "folder on another one"
        ) from error
    return True


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


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of a whole open file, in hexadecimal."""
    import hashlib  # late: it takes milliseconds of every start, and few commands need it

    file.seek(0)
    return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
