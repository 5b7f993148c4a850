"""Images in folders, one folder for each class, on a disk or in an archive.

::

    SPLIT/CLASS/any/folders/image.jpg        with splits: train, val, valid, validation or test
    CLASS/any/folders/image.jpg              without

A single folder around all that is entered, if it holds no images itself. Classes are sorted by
name, and are those of all splits together, so that a label means the same in each; a split that
shares no folder with the others has images without classes. `rules` says what the names mean, and
`tree` finds the levels. Where classes stand in a file of their own, as those of ImageNet's
validation set and of TinyImageNet's do, `published` reads it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import FormatError
from ...images.decode import decode
from ...images.files import image_in, load_image
from ...system.files import check_machine, shown
from ..dataset import ALL, Dataset, Reading
from ..published.flat import is_unsorted, label_of, labelled, truth_of
from .decoding import from_files
from .listing import Entries, Listing, Parts, Tree
from .tars import TarTree
from .tree import Levels
from .zips import ZipFile

__all__ = ["decoded_bytes", "on_disk", "open_archive", "open_folder"]

_KEPT = 16  # folders


@dataclass(frozen=True)
class _Opened:
    """A folder or an archive: its path, what is in its folders, and how an image of it is opened.

    ``image`` takes a place, and whether its pixels are needed. ``start`` returns the first byte of
    an image, if images are quick to read only in the order of these.
    """

    path: Path
    tree: Tree
    image: Callable[[Parts, bool], Image.Image]
    start: Callable[[Parts], int] | None = None


def open_folder(
    path: Path, split: str | None, reading: Reading, truth: str | None = None
) -> Dataset:
    """Open the data set in a folder. Parameters and errors are those of `data.open_dataset`."""

    def image(place: Parts, pixels: bool) -> Image.Image:
        return load_image(os.path.join(path, *place), pixels, reading.least)

    return _open(_Opened(path, Tree(on_disk(path)), image), split, reading, truth)


def open_archive(
    archive: ZipFile | TarTree, path: Path, split: str | None, reading: Reading, truth: str | None
) -> Dataset:
    """Open the data set in an archive. Parameters and errors are those of `open_dataset`."""

    def image(place: Parts, pixels: bool) -> Image.Image:
        name = f"{shown(path)}: {shown('/'.join(place))}"
        return image_in(archive.read(archive.where(place), name), name, pixels, reading.least)

    start = archive.where if isinstance(archive, TarTree) and archive.packed else None
    return _open(_Opened(path, Tree(archive.listing), image, start), split, reading, truth)


def _open(place: _Opened, split: str | None, reading: Reading, truth: str | None) -> Dataset:
    """Open a data set whose classes are folders, or stand in a file of their own."""
    name = shown(place.path)
    if truth is None and not is_unsorted(place.path, place.tree):
        levels = Levels(place.tree, name, reading.warn).find(split, reading.first)
        images = list(levels.images(levels.left_out))
        places, labels = _in_order(
            place, [parts for _, parts in images], [label for label, _ in images]
        )
        names = ["/".join(parts[len(levels.root) :]) for parts in places]
        found = _dataset(place, places, (levels.classes, labels, names), reading, levels.left_out)
        return replace(found, part=levels.part, root=os.path.join(place.path, *levels.root))
    known = truth_of(place.path, split, truth, reading.warn)
    left_out: Counter[str] = Counter()
    every = labelled(place.tree, name, known, left_out)
    answers = np.array([label_of(each, known) for _, each in every], np.int64)
    places, answers = _in_order(place, [parts for parts, _ in every], answers)
    names = ["/".join(parts) for parts in places]
    made = _dataset(place, places, (known.classes, answers, names), reading, left_out)
    return replace(made, any_is_right=known.several, part=ALL, root=str(place.path))


def _in_order(
    place: _Opened, places: list[Parts], labels: Sequence[int] | NDArray[np.int64]
) -> tuple[list[Parts], NDArray[np.int64]]:
    """Return images and their labels in the order in which the images are quick to read."""
    every = np.asarray(labels, np.int64)
    if place.start is None:
        return places, every
    starts = [place.start(one) for one in places]
    order = np.argsort(starts, kind="stable")
    return [places[i] for i in order.tolist()], every[order]


def decoded_bytes(image: Image.Image) -> int:
    """Return how many bytes an image has when it is decoded, to red, green and blue."""
    return 3 * image.width * image.height


def _dataset(
    place: _Opened,
    places: list[Parts],
    described: tuple[Sequence[str], Sequence[int] | NDArray[np.int64], list[str]],
    reading: Reading,
    left_out: Mapping[str, int],
) -> Dataset:
    """Return the data set of images with classes, labels and names."""

    def read(i: int) -> NDArray[np.uint8]:
        return decode(place.image(places[i], True))

    def weigh(i: int) -> int:
        return decoded_bytes(place.image(places[i], False))

    return from_files(*described, read, weigh, shown(place.path), reading, left_out)


def on_disk(top: Path) -> Listing:
    """Return the listing of a folder on a disk. A link to a file counts as a file.

    Some of the folders are kept: those that several questions are asked about, one after the other.
    """

    @lru_cache(maxsize=_KEPT)
    def listing(place: Parts) -> Entries:
        folders: list[str] = []
        files: list[str] = []
        links: set[str] = set()
        folder = os.path.join(top, *place)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else files).append(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
        except FileNotFoundError as error:
            if not place:
                raise _unreadable(folder, error) from error
            # The class occurs in another split only.
        except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
            raise _unreadable(folder, error) from error
        return Entries(sorted(folders), sorted(files), frozenset(links))

    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a loop of links is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        check_machine(repr(entry.path), error)
        return False


def _unreadable(folder: str, error: Exception) -> FormatError:
    """Return the error of a folder that cannot be read; raise `MachineError` for the machine's."""
    check_machine(shown(folder), error)
    reason = getattr(error, "strerror", None) or error
    return FormatError(f"the folder {shown(folder)} cannot be read: {reason}")
