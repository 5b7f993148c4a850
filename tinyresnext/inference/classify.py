"""Classify many image files. A file that cannot be read has an error in its row; the rest go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..data.rules import image_kind, is_left_out
from ..errors import ImageError, UsageError
from ..formats.stored_zip.archive import MOST_LEVELS
from ..system.files import shown
from .ensemble import Ensemble
from .heads import check_head, check_threshold
from .model import Model, Prediction

Made = TypeVar("Made")


class Row(NamedTuple):
    """The result for one image: either ``predictions`` or an ``error``."""

    path: str
    predictions: list[Prediction]
    error: str | None


def expand(paths: Iterable[str], names: Iterable[str] = ()) -> list[str]:
    """Return the image files that some paths stand for.

    Parameters
    ----------
    paths : iterable of str
        A directory stands for all images in it and below (by the rules of data sets, sorted by
        path), ``-`` for ``names``, and any other path for itself.
    names : iterable of str
        Lines with one path each, as from standard input. An empty line, or ``-``, is ignored.

    Raises
    ------
    UsageError
        A directory has directories in more than 32 levels.
    """
    found: list[str] = []
    for path in paths:
        if path == "-":
            found += expand(
                line for line in (name.rstrip("\r\n") for name in names) if line not in ("", "-")
            )
        elif os.path.isdir(path):
            found += _images_in(path)
        else:
            found.append(path)
    return found


def _images_in(directory: str) -> list[str]:
    """Return the images in and below a directory, by the rules of data sets.

    A directory that cannot be read is in the list itself, so that its row has the error.
    """
    found: list[str] = []
    closed: list[str] = []
    # Symbolic links to directories are not followed, so a loop of them ends.
    for folder, inner, files in os.walk(
        directory, onerror=lambda error: closed.append(error.filename)
    ):
        inner[:] = [name for name in inner if not is_left_out(name, True)]
        # Python's own walk ends in an error where folders are deeper than its stack.
        if folder.count(os.sep) - directory.count(os.sep) >= MOST_LEVELS and inner:
            raise UsageError(
                f"{shown(directory)} has folders in more than {MOST_LEVELS} levels; name the one "
                "that has the images"
            )
        names = (name for name in files if image_kind(name) and not is_left_out(name, False))
        found += [str(Path(folder) / name) for name in names]
    return sorted(found + closed)


def classify(
    model: Model | Ensemble | Iterable[Model],
    paths: Iterable[str],
    *,
    top: int = 5,
    batch: int = 8,
    threshold: float | None = None,
    crops: int = 1,
    mirror: bool = False,
) -> Iterator[Row]:
    """Classify image files in mini-batches, and return one row for each, in order.

    Parameters
    ----------
    model : Model, or iterable of Model
        Several predict together: the mean of their probabilities counts.
    paths : iterable of str
        Image files; each mini-batch is taken from it when its turn comes.
    top : int
        The number of classes to return for each image, the most probable first.
    batch : int
        The number of images in a mini-batch.
    threshold : float, optional
        As for `Model.predict`.
    crops, mirror
        The views of each image, as for `Ensemble`.

    Returns
    -------
    iterator of Row

    Raises
    ------
    UsageError
        At once: the preprocessing does not fit the network, it has a single class, or several
        models do not have the same labels.
    """
    together = Ensemble.of(model, crops, mirror)
    check_head(together.spec)
    check_threshold(together.spec, threshold)
    together.check_pictures()
    return _rows(together, paths, top, batch, threshold)


def _rows(
    model: Ensemble, paths: Iterable[str], top: int, batch: int, threshold: float | None
) -> Iterator[Row]:
    """Yield a row for each image."""
    for group in prepared(paths, model.prepare, batch):
        good = [x for _, x in group if not isinstance(x, str)]
        ranked = iter(model.rank(model(good), top, threshold) if good else [])
        for path, x in group:
            if isinstance(x, str):
                yield Row(path, [], x)
            else:
                yield Row(path, next(ranked), None)


def prepared(
    paths: Iterable[str], make: Callable[[str], Made], batch: int
) -> Iterator[list[tuple[str, Made | str]]]:
    """Yield some image files at a time: the path of each, and what is made of it, or the error."""
    remaining = iter(paths)
    while group := list(islice(remaining, batch)):
        found: list[tuple[str, Made | str]] = []
        for path in group:
            try:
                found.append((path, make(path)))
            except ImageError as error:
                # Not the error: its traceback would keep the whole file in memory.
                found.append((path, str(error)))
        yield found
