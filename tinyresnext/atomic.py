"""Writing a file so that its name always means the whole old content or the whole new one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UsageError

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same directory; on success it takes the place of ``path`` in one step.

    The new content is flushed to the disk before the name changes, so a crash, a full disk or Ctrl-C at any moment
    leaves the old file, and the temporary one is removed. Permissions are those of a newly made file. If ``path`` is a
    symbolic link, the file that it points at is replaced.

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
            raise UsageError(f"cannot write {path}: it exists and is not a regular file")
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except (OSError, ValueError, TypeError) as error:  # a NUL in the name is a ValueError, a number as path a TypeError
        raise _cannot_write(path, error) from None
    try:
        try:
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
    return UsageError(f"cannot write {path}: {reason}; choose an existing directory with room that you may write to")


def _sync_directory(directory: Path) -> None:
    """Make the new name itself survive a power cut, where the system can: Windows cannot open a directory."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
