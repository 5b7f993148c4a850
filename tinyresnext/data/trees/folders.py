"""Images in folders, one folder for each class, on a disk or in a zip archive.

::

    SPLIT/CLASS/any/folders/image.jpg        with splits: train, val, valid, validation or test
    CLASS/any/folders/image.jpg              without

A single folder around all that is entered, if it holds no images itself. Classes are sorted by
name, and are those of all splits together, so that a label means the same in each. `rules` says
what the names mean, and `tree` finds the levels.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import FormatError
from ...images.decode import decode
from ...images.files import image_in, load_image
from ...system.files import shown
from ..dataset import Dataset, Read, Reading, Weigh, from_files
from .listing import Entries, Listing, Parts, Tree
from .tree import Levels
from .zips import ZipFile

__all__ = ["decoded_bytes", "open_folder", "open_zip"]


def open_folder(path: Path, split: str, reading: Reading) -> Dataset:
    """Open the data set in a folder. Parameters and errors are those of `data.open_dataset`."""
    levels = Levels(Tree(_on_disk(path)), shown(path), reading.warn).find(split)

    def read(i: int) -> NDArray[np.uint8]:
        return decode(os.path.join(path, *levels.images[i][1]), least=reading.least)

    def weigh(i: int) -> int:
        return decoded_bytes(load_image(os.path.join(path, *levels.images[i][1]), pixels=False))

    return _dataset(levels, read, weigh, reading)


def open_zip(path: Path, split: str, reading: Reading) -> Dataset:
    """Open the data set in a zip archive. Parameters and errors are those of `open_dataset`."""
    archive = ZipFile(path)
    levels = Levels(Tree(archive.listing), shown(path), reading.warn).find(split)

    def opened(i: int, pixels: bool = True) -> Image.Image:
        place = levels.images[i][1]
        name = f"{shown(path)}: {shown('/'.join(place))}"
        return image_in(archive.read(place, name), name, pixels, reading.least)

    def read(i: int) -> NDArray[np.uint8]:
        return decode(opened(i))

    def weigh(i: int) -> int:
        return decoded_bytes(opened(i, pixels=False))

    return _dataset(levels, read, weigh, reading)


def decoded_bytes(image: Image.Image) -> int:
    """Return how many bytes an image has when it is decoded, to red, green and blue."""
    return 3 * image.width * image.height


def _dataset(levels: Levels, read: Read, weigh: Weigh, reading: Reading) -> Dataset:
    """Return the data set of the images that were found."""
    names = ["/".join(place[len(levels.root) :]) for _, place in levels.images]
    labels = [label for label, _ in levels.images]
    return from_files(
        levels.classes, labels, names, read, weigh, levels.name, reading, levels.left_out
    )


def _on_disk(top: Path) -> Listing:
    """Return the listing of a folder on a disk. A link to a file counts as a file."""

    @cache
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
    except OSError:
        return False


def _unreadable(folder: str, error: Exception) -> FormatError:
    """Return the error of a folder that cannot be read."""
    reason = getattr(error, "strerror", None) or error
    return FormatError(f"the folder {shown(folder)} cannot be read: {reason}")
