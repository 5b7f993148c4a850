"""Crops, shifts and flips: which part of an image the network sees.

`random_crop` chooses a part of one image before it is resized. The other functions take a
mini-batch of normalised images: `shift_windows` and `shift_mirrored_windows` move the images within
their padding and flip some of them, and `cut_out` erases a square in each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_out", "random_crop", "shift_mirrored_windows", "shift_windows"]

_TRIES = 10  # as in torchvision: how often a crop that does not fit into the image is drawn again


def random_crop(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
    even: bool = False,
) -> tuple[int, int, int, int]:
    """Draw left, top, width and height of a random crop ("RandomResizedCrop").

    The share of the area is uniform in `scale`, and the place is uniform. The logarithm of width /
    height is uniform in `ratio` (torchvision's ``RandomResizedCrop.get_params``). With `even`,
    width / height itself is uniform, and inverted for every second crop on average
    (``RandomSizedCrop`` of the authors' ``transforms.lua``).

    A crop that does not fit is drawn again, up to ten times in all. Then the result is the largest
    crop in the middle whose shape is within `ratio`, or with `even` the largest square.
    """
    low, high = ratio if even else (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_TRIES):
        share, shape, down, across = rng.random(4)
        area = width * height * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = low + (high - low) * shape
        if not even:
            aspect = math.exp(aspect)
        elif rng.random(1)[0] < 0.5:
            aspect = 1 / aspect
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
    w, h = width, height
    least, largest = (1, 1) if even else ratio
    if width / height < least:
        h = round(w / least)
    elif width / height > largest:
        w = round(h * largest)
    w, h = max(w, 1), max(h, 1)
    return (width - w) // 2, (height - h) // 2, w, h


def shift_windows(
    x: NDArray[np.float32],
    shift: NDArray[np.int64],
    mirrored: NDArray[np.bool_],
    padding: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Move the window on each image of a mini-batch, and mirror some of the results.

    Parameters
    ----------
    x
        float32 [n, h, w, c].
    shift
        int64 [n, 2], (down, right), in pixels.
    mirrored
        bool [n]: whether the result is mirrored left to right.
    padding
        float32 [c]: the colour outside the image.

    Returns
    -------
    float32 [n, h, w, c]
        A new array.
    """
    n, height, width, channels = x.shape
    out = np.empty_like(x)
    out.reshape(n * height, width * channels)[:] = np.tile(padding, width)
    for i, ((down, right), mirror) in enumerate(
        zip(shift.tolist(), mirrored.tolist(), strict=True)
    ):
        target = out[i, :, ::-1] if mirror else out[i]
        target[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = x[
            i, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)
        ]
    return out


def shift_mirrored_windows(
    x: NDArray[np.float32], shift: NDArray[np.int64], mirrored: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Do the same as `shift_windows`, with the image reflected at its sides in place of padding."""
    out = np.empty_like(x)
    for i, (places, mirror) in enumerate(zip(shift, mirrored.tolist(), strict=True)):
        rows, columns = (
            _reflected(side, by) for side, by in zip(x.shape[1:3], places, strict=True)
        )
        out[i] = x[i][rows[:, np.newaxis], columns[::-1] if mirror else columns]
    return out


def cut_out(x: NDArray[np.float32], middles: NDArray[np.int64], side: int) -> None:
    """Set a square in each image of float32 [n, h, w, c] to zero, in place.

    `middles` is int64 [n, 2], (down, right). What lies outside the image is ignored.
    """
    for image, (down, right) in zip(x, (middles - side // 2).tolist(), strict=True):
        image[max(0, down) : down + side, max(0, right) : right + side] = 0


def _reflected(side: int, by: int) -> NDArray[np.int64]:
    """Return which of `side` pixels lie behind a window moved `by` over the reflected image."""
    period = max(1, 2 * side - 2)  # to the last pixel and back again
    return (side - 1) - abs((side - 1) - (np.arange(side) + by) % period)
