"""Locks of open files: no other process has the file, or takes it for left over."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ...errors import UsageError
from ..files import shown
from .ours import FLAGS, opened

__all__ = ["hold", "locked", "shuts_out", "try_lock"]


@contextmanager
def locked(
    path: str | os.PathLike[str], waiting: Callable[[], None] = lambda: None
) -> Iterator[BinaryIO]:
    """Hold an exclusive lock of the open file that is yielded, until it is closed.

    Parameters
    ----------
    path : path
        The file is made if it does not exist; what has the name when it is locked is meant.
    waiting : callable
        Called once if another process holds the lock.

    Raises
    ------
    UsageError
        The file cannot be made or locked.
    """
    told = False
    while True:
        with opened(path) as file:
            if try_lock(file, path) and _named(file, path):
                yield file
                return
        if not told:
            waiting()
        told = True
        time.sleep(0.05)


def _named(file: BinaryIO, path: str | os.PathLike[str]) -> bool:
    """Return whether an open file still has its name; on Windows no open file can lose it."""
    with suppress(FileNotFoundError):
        return sys.platform == "win32" or os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    return False


def try_lock(file: BinaryIO, path: str | os.PathLike[str]) -> bool:
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
            f"cannot lock {shown(path)}: {error.strerror}; its file system has no locks: "
            "choose a folder on another one"
        ) from error
    return True


def hold(handle: int, path: Path) -> None:
    """Mark a temporary file as being written, until it is closed.

    It stays unmarked on a file system without locks, and where a lock keeps out who is to write it
    (`shuts_out`).
    """
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
            if shuts_out(path):
                fcntl.flock(handle, fcntl.LOCK_UN)


def shuts_out(path: str | os.PathLike[str]) -> bool:
    """Return whether a lock shuts out its own process, too, when that opens the file once more.

    It does in folders of other computers that are mounted by SMB. A byte is written and cut off:
    the file is empty or left over, or the lock is another process's and refuses the byte.
    """
    try:
        other = os.open(path, FLAGS)
        try:
            os.write(other, b"\0")
            os.truncate(other, 0)
        finally:
            os.close(other)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False
