"""The paths of images in a table: they begin in its folder, and lead nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import ImageError, UnsafeError
from ..rules import image_kind, is_left_out

__all__ = ["image_path", "is_missing", "missing"]

_DRIVE = re.compile(r"[A-Za-z]:")


def image_path(value: str, where: str) -> str:
    """Return the path of an image, if it leads to no place outside the folder of the table.

    A path has one form, so that no image is in the table twice.
    """
    path = value.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or _DRIVE.match(path) or ".." in parts:
        raise UnsafeError(
            f"{where} names the image {value!r:.200}; expected a path from the folder of the "
            "table, and nothing outside it: move the table to the folder that has all images, or "
            "link that folder into the folder of the table (ln -s FOLDER images) and write paths "
            f"such as {'/'.join(['images', *parts[-1:]])!r:.200}"
        )
    return "/".join(parts)


def is_missing(path: str) -> bool:
    """Return whether there is no file at a path; what cannot be asked for is not missing."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # it may not be asked for, or has a NUL in its name
        return False
    return False


def missing(image: str, where: str, folder: Path) -> ImageError:
    """Return the error of an image that does not exist in the folder of a table.

    A file that has its name in that folder or in one inside it, perhaps with an ending, is named.
    """
    meant = next(_called(os.path.basename(image), folder), None)
    advice = (
        f"such as {meant!r:.200} for this one"
        if meant
        else "and the file must lie there under this name"
    )
    return ImageError(
        f"{where} names the image {image!r:.200}, which does not exist; a path begins in the "
        f"folder of the table and has the ending of the file, {advice}"
    )


def _called(name: str, folder: Path) -> Iterator[str]:
    """Yield the images of this name, without their endings, in a folder and in those inside it."""
    inside = []
    for entry in _entries(folder):
        if entry.is_dir():
            inside.append(entry.name)
        elif _is_called(entry.name, name):
            yield entry.name
    for below in sorted(inside):
        if not is_left_out(below, True):
            for entry in _entries(folder / below):
                if _is_called(entry.name, name):
                    yield f"{below}/{entry.name}"


def _is_called(file: str, name: str) -> bool:
    """Return whether a file is an image with this name, with its ending or without."""
    return image_kind(file) is not None and name in (file, os.path.splitext(file)[0])


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder, or nothing of one that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return
