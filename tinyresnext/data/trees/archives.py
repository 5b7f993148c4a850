"""The images in a zip or a tar archive, found one after the other, without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import FormatError, ImageError, UsageError, WeightsError
from ...images.files import Contents
from ...system.files import check_machine, shown
from ..rules import image_kind, is_left_out
from .listing import Parts
from .tars import TarFile, TarTree
from .zips import ZipFile

__all__ = [
    "ARCHIVES",
    "Source",
    "as_path",
    "as_source",
    "check_several",
    "fails",
    "in_archive",
    "is_archive",
    "is_image",
    "opener",
]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_OTHERS = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")  # are not read
_KEPT = 8  # archives that a process keeps open, to which images in them were sent


class Source(NamedTuple):
    """One image: the name that its row has, and a function that returns what `decode` takes.

    Those that typed paths stand for can be pickled: a process that has the same files opens the
    same. ``label`` is its class, or an array of 0 and 1 for each label, in data sets.
    """

    name: str
    open: Callable[[], Any]
    label: Any = None


def as_source(path: str) -> Source:
    """Return the image that a path names itself."""
    return Source(path, partial(str, path))


def as_path(path: Any) -> str:
    """Return a path as text; raise `UsageError` for what is none."""
    try:
        return str(os.fsdecode(path))
    except TypeError:
        raise UsageError(
            f"the path of an image was expected, found {path!r:.200}; give a text or a pathlib.Path"
        ) from None


def check_several(paths: Any) -> None:
    """Raise `UsageError` for what is no list of paths, such as one path, whose letters are some."""
    if isinstance(paths, str | bytes | os.PathLike) or not isinstance(paths, Iterable):
        raise UsageError(
            f"a list of paths was expected, found {paths!r:.200}; give a list, such as "
            "['photo.jpg']"
        )


def fails(message: str) -> Callable[[], str]:
    """Return a function that raises the error of what cannot be listed."""
    return partial(_fail, message)


def _fail(message: str) -> str:
    raise ImageError(message)


@dataclass(frozen=True, slots=True)
class _Inside:
    """An image of an archive, which a pickle of it opens again."""

    archive: TarFile | TarTree | ZipFile
    path: str
    size: int  # bytes of the archive
    where: int  # what the archive reads it by
    name: str

    def __call__(self) -> Contents:
        return Contents(shown(self.name), self.archive.read(self.where, shown(self.name)))

    def __reduce__(self) -> tuple[object, ...]:
        zipped, path = isinstance(self.archive, ZipFile), os.path.abspath(self.path)
        return _inside, (zipped, path, self.size, self.where, self.name)


def _inside(zipped: bool, path: str, size: int, where: int, name: str) -> _Inside:
    """Return an image of an archive that this process opens anew."""
    return _Inside(_opened_again(zipped, path, size), path, size, where, name)


def opener(
    archive: TarFile | TarTree | ZipFile, path: str
) -> Callable[[int, str], Callable[[], Contents]]:
    """Return a function that returns an image's `Source.open`, given where it is, and its name."""
    return partial(_Inside, archive, path, os.path.getsize(path))


def _opened_again(zipped: bool, path: str, size: int) -> TarFile | ZipFile:
    """Open an archive; images that are read one after the other share one that is open.

    One that has been replaced meanwhile is opened anew, even if it has the same size.

    Raises
    ------
    FormatError, UnsafeError
        It cannot be opened here, or it has another size, so images would not be where they were.
    MachineError
        As `check_machine` raises.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        check_machine(shown(path), error)
        raise FormatError(f"{shown(path)} cannot be read: {error.strerror}") from error
    if status.st_size != size:
        raise FormatError(
            f"{shown(path)} has {status.st_size:,} bytes here and {size:,} where its images were "
            "listed; the same file is needed"
        )
    return _opened(zipped, path, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=_KEPT)
def _opened(zipped: bool, path: str, version: tuple[int, ...]) -> TarFile | ZipFile:
    """Open the archive that a path names now; ``version`` is another if a file is replaced."""
    return ZipFile(Path(path)) if zipped else TarFile(path, forwards=True)


def in_archive(path: str, left_out: Counter[str]) -> Iterator[Source]:
    """Yield the images of an archive; what is wrong with it is the last of them.

    Archives in it are counted in ``left_out``.
    """
    try:
        yield from (_in_zip if path.lower().endswith(".zip") else _in_tar)(path, left_out)
    except WeightsError as error:
        yield Source(path, fails(str(error)))


def _in_tar(path: str, left_out: Counter[str]) -> Iterator[Source]:
    """Yield the images of a tar archive, in its order."""
    archive = TarFile(path, forwards=True)
    opened = opener(archive, path)
    for placed in archive:
        if is_image(placed.name.split("/")):
            name = f"{path}/{placed.name}"
            yield Source(name, opened(placed.start, name))
        elif is_archive(placed.name):
            left_out["inner archive"] += 1


def _in_zip(path: str, left_out: Counter[str]) -> Iterator[Source]:
    """Yield the images of a zip archive, sorted by path."""
    archive = ZipFile(Path(path))
    opened = opener(archive, path)
    waiting: list[Parts] = [()]
    while waiting:
        place = waiting.pop()
        if place and place[-1]:
            name = "/".join((path, *place))
            yield Source(name, opened(archive.where(place), name))
            continue
        entries = archive.listing(place[:-1])
        names = [name for name in entries.files if is_image([name])]
        if inner_archives := sum(map(is_archive, entries.files)):
            left_out["inner archive"] += inner_archives
        # An empty last part marks a folder, as the separator does on a disk.
        inner = names + [f"{name}/" for name in entries.folders if not is_left_out(name, True)]
        for name in sorted(inner, reverse=True):
            last = (name[:-1], "") if name.endswith("/") else (name,)
            waiting.append((*place[:-1], *last))


def is_archive(name: str) -> bool:
    """Return whether a file is called as an archive is, and is not hidden."""
    last = name.rpartition("/")[2].lower()
    return last.endswith((*ARCHIVES, *_OTHERS)) and not is_left_out(last, False)


def is_image(parts: list[str]) -> bool:
    """Return whether the parts of a name are those of an image that is not left out."""
    *folders, last = parts
    hidden = is_left_out(last, False) or any(is_left_out(name, True) for name in folders)
    return bool(image_kind(last)) and not hidden
