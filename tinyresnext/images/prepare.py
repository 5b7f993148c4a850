"""From an image to the input of a network: decode, resize, crop, normalise.

With bilinear or bicubic interpolation and an upright, opaque image of 8 bits, every step returns,
to the last bit, what torchvision's evaluation transforms return for Pillow images: ``Resize``,
``CenterCrop``, ``ToTensor`` and ``Normalize``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, UsageError
from .checks import within_memory
from .decode import Picture, describe, named, pixels_of, upright
from .files import Contents
from .preprocess import Preprocess
from .resize import crop_image, resize_image, resized_size
from .torch7 import scale_and_crop

__all__ = ["normalise", "prepare", "views"]

MIDDLE = (0, 0)
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def prepare(source: Picture, preprocess: Preprocess) -> NDArray[np.float32]:
    """Decode, resize, crop and normalise one image.

    Returns
    -------
    float32 [crop, crop, channels]

    Raises
    ------
    ImageError, UsageError
        As in `decode` and `resize_and_crop`; or ``preprocess`` is something else.
    """
    [x] = views(source, preprocess)
    found: NDArray[np.float32] = x
    return found


def views(
    source: Picture | Contents,
    preprocess: Preprocess,
    crops: int = 1,
    mirror: bool = False,
    fast: bool = False,
) -> NDArray[np.float32]:
    """Prepare several views of one image.

    Parameters
    ----------
    source : image
    preprocess : Preprocess
    crops : {1, 5, 10}
        The middle of the resized image; its four corners and the middle, in the order of
        torchvision's ``FiveCrop``; or these five and then the same five of the mirrored image, as
        ``TenCrop``. In a direction in which the image is not larger than the crop, corners are the
        middle.
    mirror : bool
        Let each view be followed, after all others, by its mirror image. Ten crops stay as they
        are; five of them are the mirror images of the others, in another order, and with the middle
        one pixel aside where the widths of image and crop differ by an odd number.
    fast : bool
        Decode a large JPEG at a reduced size with at least twice the pixels that are needed: the
        pixels that come out differ slightly. With the interpolations "torch7" and "keras", which
        take single pixels and no means, they differ more.

    Returns
    -------
    float32 [views, crop, crop, channels]

    Raises
    ------
    ImageError, UsageError
        As in `decode` and `resize_and_crop`.
    """
    if not isinstance(preprocess, Preprocess):
        raise UsageError(
            f"the second argument is of type {type(preprocess).__name__}, expected a Preprocess; "
            "give that of the model: tinyresnext.prepare(image, model.preprocess)"
        )
    places = (MIDDLE,) if crops == 1 else (*CORNERS, MIDDLE)
    with within_memory(named(source)):
        image = upright(source, preprocess.channels, preprocess.resize if fast else None)
        x = _views(image, preprocess, places, crops == 10)
        return np.concatenate([x, x[:, :, ::-1]]) if mirror and crops != 10 else x


def _views(
    image: Image.Image, preprocess: Preprocess, places: Sequence[tuple[int, int]], twice: bool
) -> NDArray[np.float32]:
    """Resize an image, crop and normalise its views, and ``twice`` those of its mirror image."""
    crop, turns = preprocess.crop, (False, True) if twice else (False,)
    if preprocess.interpolation == "torch7":
        pixels, size = pixels_of(image), resized_size(image.width, image.height, preprocess)
        cut = [scale_and_crop(pixels, size, crop, one, turn) for turn in turns for one in places]
        return _standardise(np.stack(cut), preprocess)
    resized = resize_image(image, preprocess)
    images = [resized.transpose(MIRROR) if turn else resized for turn in turns]
    cuts = [crop_image(one, crop, place) for one in images for place in places]
    return normalise(np.stack(cuts), preprocess)


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """Compute ``(pixels / 255 - mean) / std``, rounded to float32 after each operation.

    torchvision's ``ToTensor`` and ``Normalize`` round in the same places.

    Parameters
    ----------
    pixels
        uint8 [..., c] with as many channels as `preprocess.mean`.

    Returns
    -------
    float32 [..., c]

    Raises
    ------
    ImageError
        `pixels` is something else.
    """
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim < 1
        or pixels.shape[-1] != preprocess.channels
    ):
        raise ImageError(
            f"found {describe(pixels)}; "
            f"expected uint8 [..., {preprocess.channels}], as resize_and_crop returns it"
        )
    x = pixels.astype(np.float32, order="C")
    x /= np.float32(255)
    return _standardise(x, preprocess)


def _standardise(x: NDArray[np.float32], preprocess: Preprocess) -> NDArray[np.float32]:
    """Compute ``(x - mean) / std`` in place, for contiguous float32 [..., c]."""
    # Whole rows of the image at a time: NumPy is slow over a last axis of three.
    width = x.shape[-2] if x.ndim > 1 else 1
    rows = x.reshape(math.prod(x.shape[:-2]), width * preprocess.channels)
    rows -= np.tile(np.asarray(preprocess.mean, np.float32), width)
    rows /= np.tile(np.asarray(preprocess.std, np.float32), width)
    return x
