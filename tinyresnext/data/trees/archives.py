"""The images in a zip or a tar archive, found one after the other, without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ImageError, WeightsError
from ...formats.tar import Placed
from ...images.files import Contents
from ...system.files import shown
from ..rules import image_kind, is_left_out
from .listing import Parts
from .tars import TarFile
from .zips import ZipFile

__all__ = ["ARCHIVES", "Source", "as_source", "fails", "in_archive", "is_image"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


class Source(NamedTuple):
    """One image: the name that its row has, and a function that returns what `decode` takes.

    ``label`` is its class, or an array of 0 and 1 for each label, in data sets.
    """

    name: str
    open: Callable[[], Any]
    label: Any = None


def as_source(path: str) -> Source:
    """Return the image that a path names itself."""
    return Source(path, lambda: path)


def fails(message: str) -> Callable[[], str]:
    """Return a function that raises the error of what cannot be listed."""

    def fail() -> str:
        raise ImageError(message)

    return fail


def in_archive(path: str) -> Iterator[Source]:
    """Yield the images of an archive; what is wrong with it is the last of them."""
    try:
        yield from (_in_zip if path.lower().endswith(".zip") else _in_tar)(path)
    except WeightsError as error:
        yield Source(path, fails(str(error)))


def _in_tar(path: str) -> Iterator[Source]:
    """Yield the images of a tar archive, in its order."""
    archive = TarFile(path, forwards=True)
    for placed in archive:
        if is_image(placed.name.split("/")):
            name = f"{path}/{placed.name}"

            def read(placed: Placed = placed, name: str = name) -> Contents:
                return Contents(shown(name), archive.read(placed, shown(name)))

            yield Source(name, read)


def _in_zip(path: str) -> Iterator[Source]:
    """Yield the images of a zip archive, sorted by path."""
    archive = ZipFile(Path(path))
    waiting: list[Parts] = [()]
    while waiting:
        place = waiting.pop()
        if place and place[-1]:
            name = "/".join((path, *place))

            def read(place: Parts = place, name: str = name) -> Contents:
                return Contents(shown(name), archive.read(place, shown(name)))

            yield Source(name, read)
            continue
        entries = archive.listing(place[:-1])
        names = [name for name in entries.files if is_image([name])]
        # An empty last part marks a folder, as the separator does on a disk.
        inner = names + [f"{name}/" for name in entries.folders if not is_left_out(name, True)]
        for name in sorted(inner, reverse=True):
            last = (name[:-1], "") if name.endswith("/") else (name,)
            waiting.append((*place[:-1], *last))


def is_image(parts: list[str]) -> bool:
    """Return whether the parts of a name are those of an image that is not left out."""
    *folders, last = parts
    hidden = is_left_out(last, False) or any(is_left_out(name, True) for name in folders)
    return bool(image_kind(last)) and not hidden
