"""Images in folders, one folder for each class, on a disk or in a zip archive.

::

    SPLIT/CLASS/any/folders/image.jpg        with splits: train, val, valid, validation or test
    CLASS/any/folders/image.jpg              without

A single folder around all that is entered, if it holds no images itself. Classes are sorted by
name, and are those of all splits together, so that a label means the same in each. A file counts as
an image by its ending, unless its name begins with a dot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, UsageError
from ..images.decode import decode
from ..images.files import REFUSED_SUFFIXES, SUFFIXES, image_in
from ..system.files import shown
from .dataset import Dataset, Reading, from_files
from .zips import ZipFile

__all__ = ["open_folder", "open_zip"]

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_ALL_SPLITS = frozenset(name for names in SPLITS.values() for name in names)

Parts = tuple[str, ...]


def open_folder(path: Path, split: str, reading: Reading) -> Dataset:
    """Open the data set in a folder. Parameters and errors are those of `data.open_dataset`."""
    root = path
    while (
        len(folders := _subfolders(root)) == 1
        and folders[0] not in _ALL_SPLITS
        and _is_wrapping(root / folders[0])
    ):
        root = root / folders[0]
    part, classes = _choose(split, folders, lambda name: _subfolders(root / name), path)
    found = []
    for label, name in enumerate(classes):
        found += [
            (label, file)
            for file in sorted(
                _walk(root.joinpath(*part, name)), key=lambda file: file.split(os.sep)
            )
        ]
    start = len(os.path.join(root, ""))
    names = [file[start:].replace(os.sep, "/") for _, file in found]

    def read(i: int) -> NDArray[np.uint8]:
        return decode(found[i][1])

    return from_files(classes, [label for label, _ in found], names, read, shown(path), reading)


def open_zip(path: Path, split: str, reading: Reading) -> Dataset:
    """Open the data set in a zip archive. Parameters and errors are those of `open_dataset`."""
    archive = ZipFile(path)
    split_names = ((tuple(name.split("/")), name) for name in archive.members)
    paths = {
        parts: name
        for parts, name in split_names
        if _is_image(parts[-1]) and not any(map(_is_hidden, parts))
    }
    while len({parts[0] for parts in paths}) == 1 and not any(
        p[0] in _ALL_SPLITS or len(p) < 3 for p in paths
    ):
        paths = {parts[1:]: name for parts, name in paths.items()}
    below: dict[str, set[str]] = {}
    for parts in paths:
        if len(parts) > 1:
            below.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else ())
    part, classes = _choose(split, sorted(below), lambda name: sorted(below[name]), path)
    number = {name: label for label, name in enumerate(classes)}
    depth = len(part)
    found = sorted(p for p in paths if p[:depth] == part and len(p) > depth + 1)
    files = [paths[parts] for parts in found]

    def read(i: int) -> NDArray[np.uint8]:
        name = f"{shown(path)}: {shown(files[i])}"
        return decode(image_in(archive.read(files[i], name), name))

    labels = [number[parts[depth]] for parts in found]
    return from_files(
        classes, labels, ["/".join(parts) for parts in found], read, shown(path), reading
    )


def _choose(
    split: str, folders: list[str], inside: Callable[[str], list[str]], path: Path
) -> tuple[Parts, list[str]]:
    """Return the folder of the split, as a path of at most one part, and the sorted class names."""
    present = [name for name in folders if name in _ALL_SPLITS]
    if not present:
        if split != "train":
            raise UsageError(
                f"{shown(path)} has no splits (folders called {', '.join(sorted(_ALL_SPLITS))}), "
                f"so there is no {split!r}; all its images are 'train'"
            )
        if not folders:
            raise FormatError(
                f"{shown(path)} has no folders with images; "
                "expected CLASS/image.jpg or SPLIT/CLASS/image.jpg"
            )
        return (), folders
    wanted = SPLITS.get(split, (split,))
    name = next((name for name in (split, *wanted) if name in present), None)
    if name is None:
        raise UsageError(f"{shown(path)} has no split {split!r}; it has {', '.join(present)}")
    return (name,), sorted({inner for each in present for inner in inside(each)})


def _subfolders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name)
            )
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise FormatError(f"the folder {shown(folder)} cannot be read: {reason}") from error


def _is_wrapping(folder: Path) -> bool:
    """Return whether a folder holds folders and no images, and so is not a class."""
    return bool(_subfolders(folder)) and not any(map(_is_image, os.listdir(folder)))


def _walk(top: Path) -> Iterator[str]:
    """Yield all images below a folder; links to images are followed, links to folders are not."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # the class occurs in another split only
            raise FormatError(
                f"the folder {shown(error.filename)} cannot be read: {error.strerror}"
            ) from error

    for folder, inner, files in os.walk(top, onerror=refuse):
        inner[:] = [name for name in inner if not _is_hidden(name)]
        yield from (os.path.join(folder, name) for name in files if _is_image(name))


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or is one that macOS adds to archives."""
    return name.startswith((".", "__MACOSX"))


def _is_image(name: str) -> bool:
    """Return whether a file is an image, by its name."""
    return not _is_hidden(name) and name.lower().endswith(SUFFIXES + REFUSED_SUFFIXES)
