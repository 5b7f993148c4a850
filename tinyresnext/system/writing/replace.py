"""Replace a file in one step, by one that is written beside it under another name."""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import UsageError
from ..files import shown
from .locks import hold, shuts_out, try_lock
from .ours import FLAGS, cannot_write, present

__all__ = ["NewName", "check_writable", "renamed", "replacing"]

_LEFT = 60.0  # seconds after which a temporary file that is closed is left over, on Windows
_TRIES, _PAUSE = 60, 0.05  # seconds between two tries to replace a file that is open on Windows


class NewName(str):
    """The name of a file that `replacing` makes only where there is none.

    It goes to whatever writes the file, as any other name does. A file that another process makes
    meanwhile is not written over: there is an error when the new one is whole.

    Parameters
    ----------
    name : str
    remedy : str, optional
        What a user can do about a file that exists.
    """

    def __new__(cls, name: str, remedy: str = "give another name") -> NewName:
        """Make a text that also has the remedy."""
        made = super().__new__(cls, name)
        made.remedy = remedy
        return made

    remedy: str


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
        raise cannot_write(path, error) from None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same directory; on success it replaces ``path`` in one step.

    The new content is flushed to the disk before the name changes. So a crash, a full disk or
    Ctrl-C at any moment leaves the old file, and the temporary file is removed; one that a process
    left when it was killed is removed by the next that writes a file of this name, on Windows not
    before it is a minute old. Where nobody can tell whether a file is still written, it stays: on
    a file system without locks, and in a mounted folder of another computer (SMB). The permissions
    are those of a newly made file.

    Parameters
    ----------
    path : path
        The file to make or to replace; a `NewName` is not replaced. Its directory must exist.

    Yields
    ------
    pathlib.Path
        An empty file: open it for writing, and close it before the ``with`` block ends.

    Raises
    ------
    UsageError
        ``path`` cannot be written: no such directory, no permission, a link or anything else that
        is no regular file, no space; or it is a `NewName`, and there is such a file by now.
    """
    present(path)
    target = Path(path)
    try:
        temporary, lock = _begun(target)
    except (OSError, ValueError) as error:  # no name at all is a ValueError
        raise cannot_write(path, error) from error
    try:
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            there = present(path)  # again: it may have taken hours
            if there and isinstance(path, NewName):
                raise UsageError(
                    f"{shown(path)} exists by now: another process has made it; {path.remedy}"
                )
            if sys.platform == "win32":
                lock = _let_go(lock)  # what is open cannot get another name there
            renamed(temporary, target)  # held until then, so nobody takes it for left over
            lock = _let_go(lock)
        except OSError as error:
            raise cannot_write(path, error) from error
    except BaseException:
        _let_go(lock)
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(target.parent)


def renamed(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Give a file another name, in place of a file that has it.

    On Windows that fails while another program has the old file open, such as a reader of a table
    or a scanner of viruses; so it is tried again for some seconds.

    Raises
    ------
    OSError
        It cannot be done.
    """
    for _ in range(_TRIES if sys.platform == "win32" else 0):
        with suppress(PermissionError):
            os.replace(path, to)
            return
        time.sleep(_PAUSE)
    os.replace(path, to)


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
        hold(handle, temporary)
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
    if sys.platform == "win32":  # an open file cannot be removed there, and one is closed for a
        with suppress(OSError):  # moment before it gets its name
            if time.time() - os.stat(path).st_mtime > _LEFT:
                os.unlink(path)
        return
    # A file system without locks cannot tell who holds it (UsageError): the file stays.
    with suppress(OSError, UsageError), open(os.open(path, FLAGS), "rb+") as file:
        if try_lock(file, path) and not shuts_out(path):
            os.unlink(path)


def _let_go(handle: int) -> int:
    """Close a handle once; return one that stands for none."""
    if handle >= 0:
        os.close(handle)
    return -1


def _sync_directory(directory: Path) -> None:
    """Make the new name survive a power cut, where the system can: Windows opens no directory."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
