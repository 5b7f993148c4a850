"""Files of our own: regular files, in whose place there may be links, pipes, devices."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from ...errors import TinyResNeXtError, UsageError
from ..files import shown

__all__ = ["FLAGS", "cannot_write", "opened", "present"]

# not every system has each of these flags
FLAGS = sum(
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
        raise cannot_write(path, error) from None
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
        handle = os.open(path, FLAGS | os.O_CREAT, 0o666)
    except (OSError, ValueError, TypeError) as error:
        present(path)  # raises the better error, of a link
        raise cannot_write(path, error) from error
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
        raise cannot_write(path, error) from error
    except BaseException:
        os.close(handle)
        raise


def cannot_write(path: object, error: Exception) -> Exception:
    """Return the one error that a failed writing raises; a pipe that broke is another matter."""
    if isinstance(error, TinyResNeXtError | BrokenPipeError):
        return error
    reason = getattr(error, "strerror", None) or error
    name = shown(path) if isinstance(path, str | os.PathLike) else repr(path)
    return UsageError(
        f"cannot write {name}: {reason}; choose an existing directory that you may write to and "
        "that has room"
    )
