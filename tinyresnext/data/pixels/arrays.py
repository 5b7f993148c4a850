"""`from_arrays`: a data set of arrays that the caller has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...images.decode import describe
from ..dataset import ALL, Dataset

__all__ = ["from_arrays"]

_LABELS = "integers from 0, texts or booleans [n], or 0 and 1 [n, classes]"


def from_arrays(x: Any, y: Any, classes: Sequence[str] | None = None) -> Dataset:
    """Make a data set of images and labels that are in memory.

    Parameters
    ----------
    x : array
        uint8 from 0 to 255: colour images [n, h, w, 3], or grey ones [n, h, w] or [n, h, w, 1], of
        which a network with three channels sees three equal ones. It is not copied.
    y : array
        The class of each image: integers from 0, texts or booleans, [n] or [n, 1]. Or a column of 0
        and 1 for each class, [n, classes], where an image has any number of labels; of columns with
        a single 1 in each row, ``y.argmax(1)`` makes integers.
    classes : sequence of str, optional
        The names of the classes. By default they are the texts, in alphabetical order; ``False``
        and ``True``; or the numbers, of which then none may be missing. Give those of the training
        images, ``images.classes``, for validation images, and ``model.labels`` to evaluate a model.

    Returns
    -------
    Dataset

    Raises
    ------
    UsageError
        An array has another type or shape, the two have different lengths, or a label has no class.
    """
    pixels = _pixels(_array("x", x))
    labels, names = _labels(_array("y", y), _given(classes))
    if len(pixels) != len(labels):
        raise UsageError(
            f"x has {len(pixels)} images and y {len(labels)} labels; give one label for each image"
        )
    called = [f"image {i}" for i in range(len(pixels))]
    return Dataset(names, labels, called, pixels.__getitem__, pixels, part=ALL)


def _array(what: str, value: Any) -> NDArray[Any]:
    """Return an array; raise `UsageError` for what is none, such as images of several sizes."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{what} is {describe(value)}, of which NumPy makes no array ({error!s:.200}); give "
            "one array, in which all images have the same size"
        ) from error


def _given(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of classes; raise `UsageError` for something else."""
    if classes is None:
        return None
    if isinstance(classes, Sequence | np.ndarray) and np.ndim(classes) == 1:
        names = tuple(classes)
        if names and all(isinstance(name, str) for name in names):
            return tuple(map(str, names))
    raise UsageError(f"classes is {classes!r:.80}; give a list with the name of each class")


def _pixels(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Return images as uint8 [n, h, w, 1 or 3]."""
    if x.dtype != np.uint8:
        raise UsageError(f"x is {describe(x)}; expected uint8, from 0 to 255{_to_bytes(x)}")
    if not x.size:
        raise UsageError(f"x is {describe(x)}, which has no pixels; give one image or more")
    if x.ndim == 3:
        return x[..., np.newaxis]
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x
    remedy = ""
    if x.ndim == 4 and x.shape[1] in (1, 3):
        remedy = ": channels come last, give x.transpose(0, 2, 3, 1)"
    elif x.ndim == 4 and x.shape[3] == 4:
        remedy = ": for colours without transparency, give x[..., :3]"
    raise UsageError(
        f"x is {describe(x)}; expected [n, h, w, 3] for colour images, or [n, h, w] or "
        f"[n, h, w, 1] for grey ones{remedy}"
    )


def _to_bytes(x: NDArray[Any]) -> str:
    """Return what makes bytes of the values of an array; nothing if that is not known."""
    if not x.size or x.dtype.kind not in "biuf":
        return ""
    least, most = x.min(), x.max()
    if not np.isfinite(least) or not np.isfinite(most):
        return ": it has NaN or infinity"
    if least < 0 or most > 255:
        return (
            f": its values reach from {least:g} to {most:g}; if they are normalised, give the "
            "pixels as they were before, since the network's own preprocessing normalises them"
        )
    if x.dtype.kind in "bf" and most <= 1:
        return ": for values from 0 to 1, give (x * 255).round().astype(np.uint8)"
    return ": give x.round().astype(np.uint8)"


def _labels(
    y: NDArray[Any], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels as `Dataset` has them, and the names of the classes."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise UsageError(f"y is {describe(y)} and has NaN; leave out images without a label")
    if y.ndim == 2:
        return _columns(y, classes)
    if y.ndim == 1 and y.dtype.kind in "OUT" and all(isinstance(one, str) for one in y.tolist()):
        return _of_texts(y.tolist(), classes)
    if y.ndim == 1 and y.dtype.kind == "b":
        return _of_numbers(y.astype(np.int64), classes or ("False", "True"))
    if y.ndim == 1 and y.dtype.kind in "iu":
        return _of_numbers(y, classes)
    whole = y.ndim == 1 and y.dtype.kind == "f" and (y == np.trunc(y)).all()
    remedy = ": give y.astype(int)" if whole else ""
    raise UsageError(f"y is {describe(y)}; expected {_LABELS}{remedy}")


def _columns(
    y: NDArray[Any], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels of images of which each has any number of them."""
    if y.dtype.kind not in "biuf" or not np.isin(y, (0, 1)).all():
        raise UsageError(f"y is {describe(y)} with other values than 0 and 1; expected {_LABELS}")
    names = tuple(map(str, range(y.shape[1]))) if classes is None else classes
    if len(names) != y.shape[1]:
        raise UsageError(
            f"y has {y.shape[1]} columns and there are {len(names)} classes; give a column for "
            "each class"
        )
    return y.astype(np.int64), names


def _of_texts(
    y: list[str], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels of images whose classes are called by their names."""
    names = tuple(sorted(set(y))) if classes is None else classes
    number = {name: i for i, name in enumerate(names)}
    if len(number) < len(names):
        raise UsageError(
            "two classes have the same name, so the texts of y do not say which one they mean; "
            "give numbers"
        )
    if unknown := sorted(set(y) - number.keys()):
        raise UsageError(
            f"y has {unknown[0]!r:.80}, which is none of the {len(names)} classes; give classes "
            "that have it, or leave out these images"
        )
    return np.array([number[one] for one in y], np.int64), names


def _of_numbers(
    y: NDArray[Any], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels of images whose classes are called by their numbers."""
    found = np.unique(y).tolist()
    least, most = (found[0], found[-1]) if found else (0, 0)
    if least < 0 or (classes is not None and most >= len(classes)):
        last = "up" if classes is None else f"to {len(classes) - 1}, one for each class"
        raise UsageError(
            f"the labels in y reach from {least} to {most}; expected numbers from 0 {last}: leave "
            "out images without a label"
        )
    if classes is None and len(found) != most + 1:
        missing = next(i for i, one in enumerate([*found, -1]) if i != one)
        raise UsageError(
            f"the labels in y reach up to {most}, and none of them is {missing}; give the names of "
            "all classes (classes=), or numbers without a gap"
        )
    return y.astype(np.int64), tuple(map(str, range(most + 1))) if classes is None else classes
