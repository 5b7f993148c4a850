"""The rows of a run on the disk, so that a run that was stopped or killed can go on.

While a run goes on, ``FILE.part`` has its rows, and ``FILE.part.json`` what the rows depend on: the
models, the views. When all rows are there, the part gets the name ``FILE``. So ``FILE`` is whole or
not there. A row is written at once, with those of its mini-batch; a process that is killed leaves
at most one row that has no end, which is cut off and computed again.

A run that goes on looks at the images in the same order, and compares the name of each row with the
name of its image: if they differ, nothing is computed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, BinaryIO

from ....data.trees.sources import Source
from ....errors import UsageError
from ....system.files import regular, shown
from ....system.writing import check_writable, locked, present, renamed, replacing
from .forms import Form, records
from .settings import OVER, PLACE, as_json, check_settings
from .stopped import Taken, changing, resumable

__all__ = ["Journal", "journal", "whole"]


class Journal:
    """The rows of one run; `journal` makes it.

    Attributes
    ----------
    done, failed : int
        Rows that are on the disk, and how many of these have an error.
    stays : bool
        Whether a run that is stopped leaves them.
    over : bool
        Whether a file of the name may be written over.
    """

    def __init__(self, path: str, file: BinaryIO, form: Form, stays: bool, over: bool) -> None:
        self.path, self.done, self.failed, self.stays = path, 0, 0, stays
        self.over = over
        self._file, self._form = file, form

    def remaining(self, sources: Iterable[Source], step: int = 1) -> Iterator[Source]:
        """Yield those of all images that have no row yet.

        Only whole groups of ``step`` rows are kept, so that the mini-batches are those of a run
        that was not stopped.

        Raises
        ------
        UsageError
            The rows are of other images than these, or in another order.
        """
        images, again = iter(sources), list[Source]()
        end, failed = self._file.seek(0), 0
        for record, after in records(self._file, self._form.quotes):
            if not end and self._form.heading:
                if record != self._form.heading:
                    break
                end = after
                continue
            done = self._form.read(record)
            if done is None:  # after a power cut there may be anything
                break
            again.append(self._compared(done.name, next(images, None)))
            self.done, failed = self.done + 1, failed + (done.error is not None)
            if self.done % step == 0:
                end, self.failed, again = after, failed, []
        self.done -= len(again)
        with self.writing():
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                self._file.write(self._form.heading)
        yield from again
        yield from images

    def _compared(self, name: str, image: Source | None) -> Source:
        """Return the next image; raise `UsageError` unless the next row is its."""
        if image is not None and self._form.written(image.name) == name:
            return image
        found = "there are no more images" if image is None else f"the image is {shown(image.name)}"
        raise UsageError(
            f"row {self.done + 1} of {shown(self.path)} is of {shown(name)}, and {found}: the "
            "images are not those that the run began with; give the same ones, or begin anew "
            "(--force)"
        )

    def write(self, row: bytes, error: str | None) -> None:
        """Add a row; `flush` hands it to the system."""
        with self.writing():
            self._file.write(row)
        self.done, self.failed = self.done + 1, self.failed + (error is not None)

    def flush(self) -> None:
        """Hand all rows to the system: from then on, a killed process does not lose them."""
        with self.writing():
            self._file.flush()

    def sync(self) -> None:
        """Have all rows written to the disk."""
        with self.writing():
            self._file.flush()
            os.fsync(self._file.fileno())

    def end(self) -> None:
        """Give the rows the name of the file, in one step: all of them are there.

        Until then other processes are kept out.

        Raises
        ------
        UsageError
            Somebody has removed them, or has given the name to another file or to something else.
        """
        self.sync()
        self.check_free()
        if not present(f"{self.path}.part"):
            raise UsageError(
                f"{shown(self.path)}.part is gone: somebody has removed the rows of this run; "
                "begin anew"
            )
        if sys.platform == "win32":  # what is open cannot get another name there
            self._file.close()
        with self.writing():
            renamed(f"{self.path}.part", self.path)
        if not present(f"{self.path}.part"):  # else the settings are those of another run already
            with suppress(FileNotFoundError):
                os.unlink(f"{self.path}.part.json")

    def check_free(self) -> None:
        """Raise `UsageError` if the file is there that may not be written over; the rows stay."""
        if present(self.path) and not self.over:
            self.stays = True
            raise Taken(self.path)

    def rows(self) -> Iterator[bytes]:
        """Yield each row that is on the disk; the file that is locked is not opened once more."""
        return (row for row, _ in records(self._file, self._form.quotes))

    def drop(self) -> None:
        """Remove what the run leaves beside the file that it was to make."""
        if sys.platform == "win32":  # no open file can be removed there
            with suppress(OSError):
                self._file.close()
        for ending in (".part", ".part.json"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self.path}{ending}")

    def writing(self) -> AbstractContextManager[None]:
        """Return what is around each writing of the run; see `resumable`."""
        return resumable(self.path, self.stays)


@contextmanager
def journal(
    path: str,
    settings: Mapping[str, Any],
    form: Form,
    resume: bool,
    force: bool = False,
    stays: bool = True,
    place: str = "",
) -> Iterator[Journal]:
    """Begin a run, or go on with one; the end of the ``with`` block does not end the run.

    Parameters
    ----------
    path : str
        The file to make.
    settings : mapping
        What the rows depend on, as JSON has it; a run that goes on needs the same.
    form : Form
    resume : bool
        Go on with the run, if there is one.
    force : bool
        Drop the rows of a run that was stopped.
    stays : bool
        Whether the caller leaves the rows if this run is stopped.
    place : str
        As `computed_on` returns it, if that is known; another one is said.

    Raises
    ------
    UsageError
        There are rows of a run that was stopped, and they are neither to be used nor to be dropped;
        another process adds rows, or has made the file; the settings are others, or nothing that
        JSON has; the file cannot be written.
    """
    settings = as_json(settings) | {PLACE: place, OVER: force}
    part, beside = f"{path}.part", f"{path}.part.json"

    def busy() -> None:
        raise UsageError(f"another process writes {shown(part)}; wait until it has ended")

    check_writable(path)
    with locked(part, waiting=busy) as file, changing(file, path, stays):
        begun = file.seek(0, os.SEEK_END) > 0  # now: another run may have ended meanwhile
        if not (begun or force) and present(path):
            if sys.platform == "win32":  # no open file can be removed there
                file.close()
            with suppress(OSError):
                os.unlink(part)
            raise UsageError(
                f"{shown(path)} exists by now: another process has made it; give another name, or "
                "--force to write over it (--resume says whether it is what this run would make)"
            )
        if begun and not (resume or force):
            raise UsageError(
                f"{shown(part)} has rows of a run that did not end; go on with it (--resume), or "
                "drop them and begin anew (--force)"
            )
        over = force
        if begun and resume:
            over = check_settings(beside, part, settings)
        else:
            with resumable(path, stays):
                file.truncate(0)  # first: rows never stand beside the settings of others
            with replacing(beside) as temporary:
                temporary.write_text(json.dumps(settings), "utf-8")
        kept = Journal(path, file, form, stays, over)
        kept.check_free()  # now: not only when hours are over
        yield kept


def whole(path: str, form: Form, sources: Iterable[Source]) -> tuple[int, int] | None:
    """Return the rows of a file and how many have an error, if each image has one, in order.

    None means that the run has not ended: the file is not there, or there is a part.

    Raises
    ------
    UsageError
        The file is there, and has other rows.
    """
    if not present(path) or present(f"{path}.part"):
        return None
    images, number, failed, end = iter(sources), 0, 0, 0
    with regular(path) as file:
        for record, after in records(file, form.quotes):
            end = after
            if record == form.heading:
                continue
            done, image = form.read(record), next(images, None)
            if done is None or image is None or done.name != form.written(image.name):
                break
            number, failed = number + 1, failed + (done.error is not None)
        else:
            if next(images, None) is None and end == file.seek(0, os.SEEK_END):
                return number, failed
    raise UsageError(
        f"{shown(path)} is whole, and its rows from {number + 1} on are not those of these images "
        "and settings; give another name, or --force to write over it"
    )
