"""From an image in any form to upright RGB pixels: EXIF rotation, transparency, 16-bit grey.

`decode` differs from ``PIL.Image.open(path).convert("RGB")`` where that returns what nobody wants:

=========================  ==============================  ==================================
image                      ``convert("RGB")``              here
=========================  ==============================  ==================================
EXIF orientation 2 to 8    is ignored: the image lies on   is turned upright
                           its side
transparent pixels         get their hidden colour, often  are laid over white, as a web page
                           black                           shows them
16-bit grey                becomes white above 255         becomes its high byte, as Pillow
                                                           does it with 16-bit colour
animation                  becomes its first frame         becomes its first frame
floating point             is clipped to 0 and 255         is refused: its range is not known
=========================  ==============================  ==================================

Colour profiles are ignored, as in the pipelines that the published weights were trained with.
"""

from __future__ import annotations

import os
from numbers import Integral

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, UsageError
from ..formats.image.orientation import orientation
from .checks import short
from .files import KINDS, check_size, load_image

__all__ = ["Picture", "check_pixels", "decode", "describe"]

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""An image: the name of a file, a Pillow image, or uint8 pixels, [h, w] or [h, w, 1, 3 or 4]."""

_TURNS = {  # EXIF orientation -> the operation that puts the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(source: Picture, channels: int = 3) -> NDArray[np.uint8]:
    """Decode an image and put it upright.

    Parameters
    ----------
    source
        The name of a JPEG, PNG, WebP, BMP, GIF or TIFF file, of which the first frame is read; a
        Pillow image; or an array of uint8: [h, w] or [h, w, 1] grey, [h, w, 3] RGB, [h, w, 4] RGB
        with alpha. The module's text says what becomes of transparency, 16-bit grey and EXIF
        orientation. The pixels of the source are not changed.
    channels
        3 for RGB; 1 for grey, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Returns
    -------
    uint8 [h, w, channels]
        A new array, which the caller may write to.

    Raises
    ------
    ImageError
        The image cannot be read, or is larger than `tinyresnext.images.files.MAX_PIXELS`.
    UsageError
        `source` is none of the above, or `channels` is neither 1 nor 3.
    """
    if not isinstance(channels, Integral) or channels not in (1, 3):
        raise UsageError(f"channels is {short(channels)}; give 3 for RGB or 1 for grey")
    image, name = _opened(source)
    try:
        check_size(*image.size)
        image.load()
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        turn = _TURNS.get(orientation(image.info.get("exif"), xmp))
        image = _to_rgb(image if turn is None else image.transpose(turn))
        pixels = np.array(image if channels == 3 else image.convert("L"))
    # A Pillow image may still be an open file of any format, and its info may hold anything.
    except Exception as error:
        raise ImageError(f"{name} cannot be used: {error or type(error).__name__}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def check_pixels(pixels: object, channels: tuple[int, ...] = (1, 3)) -> None:
    """Raise `ImageError` for anything but uint8 [h, w, c] with pixels, and say what to do."""
    if (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 3
        and pixels.shape[2] in channels
    ):
        check_size(pixels.shape[1], pixels.shape[0])
        return
    remedy = f"give uint8 [height, width, channels] with {' or '.join(map(str, channels))} channels"
    if isinstance(pixels, np.ndarray):
        if np.issubdtype(pixels.dtype, np.floating):
            remedy += ": for values in [0, 1], (x * 255).round().astype(np.uint8)"
        elif pixels.ndim == 4:
            remedy += ", one image at a time"
        elif pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
            remedy += ": channels come last, x.transpose(1, 2, 0)"
    raise ImageError(f"found {describe(pixels)}; {remedy}")


def describe(pixels: object) -> str:
    """Return the dtype and shape of an array, or the type of anything else, for a message."""
    if isinstance(pixels, np.ndarray):
        return f"{pixels.dtype} {list(pixels.shape)}"
    return f"a {type(pixels).__name__}"


def _opened(source: Picture) -> tuple[Image.Image, str]:
    """Return an image as a Pillow image, and its name for messages."""
    if isinstance(source, np.ndarray):
        return _from_array(source), "the array"
    if isinstance(source, Image.Image):
        return source, f"the Pillow image of mode {source.mode}"
    if isinstance(source, str | os.PathLike):
        return load_image(source), f"the image {os.fspath(source)!r}"
    raise UsageError(
        f"a {type(source).__name__} is no image; "
        f"give the name of a {KINDS} file, a Pillow image or a uint8 array"
    )


def _from_array(pixels: np.ndarray) -> Image.Image:
    """Wrap an array as a Pillow image."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    check_pixels(pixels, (1, 3, 4))
    pixels = np.ascontiguousarray(pixels)
    return Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, with transparency laid over white."""
    if image.mode.startswith("I"):
        image = _from_deep_grey(image)
    elif image.mode == "F":
        raise ImageError(
            "its pixels are floating point without a stated range; "
            "scale them to 0..255 and convert to mode L"
        )
    elif image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey, in any of Pillow's I modes, to 8 bits; a transparent value to alpha."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        raise ImageError(
            f"its pixels run from {deep.min()} to {deep.max()}; scale them to 0..65535"
        )
    key = image.info.get("transparency")
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    if key is not None:
        grey.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
    return grey
