"""Pictures in, ranked labels out; a picture that cannot be read costs its own row and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ImageError
from ..images.files import SUFFIXES
from ..images.prepare import prepare
from .model import Model, Prediction


class Row(NamedTuple):
    """What became of one picture: either ``predictions`` or an ``error``."""

    path: str
    predictions: list[Prediction]
    error: str | None


def expand(paths: Iterable[str], names: Iterable[str] = ()) -> list[str]:
    """The pictures that are meant.

    Parameters
    ----------
    paths : iterable of str
        A file stands for itself; a directory for all pictures in it and below, by their suffixes,
        in order of name; ``-`` for what ``names`` says.
    names : iterable of str
        One path a line, as from standard input.
    """
    found: list[str] = []
    for path in paths:
        if path == "-":
            found += expand(
                line for line in (name.rstrip("\r\n") for name in names) if line not in ("", "-")
            )
        elif os.path.isdir(path):
            found += _pictures_in(path)
        else:
            found.append(path)
    return found


def _pictures_in(directory: str) -> list[str]:
    """The pictures in and below a directory; one below that cannot be read stands for itself, and costs a row that says why."""
    closed: list[str] = []
    # Symbolic links to directories are not followed, so a loop of them ends.
    walk = os.walk(directory, onerror=lambda error: closed.append(error.filename))
    inside = (Path(folder) / name for folder, _, files in walk for name in files)
    return sorted([str(file) for file in inside if file.suffix.lower() in SUFFIXES] + closed)


def classify(model: Model, paths: Iterable[str], *, top: int = 5, batch: int = 8) -> Iterator[Row]:
    """Classify pictures as they come, ``batch`` at a time, and give a row for each, in order.

    Parameters
    ----------
    model : Model
    paths : iterable of str
        Files.
    top : int
        How many classes for each picture.
    batch : int
        How many pictures go through the network together.
    """
    model.check_pictures()
    remaining = iter(paths)
    while group := list(islice(remaining, batch)):
        prepared: list[tuple[str, np.ndarray | ImageError]] = []
        for path in group:
            try:
                prepared.append((path, prepare(path, model.preprocess)))
            except ImageError as error:
                prepared.append((path, error))
        good = [x for _, x in prepared if isinstance(x, np.ndarray)]
        ranked = iter(model.rank(model(np.stack(good)), top) if good else [])
        for path, x in prepared:
            yield (
                Row(path, [], str(x))
                if isinstance(x, ImageError)
                else Row(path, next(ranked), None)
            )
