"""What is refused in place of a data set, and of the arrays that one is made of."""

from __future__ import annotations

import os
from collections.abc import Sized
from typing import Any

import numpy as np

from ...errors import UsageError
from ...images.decode import describe

__all__ = ["check_arrays", "no_dataset"]


def no_dataset(what: str, found: object) -> UsageError:
    """Return the error for something that was given in place of a data set.

    Parameters
    ----------
    what : str
        Which one, such as "validation set".
    found : object
        What was given: the name of a data set, arrays, or anything else.
    """
    if isinstance(found, str | os.PathLike):
        return UsageError(
            f"{os.fspath(found)!r} is the name of a data set; open it with "
            "tinyresnext.data.open_dataset"
        )
    return UsageError(
        f"the {what} is {describe(found)}, expected a Dataset: tinyresnext.data.open_dataset opens "
        "one, and tinyresnext.data.from_arrays(x, y) makes one of arrays"
    )


def check_arrays(classes: Any, labels: Any, names: Any, pixels: Any) -> None:
    """Refuse what no `Dataset` can be made of: values of other types, other numbers of them.

    Parameters
    ----------
    classes, labels, names, pixels
        As for `Dataset`.

    Raises
    ------
    UsageError
    """
    if not isinstance(classes, tuple | list):
        raise UsageError(
            f"the classes of the data set are {classes!r:.80}, expected the names of all classes, "
            "such as ('cat', 'dog')"
        )
    if odd := [name for name in classes if not isinstance(name, str)]:
        raise UsageError(
            f"a class of the data set has the name {odd[0]!r:.80}, expected texts: str() makes "
            "one, as in tuple(map(str, classes))"
        )
    if isinstance(names, str) or not isinstance(names, Sized):
        raise UsageError(
            f"the names of the data set are {names!r:.80}, expected a text for each image, such as "
            "its path"
        )
    _check_labels(labels, len(classes))
    if len(names) != len(labels):
        raise UsageError(
            f"the data set has {len(names)} names and {len(labels)} labels, expected one of each "
            "for every image"
        )
    right = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 4
    if pixels is not None and not (right and len(pixels) == len(labels)):
        raise UsageError(
            f"the pixels of the data set are {describe(pixels)}, expected a uint8 array "
            f"[{len(labels)}, h, w, c]: one image for each label"
        )


def _check_labels(labels: Any, classes: int) -> None:
    """Refuse labels that are neither integers [n] nor 0 and 1 [n, classes]."""
    found = f"the labels of the data set are {describe(labels)}"
    kinds = "iu" if getattr(labels, "ndim", 0) == 1 else "biuf"
    if not (
        isinstance(labels, np.ndarray) and labels.dtype.kind in kinds and labels.ndim in (1, 2)
    ):
        raise UsageError(
            f"{found}, expected a NumPy array: integers [n], or 0 and 1 [n, classes]; "
            "tinyresnext.data.from_arrays takes texts and booleans too"
        )
    if labels.ndim == 1 and (labels > np.iinfo(np.int64).max).any():
        raise UsageError(f"{found} and reach {labels.max()}, expected indices of classes")
    if labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all():
        raise UsageError(f"{found}, expected 0 and 1 only")
    if labels.ndim == 2 and labels.shape[1] != classes:
        one = "; y.ravel() makes them one number for each image" * (labels.shape[1] == 1)
        raise UsageError(f"{found}, expected a column for each of the {classes} classes{one}")
