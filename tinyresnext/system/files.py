"""Reading a file that may be anything, and writing one so that its name always means a whole file."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, TinyResNeXtError, UsageError

__all__ = ["PIECE", "locked", "pieces", "regular", "replacing", "shown"]

PIECE = 1 << 20  # bytes read at once


def shown(path: str | os.PathLike[str]) -> str:
    """The name for a message or a terminal: as it is, or escaped if it holds what could move the cursor or forge a line."""
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

    What is opened is looked at through the open handle, so that nothing can be swapped in between.

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
        ``path`` is no path.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_BINARY", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_CLOEXEC", 0)
    )
    try:
        name = os.fspath(path)
    except TypeError:
        raise UsageError(f"a path was expected, found {type(path).__name__}") from None
    remedy = "give the name of a file that you may read"
    try:
        handle = os.open(name, flags)
    except (
        OSError,
        ValueError,
    ) as problem:  # a NUL or a lone surrogate in the name is a ValueError
        raise error(
            f"{name!r} cannot be read: {getattr(problem, 'strerror', None) or problem}; {remedy}"
        ) from problem
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
            raise error(f"{name!r} is {what}; give the name of a regular file")
        with open(handle, "rb", buffering, closefd=False) as file:
            yield file
    except OSError as problem:
        raise error(
            f"{name!r} cannot be read: {problem.strerror or problem}; {remedy}"
        ) from problem
    finally:
        os.close(handle)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same directory; on success it takes the place of ``path`` in one step.

    The new content is flushed to the disk before the name changes, so a crash, a full disk or
    Ctrl-C at any moment leaves the old file, and the temporary one is removed. Permissions are
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
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    except (
        OSError,
        ValueError,
        TypeError,
    ) as error:  # a NUL in the name is a ValueError, a number as path a TypeError
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
    """The one error that a failed writing raises."""
    if isinstance(error, UsageError):
        return error
    reason = getattr(error, "strerror", None) or error
    return UsageError(
        f"cannot write {path}: {reason}; choose an existing directory with room that you may write to"
    )


def _sync_directory(directory: Path) -> None:
    """Make the new name itself survive a power cut, where the system can: Windows cannot open a directory."""
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
    """Let one process at a time into the ``with`` block. Its end frees the lock, however it ends.

    Parameters
    ----------
    path : path
        An empty file that stays; made if it is not there.
    waiting : callable
        Called once if another process is in.

    Raises
    ------
    UsageError
        When the file cannot be made or locked.
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
    """Take the lock if nobody has it."""
    try:
        if os.name == "nt":
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
            f"cannot lock {file.name}: {error.strerror}; its file system has no locks: choose a folder on another one"
        ) from error
    return True


def pieces(file: BinaryIO, start: int, size: int, what: str) -> Iterator[memoryview]:
    """A range of the file; each piece is valid until the next.

    Raises
    ------
    FormatError
        The file ends before.
    """
    buffer = memoryview(bytearray(min(size, PIECE)))
    end = start + size
    while start < end:
        piece = buffer[: min(PIECE, end - start)]
        file.seek(start)
        if file.readinto(piece) != len(piece):
            raise FormatError(f"the file is cut short in {what}; fetch it again")
        yield piece
        start += len(piece)
