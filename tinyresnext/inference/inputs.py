"""What a caller passes: an image, or an iterable of them, taken one by one; and its shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import UsageError
from ..images.decode import Picture, is_picture

__all__ = ["each_image", "shapes_that_fit"]


def each_image(images: Any) -> Iterator[Picture]:
    """Yield an image, or every image of an iterable.

    Raises
    ------
    UsageError
        It is something else, or an iterable of something else.
    """
    kind = type(images).__name__
    expected = (
        "give a path, the bytes of an image file, a file open in binary mode, a Pillow image or a "
        "uint8 array, or an iterable of these, such as a list"
    )
    if is_picture(images):
        yield images
        return
    try:
        if isinstance(images, Mapping):  # its keys may be file names, or names of its images
            raise TypeError
        names = isinstance(images, np.ndarray) and images.dtype.kind in "OSU"
        found = iter(images.flat if names else images)
    except TypeError:
        raise UsageError(
            f"an object of type {kind} is no image and no iterable; {expected}"
        ) from None
    for number, image in enumerate(found):
        if not (is_picture(image) or isinstance(image, np.ndarray)):
            raise UsageError(
                f"item {number} of the {kind} is of type {type(image).__name__}; {expected}"
            )
        yield image


@contextmanager
def shapes_that_fit() -> Iterator[None]:
    """Raise `UsageError` if an op in the ``with`` block refuses a shape: the caller chose it."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"the network cannot take an input of this shape: {error}") from error
