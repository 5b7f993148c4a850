"""Pictures as the authors' Torch7 code cuts them: ``image.scale`` with 'bicubic', then ``CenterCrop``, both in floating point.

What facebookresearch/ResNeXt does before it measures its networks (``datasets/imagenet.lua`` and
``transforms.lua``, with ``init.lua`` and ``generic/image.c`` of torch/image) differs from what
Pillow does in all of this:

* Values are ``level * (1 / 255)`` in float32 from the start, and nothing rounds them to 8 bits, or
  cuts them off at 0 and 1,
  before the network sees them.
* A row of n pixels becomes one of m by a curve through its pixels (Catmull and Rom 1974), read at
  ``i * (n - 1) / (m - 1)``:
  the corners stay where they are. It never widens, so that some pixels of a picture that shrinks
  are not looked at: there is no antialiasing.
* Before the first and behind the last pixel the row goes on in a straight line.
* Rows are resized first, then columns, each value rounded to float32 in between.
* A corner of the crop that falls between two pixels is rounded up.

The order of the operations is that of the C code, and so are the places where it rounds to float32:
only its last product and sum are in double precision, because a 0.5 is. (Its older versions compute
all in float32, and may differ in the last bit.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["scale_and_crop", "scaled_size"]


def scaled_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of a picture whose shorter side has become `side`; the longer one is cut off to a whole number."""
    if min(width, height) == side:
        return width, height
    if width < height:
        return side, int(height / width * side)
    return int(width / height * side), side


def scale_and_crop(
    pixels: NDArray[np.uint8], size: tuple[int, int], crop: int
) -> NDArray[np.float32]:
    """Resize a picture to `size` and cut the middle out; only the pixels within are computed.

    Parameters
    ----------
    pixels
        uint8 [h, w, c].
    size
        Width and height, as `scaled_size` gives them.
    crop
        Side of the square, in pixels. Where it is larger than the picture, which Torch7 refuses,
        the rim is 0.

    Returns
    -------
    float32 [crop, crop, c]
        Mostly in [0, 1]: the curve swings a little beyond at edges.
    """
    (left, columns), (top, rows) = (_middle(length, crop) for length in size)
    x = _along(pixels, 1, size[0], columns)
    x = _along(x, 0, size[1], rows)
    out = np.zeros((crop, crop, pixels.shape[2]), np.float32)
    out[top : top + len(rows), left : left + len(columns)] = x
    return out


def _middle(length: int, crop: int) -> tuple[int, NDArray[np.int64]]:
    """Where the picture begins within the crop, and which of its pixels the crop shows."""
    corner = -((crop - length) // 2)  # half the difference, rounded up
    first, last = max(corner, 0), min(corner + crop, length)
    return first - corner, np.arange(first, last)


def _along(
    x: NDArray[np.uint8 | np.float32], axis: int, length: int, wanted: NDArray[np.int64]
) -> NDArray[np.float32]:
    """One axis of ``x`` resized to ``length`` pixels, of which those that are wanted."""
    n = x.shape[axis]
    if length == n:
        return _values(x, wanted, axis)
    if n == 1:  # Torch7 leaves the last of these pixels as it finds its memory
        return _values(x, np.zeros_like(wanted), axis)
    place = wanted.astype(np.float32) * (np.float32(n - 1) / np.float32(max(length - 1, 1)))
    before = np.minimum(
        place.astype(np.int64), n - 2
    )  # rounding may carry a place of a very long row beyond its end
    t = _spread(place - before.astype(np.float32), axis)
    p1, p2 = _values(x, before, axis), _values(x, before + 1, axis)
    p0 = np.where(
        _spread(before, axis) > 0, _values(x, np.maximum(before - 1, 0), axis), 2 * p1 - p2
    )
    p3 = np.where(
        _spread(before, axis) < n - 2, _values(x, np.minimum(before + 2, n - 1), axis), 2 * p2 - p1
    )
    last = _values(x, np.array([n - 1]), axis)
    return np.where(_spread(wanted, axis) == length - 1, last, _curve(p0, p1, p2, p3, t))


def _curve(
    p0: NDArray[np.float32],
    p1: NDArray[np.float32],
    p2: NDArray[np.float32],
    p3: NDArray[np.float32],
    t: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The cubic from p1 (t = 0) to p2 (t = 1) whose slopes there are half of p2 - p0 and half of p3 - p1."""
    slope = p2 - p0
    square = 2 * p0 - 5 * p1 + 4 * p2 - p3
    cube = 3 * (p1 - p2) + p3 - p0
    inner = slope + t * (square + t * cube)
    return (p1 + 0.5 * t.astype(np.float64) * inner).astype(np.float32)


def _values(
    x: NDArray[np.uint8 | np.float32], at: NDArray[np.int64], axis: int
) -> NDArray[np.float32]:
    """Some rows or columns; levels become values, so that a large picture need not be float32 as a whole."""
    taken = x.take(at, axis)
    return taken if taken.dtype == np.float32 else taken.astype(np.float32) * np.float32(1 / 255)


def _spread(along: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    """A vector along one axis of [h, w, c]."""
    return along.reshape(-1, 1) if axis == 1 else along.reshape(-1, 1, 1)
