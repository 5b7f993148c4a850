"""What is refused of the data sets and the recipe that a run is given, whatever its network is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized

import numpy as np

from ...data.dataset import Dataset
from ...errors import UsageError
from ..recipes import Recipe

__all__ = ["check_kinds", "check_labels"]


def check_kinds(dataset: Dataset, recipe: Recipe, validation: Dataset | None) -> None:
    """Refuse names in place of data sets and recipes, and arrays of other types.

    Raises
    ------
    UsageError
    """
    if not isinstance(recipe, Recipe):
        raise UsageError(
            f"a Recipe was expected, found {type(recipe).__name__}; tinyresnext.recipe returns one "
            "for a name"
        )
    for what, images in (("data set", dataset), ("validation set", validation)):
        if isinstance(images, str | os.PathLike):
            raise UsageError(
                f"{os.fspath(images)!r} is the name of a data set; open it with "
                "tinyresnext.data.open_dataset"
            )
        if isinstance(images, Dataset):
            _check_arrays(what, images)
        elif images is not None or what == "data set":
            raise UsageError(
                f"the {what} is of type {type(images).__name__}, expected a Dataset; "
                "tinyresnext.data.open_dataset returns one"
            )


def check_labels(what: str, images: Dataset) -> None:
    """Refuse labels that name no class, or are neither there nor not there: -1 is the last one."""
    labels, most = images.labels, len(images.classes) - 1 if images.labels.ndim == 1 else 1
    if len(labels) and not (labels.min() >= 0 and labels.max() <= most):
        raise UsageError(
            f"labels of the {what} reach from {labels.min()} to {labels.max()}, expected 0 to "
            f"{most}; leave out images without a label"
        )


def _check_arrays(what: str, images: Dataset) -> None:
    """Refuse labels that are no integers, pixels that are no bytes, and other numbers of them."""
    labels, pixels, classes = images.labels, images.pixels, images.classes
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise UsageError(
            f"the classes of the {what} are {classes!r:.80}, expected the names of all classes, "
            "such as ('cat', 'dog')"
        )
    if odd := [name for name in classes if not isinstance(name, str)]:
        raise UsageError(
            f"a class of the {what} has the name {odd[0]!r:.80}, expected texts: str() makes one, "
            "as in tuple(map(str, classes))"
        )
    if isinstance(images.names, str) or not isinstance(images.names, Sized):
        raise UsageError(
            f"the names of the {what} are {images.names!r:.80}, expected a text for each image, "
            "such as its path"
        )
    kinds = "iu" if getattr(labels, "ndim", 0) == 1 else "biuf"
    if not (
        isinstance(labels, np.ndarray) and labels.dtype.kind in kinds and labels.ndim in (1, 2)
    ):
        raise UsageError(
            f"the labels of the {what} are {_kind(labels)}, expected a NumPy array: integers [n], "
            "or 0 and 1 [n, classes]"
        )
    if labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all():
        raise UsageError(f"the labels of the {what} are {_kind(labels)}, expected 0 and 1 only")
    if labels.ndim == 2 and labels.shape[1] != len(images.classes):
        raise UsageError(
            f"the labels of the {what} are {_kind(labels)}, expected a column for each of the "
            f"{len(images.classes)} classes"
            + ("; y.ravel() makes them one number for each image" * (labels.shape[1] == 1))
        )
    if len(images.names) != len(labels):
        raise UsageError(
            f"the {what} has {len(images.names)} names and {len(labels)} labels, expected one of "
            "each for every image"
        )
    right = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 4
    if pixels is not None and not (right and len(pixels) == len(labels)):
        raise UsageError(
            f"the pixels of the {what} are {_kind(pixels)}, expected a uint8 array "
            f"[{len(labels)}, h, w, c]: one image for each label"
        )


def _kind(value: object) -> str:
    """Say what a value is: of an array, the type and the shape."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"of type {type(value).__name__}"
