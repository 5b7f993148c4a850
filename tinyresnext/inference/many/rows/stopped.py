"""What is said of the rows of a run that ends because its results cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ....errors import UsageError
from ....system.files import shown

__all__ = ["Taken", "changing", "resumable"]


class Taken(UsageError):
    """Another process has made the file of a run; to make room would not help."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{shown(path)} exists by now, and this run was not begun with --force (force=True): "
            f"another process has made it; {shown(path)}.part has the rows of this run: give the "
            "other file another name, and go on with the run (--resume, resume=True)"
        )


@contextmanager
def changing(file: BinaryIO, path: str, stays: bool) -> Iterator[BinaryIO]:
    """Close a file of the run to ``path`` at the end; what is not written yet is written then."""
    try:
        yield file
    finally:
        with resumable(path, stays):
            file.close()


@contextmanager
def resumable(path: str, stays: bool = True) -> Iterator[None]:
    """Say how to go on, if what is written in the ``with`` block cannot be, as on a full disk.

    Nothing else stands in the block: what reads images has errors of its own.

    Raises
    ------
    UsageError
        With what to do beside the system's words.
    """
    try:
        yield
    except (BrokenPipeError, Taken):
        raise
    except (OSError, UsageError) as error:
        said = str(error)
        if isinstance(error, OSError):
            said = f"the results cannot be written: {error.strerror or error}"
        how = "make room, and begin anew"
        if stays:
            how = (
                f"{shown(path)}.part has the rows so far: make room, and go on with the run "
                "(--resume, resume=True)"
            )
        raise UsageError(f"{said}; {how}") from error
