"""Write files where others may have put something: links, pipes, devices.

A name means a file that this package wrote, or nothing. What else has it is not followed, not
opened for writing and not replaced: a link could lead to any file of the user, and a pipe could
block for ever.
"""

from __future__ import annotations

import os
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import TinyResNeXtError, UsageError
from .files import shown

__all__ = ["check_writable", "locked", "opened", "present", "replacing"]

# not every system has each of these flags
_OPEN = sum(
    getattr(os, f"O_{flag}", 0) for flag in ("RDWR", "BINARY", "NONBLOCK", "NOFOLLOW", "CLOEXEC")
)


def present(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a regular file of this name.

    Raises
    ------
    UsageError
        The name is that of something else, such as a link, even of one that leads nowhere.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    # a NUL in the name is a ValueError, a number in the place of a path a TypeError
    except (OSError, ValueError, TypeError) as error:
        raise _cannot_write(path, error) from None
    _check_kind(path, status)
    return True


def _check_kind(path: str | os.PathLike[str], status: os.stat_result) -> None:
    """Raise `UsageError` for anything but a regular file."""
    if stat.S_ISREG(status.st_mode):
        return
    kinds = {stat.S_IFLNK: "a link, which is not followed", stat.S_IFDIR: "a folder"}
    what = kinds.get(stat.S_IFMT(status.st_mode), "not a regular file")
    file = "the file it leads to (readlink -f)" if stat.S_ISLNK(status.st_mode) else "a file"
    raise UsageError(f"cannot write {shown(path)}: it is {what}; give the name of {file}")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before long work that `replacing` will be able to write a file.

    Raises
    ------
    UsageError
        As `replacing` does.
    """
    present(path)
    try:
        trial, _ = _temporary(Path(path))
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with suppress(FileNotFoundError):  # another process that writes it takes it for left over
            os.unlink(trial)
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same directory; on success it replaces ``path`` in one step.

    The new content is flushed to the disk before the name changes. So a crash, a full disk or
    Ctrl-C at any moment leaves the old file, and the temporary file is removed; one that a process
    left when it was killed is removed by the next that writes a file of this name. The permissions
    are those of a newly made file.

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
        ``path`` cannot be written: no such directory, no permission, a link or anything else that
        is no regular file, no space.
    """
    present(path)
    target = Path(path)
    try:
        temporary, lock = _begun(target)
    except (OSError, ValueError) as error:  # no name at all is a ValueError
        raise _cannot_write(path, error) from error
    try:
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            present(path)  # again: it may have taken hours
            if sys.platform == "win32":
                lock = _let_go(lock)  # what is open cannot get another name there
            os.replace(temporary, target)  # held until then, so nobody takes it for left over
            lock = _let_go(lock)
        except OSError as error:
            raise _cannot_write(path, error) from error
    except BaseException:
        _let_go(lock)
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)


def _temporary(target: Path) -> tuple[Path, str]:
    """Return a new name beside the target, and what the names of all for this target begin with."""
    if not target.name:
        raise UsageError(f"cannot write {shown(target)}: it names no file; give the name of a file")
    start = f".{zlib.crc32(os.fsencode(target.name)):08x}"
    return target.with_name(f"{start}{os.urandom(4).hex()}.tmp"), start


def _begun(target: Path) -> tuple[Path, int]:
    """Return a new empty file beside the target, and a handle that marks it as being written."""
    while True:
        temporary, start = _temporary(target)
        _remove_left(target.parent, start)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        _hold(handle)
        if os.fstat(handle).st_nlink or sys.platform == "win32":
            return temporary, handle
        os.close(handle)  # another process has removed it before it was marked


def _remove_left(folder: Path, start: str) -> None:
    """Remove what processes that were killed had not finished writing."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            fits = entry.name.startswith(start) and entry.name.endswith(".tmp")
            if fits and len(entry.name) == len(start) + 12 and entry.is_file(follow_symlinks=False):
                _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    """Remove a file that no process holds, where the system can tell."""
    if sys.platform == "win32":
        return  # a file that is open cannot be removed there, and others are few
    # A file system without locks cannot tell who holds it (UsageError): the file stays.
    with suppress(OSError, UsageError), open(os.open(path, _OPEN), "rb+") as file:
        if _try_lock(file, path):
            os.unlink(path)


def _hold(handle: int) -> None:
    """Mark a temporary file as being written, until it is closed."""
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)


def _let_go(handle: int) -> int:
    """Close a handle once; return one that stands for none."""
    if handle >= 0:
        os.close(handle)
    return -1


def _cannot_write(path: object, error: Exception) -> Exception:
    """Return the one error that a failed writing raises; a pipe that broke is another matter."""
    if isinstance(error, TinyResNeXtError | BrokenPipeError):
        return error
    reason = getattr(error, "strerror", None) or error
    name = shown(path) if isinstance(path, str | os.PathLike) else repr(path)
    return UsageError(
        f"cannot write {name}: {reason}; choose an existing directory that you may write to and "
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


def opened(path: str | os.PathLike[str], *, new: bool = False) -> BinaryIO:
    """Open a file of our own to change it in place, and make it if it is not there.

    Parameters
    ----------
    path : path
    new : bool
        Make the file empty.

    Raises
    ------
    UsageError
        It cannot be opened; or it is a link, a pipe or another name of a file that is elsewhere.
    """
    try:
        handle = os.open(path, _OPEN | os.O_CREAT, 0o666)
    except (OSError, ValueError, TypeError) as error:
        present(path)  # raises the better error, of a link
        raise _cannot_write(path, error) from error
    try:
        status = os.fstat(handle)
        _check_kind(path, status)
        if status.st_nlink > 1:
            raise UsageError(
                f"cannot write {shown(path)}: the file has a second name elsewhere, under which it "
                "would change too; copy it"
            )
        if new:
            os.truncate(handle, 0)
        return open(handle, "rb+")
    except OSError as error:
        os.close(handle)
        raise _cannot_write(path, error) from error
    except BaseException:
        os.close(handle)
        raise


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
            if _try_lock(file, path) and _named(file, path):
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


def _try_lock(file: BinaryIO, path: str | os.PathLike[str]) -> bool:
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
