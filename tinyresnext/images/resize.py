"""Resize an image and cut the middle out, as torchvision, Torch7 or Keras do it.

With Pillow's filters the pixels are those of torchvision's ``Resize`` and ``CenterCrop`` on Pillow
images; timm and mmpretrain (with its Pillow backend) cut the same pixels, with other numbers in
`Preprocess`. The arithmetic is that of the installed Pillow, as it is for them: since version 13,
Pillow shrinks images that are more than twice as tall as wide in another order, and some of their
pixels differ by one level from those of older versions.

Two systems compute something else, and `Preprocess.interpolation` names them: the authors' Torch7
code (see `torch7`) and Keras.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from .decode import check_pixels, pixels_of
from .files import check_size
from .preprocess import FILTERS, Preprocess
from .torch7 import scale_and_crop, scaled_size

__all__ = ["crop_image", "resize_and_crop", "resize_image", "resize_with_pillow", "resized_size"]


def resize_and_crop(
    pixels: NDArray[np.uint8], preprocess: Preprocess, place: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """Resize the shorter side to `preprocess.resize` and cut a square out, usually of the middle.

    The square has `preprocess.crop` pixels a side. The rounding is torchvision's: the longer side
    is rounded down, and the corner of the crop is rounded half to even. A crop that is larger than
    the image is padded with zeros; where the padding is odd, the right and the bottom get one more.
    With "torch7" the rounding is Torch7's, and the result, which `prepare` does not round, is
    rounded to the nearest level. With "keras", both sides become `preprocess.crop`.

    Parameters
    ----------
    pixels
        uint8 [h, w, c], c = 1 or 3.
    place
        Where the square lies, down and across: -1 at the beginning, 0 in the middle, 1 at the end.

    Returns
    -------
    uint8 [crop, crop, c]

    Raises
    ------
    ImageError
        `pixels` is something else, or so long and narrow that resizing would give more than
        `MAX_PIXELS`.
    """
    check_pixels(pixels)
    if preprocess.interpolation != "torch7":
        return crop_image(resize_image(_as_image(pixels), preprocess), preprocess.crop, place)
    size = resized_size(pixels.shape[1], pixels.shape[0], preprocess)
    x = scale_and_crop(pixels, size, preprocess.crop, place)
    levels: NDArray[np.float32] = np.rint(np.clip(x, 0, 1) * np.float32(255))
    return levels.astype(np.uint8)


def resize_image(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Resize an RGB or grey Pillow image as `resize_and_crop` does, except with "torch7"."""
    size = resized_size(image.width, image.height, preprocess)
    return image.resize(size, FILTERS[preprocess.interpolation])


def crop_image(image: Image.Image, crop: int, place: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut a square out of a resized image as `resize_and_crop` does."""
    top, left = _corner(image.height, crop, place[0]), _corner(image.width, crop, place[1])
    box = (left, top, left + crop, top + crop)  # Pillow's crop is zero outside the image
    return pixels_of(image.crop(box))


def resized_size(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """Return width and height of an image after resizing.

    Raises
    ------
    ImageError
        It is too narrow to be resized within `MAX_PIXELS`.
    """
    if preprocess.interpolation == "keras":
        return preprocess.resize, preprocess.resize
    if preprocess.interpolation == "torch7":
        size = scaled_size(width, height, preprocess.resize)
    else:
        short, long = min(height, width), max(height, width)
        side = int(preprocess.resize * long / short)
        size = (preprocess.resize, side) if width <= height else (side, preprocess.resize)
    try:
        check_size(*size)
    except ImageError as error:
        raise ImageError(
            f"an image of {width} x {height} pixels is too narrow: "
            f"with its shorter side resized, {error}"
        ) from error
    return size


def resize_with_pillow(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """Resize uint8 [h, w, 1 or 3] to `size` = (width, height) by Pillow."""
    return pixels_of(_as_image(pixels).resize(size, FILTERS[interpolation]))


def _as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return uint8 [h, w, 1 or 3] as a Pillow image."""
    return Image.fromarray(
        np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    )


def _corner(side: int, crop: int, place: int) -> int:
    """Return where a crop begins; negative where the image is smaller than the crop."""
    if place and side > crop:
        return 0 if place < 0 else side - crop
    return -((crop - side) // 2) if side < crop else round((side - crop) / 2)
