"""The images that typed paths stand for: files, folders, archives, lists and patterns.

=====================================  =============================================================
typed                                  stands for
=====================================  =============================================================
``photo.jpg``, any other path          itself
a folder                               the images in it and below, sorted by path
a ``.zip`` archive                     the images in it and below, sorted by path
a ``.tar`` archive, such as a shard    the images in it, in its order
of WebDataset
a ``.txt`` file                        what its lines stand for, one path a line
``-``                                  what the lines of standard input stand for
``shard-{000..010}.tar``               a path for each number
``photos/*.jpg``, ``photos/**/*.jpg``  what matches, sorted, if there is no file of that very name
=====================================  =============================================================

Nothing is kept: an image is found when its turn comes, so a million images take no more memory than
the largest folder of them. What cannot be listed is an image whose error is its result, unless the
machine is to blame (`MachineError`).
"""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UsageError
from ...formats.stored_zip.archive import MOST_LEVELS
from ...system.files import check_machine, regular, shown
from ..rules import image_kind, is_left_out
from ..typed import encoding_of, matching, numbered
from .archives import (
    ARCHIVES,
    Source,
    as_path,
    as_source,
    check_several,
    fails,
    in_archive,
    is_archive,
)

__all__ = [
    "ARCHIVES",
    "Images",
    "Source",
    "as_path",
    "as_source",
    "check_several",
    "is_list",
    "lines_of",
]

_LIST = ".txt"
_MOST_LINE = 1 << 16  # letters of a line of a list


@dataclass
class Images:
    """The images that paths stand for, in order, as often as they are asked for.

    Parameters
    ----------
    paths : iterable of path
        As typed; the text of this module says what they stand for.
    names : iterable of str
        The lines of standard input, for ``-``. An empty line, or ``-``, is ignored.

    Attributes
    ----------
    left_out : Counter
        What is not read: archives in folders and in archives, and links to folders. Iterating adds
        to it, and `count` begins anew.
    empty : list of str
        Ten folders and archives, at most, that have no image. `count` finds them out.

    Raises
    ------
    UsageError
        ``paths`` is one path, or has something else than paths.
        While iterating: a folder has folders in more than 32 levels, a pattern matches nothing, a
        list cannot be read.
    MachineError
        While iterating: as `tinyresnext.system.files.check_machine` raises.
    """

    paths: Iterable[str | os.PathLike[str]]
    names: Iterable[str] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_several(self.paths)
        check_several(self.names)
        self.paths, self.names = [as_path(one) for one in self.paths], list(self.names)

    def __iter__(self) -> Iterator[Source]:
        """Yield the images."""
        for path in map(as_path, self.paths):
            if path == "-":
                yield from self._listed(self.names)
            elif is_list(path):
                yield from self._listed(_from_here(path))
            else:
                yield from self._of(path)

    def count(self) -> int:
        """Return how many images there are."""
        self.left_out, self.empty = Counter(), []
        return sum(1 for _ in self)

    def _listed(self, lines: Iterable[str]) -> Iterator[Source]:
        """Yield the images of a list."""
        for line in lines:
            path = line.rstrip("\r\n")
            if path not in ("", "-"):
                yield from self._of(path)

    def _of(self, path: str) -> Iterator[Source]:
        """Yield the images that a path stands for."""
        for one in numbered(path):
            for found, problem in matching(one, self.left_out):
                if problem is not None:
                    yield _unreadable(found, problem)
                elif os.path.isdir(found):
                    yield from self._noted(found, self._in_folder(found))
                elif found.lower().endswith(ARCHIVES):
                    yield from self._noted(found, in_archive(found, self.left_out))
                else:
                    yield as_source(found)

    def _noted(self, path: str, images: Iterator[Source]) -> Iterator[Source]:
        """Yield the images of a folder or an archive, and note if there is none."""
        if (first := next(images, None)) is not None:
            yield first
            yield from images
        elif len(self.empty) < 10:
            self.empty.append(path)

    def _in_folder(self, folder: str) -> Iterator[Source]:
        """Yield the images in and below a folder, by the rules of data sets, sorted by path."""
        top = str(Path(folder))
        waiting = [("" if top == os.curdir else top, 0)]
        while waiting:
            path, depth = waiting.pop()
            if depth and not path.endswith(os.sep):
                yield as_source(path)
                continue
            try:
                entries = self._entries(path or os.curdir)
            except OSError as error:
                check_machine(repr(path or os.curdir), error)
                yield _unreadable(path.rstrip(os.sep) or path, f"{error.strerror}")
                continue
            if depth >= MOST_LEVELS and any(name.endswith(os.sep) for name in entries):
                raise UsageError(
                    f"{shown(folder)} has folders in more than {MOST_LEVELS} levels; name the one "
                    "that has the images"
                )
            inner = sorted(entries, reverse=True)  # the last of the list comes next
            waiting += [(os.path.join(path, name), depth + 1) for name in inner]

    def _entries(self, folder: str) -> list[str]:
        """Return the images of a folder, and its folders, whose names end in a separator.

        So the sorted names have the order of the sorted paths. Links to folders are not followed,
        so a loop of them ends.
        """
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    if is_left_out(entry.name, True):
                        continue
                    if entry.is_symlink():
                        self.left_out["linked folder"] += 1
                    else:
                        found.append(entry.name + os.sep)
                elif is_left_out(entry.name, False):
                    continue
                elif image_kind(entry.name):
                    found.append(entry.name)
                elif is_archive(entry.name):
                    self.left_out["archive"] += 1
        return found


def is_list(path: str) -> bool:
    """Return whether a path is that of a list of images."""
    return path.lower().endswith(_LIST) and not os.path.isdir(path)


def _unreadable(folder: str, reason: str) -> Source:
    """Return what stands for the images of a folder that cannot be read: its error."""
    return Source(folder, fails(f"{folder!r} cannot be read: {reason}"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a loop of links is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        check_machine(repr(entry.path), error)
        return False


def lines_of(path: str) -> Iterator[str]:
    """Yield the lines of a list of paths; a byte order mark says its encoding, as in tables."""
    with regular(path, error=UsageError) as file:
        encoding = encoding_of(file.read(4))
        file.seek(0)
        bytewise = encoding in (None, "utf-8-sig")  # then a name may have bytes that are no text
        errors = sys.getfilesystemencodeerrors() if bytewise else "strict"
        encoding = encoding or sys.getfilesystemencoding()
        text, number = io.TextIOWrapper(file, encoding, errors, newline="\n"), 1
        try:
            while line := text.readline(_MOST_LINE + 1):
                if len(line) > _MOST_LINE or "\0" in line:
                    raise _no_name(path, number)
                yield line
                number += 1
        except UnicodeDecodeError:
            raise _no_name(path, number) from None
        finally:
            text.detach()


def _from_here(path: str) -> Iterator[str]:
    """Yield the lines of a list whose paths begin where the process runs.

    Raises
    ------
    UsageError
        The first path leads somewhere from the folder of the list only.
    """
    for number, line in enumerate(lines_of(path)):
        first = line.rstrip("\r\n")
        beside = os.path.join(os.path.dirname(path), first)
        if not number and not os.path.lexists(first) and os.path.lexists(beside):
            raise UsageError(
                f"the first path of {shown(path)}, {shown(first)}, is not here but in the folder "
                "of the list; paths begin where the command runs: run it in that folder, or write "
                "whole paths into the list"
            )
        yield line


def _no_name(path: str, number: int) -> UsageError:
    """Return the error of a line of a list."""
    return UsageError(
        f"{shown(path)}, line {number} is no name of an image; expected text with one path a line"
    )
