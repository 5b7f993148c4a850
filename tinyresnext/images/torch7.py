"""Resize and crop as the authors' Torch7 code does it, in floating point.

facebookresearch/ResNeXt measures its networks with ``image.scale`` in mode 'bicubic' and then
``CenterCrop`` (``datasets/imagenet.lua`` and ``transforms.lua``, with ``init.lua`` and
``generic/image.c`` of torch/image). This differs from Pillow in all of the following:

* Values are ``level * (1 / 255)`` in float32 from the start. Nothing rounds them to 8 bits, or
  clips them to 0 and 1, before the network sees them.
* A row of n pixels becomes one of m by a curve through its pixels (Catmull and Rom 1974), evaluated
  at ``i * (n - 1) / (m - 1)``: the corners stay where they are. The curve never widens, so that
  some pixels are ignored when an image shrinks: there is no antialiasing.
* Before the first and behind the last pixel, the row continues in a straight line.
* Rows are resized first, then columns, and each value is rounded to float32 in between.
* A corner of the crop that falls between two pixels is rounded up.

The operations stand in the order of the C code, and results are rounded to float32 in the same
places: only the last product and sum are in double precision, because of a literal 0.5. (Older
versions of torch/image compute everything in float32, and may differ in the last bit.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["scale_and_crop", "scaled_size"]


def scaled_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height of an image when its shorter side is resized to `side`.

    The longer side is rounded down.
    """
    if min(width, height) == side:
        return width, height
    if width < height:
        return side, int(height / width * side)
    return int(width / height * side), side


def scale_and_crop(
    pixels: NDArray[np.uint8],
    size: tuple[int, int],
    crop: int,
    place: tuple[int, int] = (0, 0),
    mirrored: bool = False,
) -> NDArray[np.float32]:
    """Resize an image to `size` and cut a square out; only pixels within it are computed.

    Parameters
    ----------
    pixels
        uint8 [h, w, c].
    size
        Width and height, as `scaled_size` returns them.
    crop
        Side of the square, in pixels. Where it is larger than the image, which Torch7 refuses, the
        padding is 0.
    place
        Where the square lies, as in `tinyresnext.images.resize.resize_and_crop`.
    mirrored
        Mirror the resized image before the square is cut out.

    Returns
    -------
    float32 [crop, crop, c]
        Mostly in [0, 1]: the curve overshoots a little at edges.
    """
    down, across = place
    left, columns = _part(size[0], crop, across)
    top, rows = _part(size[1], crop, down)
    columns = size[0] - 1 - columns if mirrored else columns
    x = _along(pixels, 1, size[0], columns)
    x = _along(x, 0, size[1], rows)
    out = np.zeros((crop, crop, pixels.shape[2]), np.float32)
    out[top : top + len(rows), left : left + len(columns)] = x
    return out


def _part(length: int, crop: int, place: int) -> tuple[int, NDArray[np.int64]]:
    """Return where the image begins within the crop, and which of its pixels the crop shows."""
    corner = -((crop - length) // 2)  # half the difference, rounded up
    if place and crop < length:
        corner = 0 if place < 0 else length - crop
    first, last = max(corner, 0), min(corner + crop, length)
    return first - corner, np.arange(first, last)


def _along(
    x: NDArray[np.uint8] | NDArray[np.float32], axis: int, length: int, wanted: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Resize one axis of ``x`` to ``length`` pixels, and compute those that are wanted."""
    n = x.shape[axis]
    if length == n:
        return _values(x, wanted, axis)
    if n == 1:  # Torch7 does not initialise the last of these pixels
        return _values(x, np.zeros_like(wanted), axis)
    place = wanted.astype(np.float32) * (np.float32(n - 1) / np.float32(max(length - 1, 1)))
    # Rounding may move a place in a very long row beyond its end.
    before = np.minimum(place.astype(np.int64), n - 2)
    shape = (-1, 1) if axis == 1 else (-1, 1, 1)  # of a vector along this axis of [h, w, c]
    t = (place - before.astype(np.float32)).reshape(shape)
    p1, p2 = _values(x, before, axis), _values(x, before + 1, axis)
    p0 = np.where(
        before.reshape(shape) > 0, _values(x, np.maximum(before - 1, 0), axis), 2 * p1 - p2
    )
    p3 = np.where(
        before.reshape(shape) < n - 2, _values(x, np.minimum(before + 2, n - 1), axis), 2 * p2 - p1
    )
    last = _values(x, np.array([n - 1]), axis)
    return np.where(wanted.reshape(shape) == length - 1, last, _curve(p0, p1, p2, p3, t))


def _curve(
    p0: NDArray[np.float32],
    p1: NDArray[np.float32],
    p2: NDArray[np.float32],
    p3: NDArray[np.float32],
    t: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Evaluate the cubic from p1 (t = 0) to p2 (t = 1) between the neighbours p0 and p3.

    Its slopes at the ends are half of p2 - p0 and half of p3 - p1.
    """
    slope = p2 - p0
    square = 2 * p0 - 5 * p1 + 4 * p2 - p3
    cube = 3 * (p1 - p2) + p3 - p0
    inner = slope + t * (square + t * cube)
    return (p1 + 0.5 * t.astype(np.float64) * inner).astype(np.float32)


def _values(
    x: NDArray[np.uint8] | NDArray[np.float32], at: NDArray[np.int64], axis: int
) -> NDArray[np.float32]:
    """Return some rows or columns as values in [0, 1].

    Levels become values here, so that a large image is never float32 as a whole.
    """
    taken = x.take(at, axis)
    if taken.dtype == np.float32:
        return taken.astype(np.float32, copy=False)
    return taken.astype(np.float32) * np.float32(1 / 255)
