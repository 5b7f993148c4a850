"""What is refused in place of a data set, and of the arrays that one is made of."""

from __future__ import annotations

import os
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
    if not isinstance(classes, tuple | list) or not all(isinstance(one, str) for one in classes):
        raise UsageError(
            f"the classes of a data set are {classes!r:.80}, expected a tuple with the name of each"
        )
    _check_labels(labels, len(classes))
    if len(names) != len(labels):
        raise UsageError(
            f"a data set has {len(names)} names and {len(labels)} labels, expected one of each for "
            "every image"
        )
    right = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 4
    if pixels is not None and not (right and len(pixels) == len(labels)):
        raise UsageError(
            f"the pixels of a data set are {describe(pixels)}, expected a uint8 array "
            f"[{len(labels)}, h, w, c]: one image for each label"
        )


def _check_labels(labels: Any, classes: int) -> None:
    """Refuse labels that are neither integers [n] nor 0 and 1 [n, classes]."""
    found = f"the labels of a data set are {describe(labels)}"
    kinds = "iu" if getattr(labels, "ndim", 0) == 1 else "biuf"
    if not (
        isinstance(labels, np.ndarray) and labels.dtype.kind in kinds and labels.ndim in (1, 2)
    ):
        raise UsageError(
            f"{found}, expected a NumPy array: integers [n], or 0 and 1 [n, classes]; "
            "tinyresnext.data.from_arrays takes texts and booleans too"
        )
    if labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all():
        raise UsageError(f"{found}, expected 0 and 1 only")
    if labels.ndim == 2 and labels.shape[1] != classes:
        raise UsageError(f"{found}, expected a column for each of the {classes} classes")
