"""What typed names stand for, before folders and archives are opened: patterns, numbers, texts.

A pattern means what it means to Python's ``glob`` and to a shell: ``*``, ``?`` and ``[...]`` match
parts of one name, ``**`` any number of folders, and a hidden name is matched only by a dot. As in
bash, ``**`` goes through no link to a folder, so nothing is found twice and a loop of links ends;
what stands in the pattern itself may be a link. What cannot be read is told and not skipped.
"""

from __future__ import annotations

import codecs
import errno
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..errors import UsageError
from ..system.files import check_machine

__all__ = ["Match", "encoding_of", "is_pattern", "matching", "numbered"]

_MOST_NUMBERS = 100_000  # paths that one pattern of numbers stands for
_NUMBERS = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # a loop of links leads nowhere


class Match(NamedTuple):
    """A path that a pattern matches; or one that cannot be read, and so what may be in it."""

    path: str
    problem: str | None = None


def encoding_of(start: bytes) -> str | None:
    """Return the encoding that a byte order mark says, as PowerShell writes it; None without one.

    Its decoder takes the mark away.
    """
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)


def numbered(path: str) -> Iterator[str]:
    """Yield a path for each number of ``{000..010}`` in it; otherwise the path.

    Raises
    ------
    UsageError
        The numbers fall, or are too many.
    """
    match = _NUMBERS.search(path)
    if match is None or os.path.lexists(path):
        yield path
        return
    first, last, digits = int(match[1]), int(match[2]), len(match[1])
    if not first <= last < first + _MOST_NUMBERS:
        raise UsageError(
            f"{match[0]} in {path!r:.200} stands for no numbers, or for more than "
            f"{_MOST_NUMBERS:,}; expected the smallest and the largest, such as {{000..010}}"
        )
    for number in range(first, last + 1):
        yield from numbered(f"{path[: match.start()]}{number:0{digits}}{path[match.end() :]}")


def is_pattern(path: str) -> bool:
    """Return whether a path is a pattern that stands for others."""
    magic = glob.has_magic(path) or _NUMBERS.search(path) is not None
    return magic and "\0" not in path and not os.path.lexists(path)


def matching(path: str, left_out: Counter[str]) -> list[Match]:
    """Return what matches a pattern, sorted; a path that exists, or is no pattern, alone.

    Links to folders through which ``**`` does not go are counted in ``left_out``.

    Raises
    ------
    UsageError
        Nothing matches.
    """
    if not glob.has_magic(path) or "\0" in path or os.path.lexists(path):
        return [Match(path)]
    search = _Search()
    found = {one for one in search.paths(path) if one}
    if "**" in path.replace(os.altsep or os.sep, os.sep).split(os.sep):
        # The folders would stand for their images once more.
        found = {one for one in found if not os.path.isdir(one)}
    if passed := len(search.links - search.entered):
        left_out["linked folder"] += passed
    every = {one: Match(one) for one in found}
    every |= {one: Match(one, problem) for one, problem in search.problems.items()}
    if not every:
        links = " (** goes through no linked folder, and came by some)" if passed else ""
        raise UsageError(
            f"nothing matches the pattern {path!r:.200}{links}; expected files or folders"
        )
    return [every[one] for one in sorted(every)]


class _Search:
    """The search for what a pattern matches.

    Attributes
    ----------
    problems : dict
        Folders that cannot be read, with the reason.
    links, entered : set of str
        Links to folders that ``**`` came by, and folders that were read.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.links: set[str] = set()
        self.entered: set[str] = set()

    def paths(self, pattern: str, folders: bool = False) -> Iterator[str]:
        """Yield what matches; with ``folders``, of files only those that may be links to some."""
        head, tail = os.path.split(pattern)
        if head == pattern or not glob.has_magic(pattern):
            if _is_there(pattern):
                yield pattern
            return
        for folder in self.paths(head, folders=True) if head else [""]:
            if tail == "**":
                yield from self._below(folder, folders)
            elif glob.has_magic(tail):
                for entry in self._entries(folder):
                    shows = tail.startswith(".") or not entry.name.startswith(".")
                    if shows and _fits(entry.name, tail) and (not folders or _may_lead_on(entry)):
                        yield os.path.join(folder, entry.name)
            elif _is_there(found := os.path.join(folder, tail)):
                yield found

    def _below(self, top: str, folders: bool) -> Iterator[str]:
        """Yield a folder and those below it; without ``folders``, the files in them."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            if folders:
                yield folder
            for entry in self._entries(folder):
                path = os.path.join(folder, entry.name)
                if entry.name.startswith("."):
                    continue
                if not _may_lead_on(entry):
                    if not folders:
                        yield path
                elif entry.is_symlink():
                    self.links.add(path)
                else:
                    waiting.append(path)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return what is in a folder: nothing if it is none, or cannot be read."""
        self.entered.add(folder)
        try:
            with os.scandir(folder or os.curdir) as entries:
                return list(entries)
        except OSError as error:
            check_machine(repr(folder or os.curdir), error)
            if error.errno not in _ABSENT:
                self.problems[folder or os.curdir] = f"{error.strerror}"
        except ValueError:  # no name that a system can have
            pass
        return []


def _fits(name: str, pattern: str) -> bool:
    """Return whether a name is one that a pattern stands for, by the rules of the system."""
    return fnmatchcase(os.path.normcase(name), os.path.normcase(pattern))


def _may_lead_on(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one, or cannot be asked."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno not in _ABSENT


def _is_there(path: str) -> bool:
    """Return whether a path leads to something, or cannot be asked: then reading it says why."""
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno not in _ABSENT
    except ValueError:  # no name that a system can have
        return False
    return True
