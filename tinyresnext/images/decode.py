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

import io
import os
from numbers import Integral
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, UsageError
from ..formats.image.orientation import orientation
from ..system.files import check_machine
from .checks import short, too_much, within_memory
from .files import KINDS, MAX_FILE_BYTES, Contents, check_size, image_in, load_image

__all__ = [
    "Picture",
    "check_pixels",
    "decode",
    "describe",
    "is_picture",
    "named",
    "pixels_of",
    "upright",
]

Picture = (
    str | os.PathLike[str] | Image.Image | np.ndarray | bytes | bytearray | memoryview | IO[bytes]
)
"""An image: the name of a file, a Pillow image, uint8 pixels, [h, w] or [h, w, 1, 3 or 4], or the
contents of a file, as bytes or as a file that is open in binary mode."""

_LONGEST_PATH = 4096  # bytes

_TURNS = {  # EXIF orientation -> the operation that puts the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    source: Picture | Contents, channels: int = 3, least: int | None = None
) -> NDArray[np.uint8]:
    """Decode an image and put it upright.

    Parameters
    ----------
    source
        The name of a JPEG, PNG, WebP, BMP, GIF or TIFF file, of which the first frame is read, but
        a TIFF of several pages is refused; the contents of such a file, as bytes or as a file that
        is open in binary mode, which is read from its beginning if it can be rewound, else from
        where it stands; a Pillow image; or an array of uint8: [h, w] or [h, w, 1] grey, [h, w, 3]
        RGB, [h, w, 4] RGB with alpha. The module's text says what becomes of transparency, 16-bit
        grey and EXIF orientation. The pixels of the source are not changed.
    channels
        3 for RGB; 1 for grey, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
    least
        As for `tinyresnext.images.files.load_image`: decode a large JPEG at a reduced size.

    Returns
    -------
    uint8 [h, w, channels]
        A new array, which the caller may write to.

    Raises
    ------
    ImageError
        The image cannot be read, or is larger than `tinyresnext.images.files.MAX_PIXELS`.
    UsageError
        `source` is none of the above, a file in text mode, a file that is closed, or the name of a
        file as bytes; or `channels` is neither 1 nor 3.
    """
    with within_memory(named(source)):
        return pixels_of(upright(source, channels, least))


def upright(source: Picture | Contents, channels: int = 3, least: int | None = None) -> Image.Image:
    """Return an image as `decode` does, without a copy of its pixels as an array.

    Returns
    -------
    Pillow image
        RGB or grey. It may be the source itself, so the caller must not change it.
    """
    if not isinstance(channels, Integral) or channels not in (1, 3):
        raise UsageError(f"channels is {short(channels)}; give 3 for RGB or 1 for grey")
    name = named(source)
    image = _opened(source, name, least)
    try:
        check_size(*image.size)
        image.load()
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        turn = _TURNS.get(orientation(image.info.get("exif"), xmp))
        image = _to_rgb(image if turn is None else image.transpose(turn))
        return image if channels == 3 else image.convert("L")
    except MemoryError as error:
        raise too_much(name) from error
    # A Pillow image may still be an open file of any format, and its info may hold anything.
    except Exception as error:
        check_machine(name, error)
        raise ImageError(f"{name} cannot be used: {error or type(error).__name__}") from error


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an RGB or grey image: a new array, uint8 [h, w, 3 or 1]."""
    return np.array(image).reshape(image.height, image.width, len(image.getbands()))


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


def is_picture(source: object) -> bool:
    """Return whether a value stands for one image by its type, whatever it contains."""
    if isinstance(source, np.ndarray):  # an array of names, or of images, is a collection
        return source.ndim < 4 and source.dtype.kind not in "OSU"
    return isinstance(
        source, str | os.PathLike | Image.Image | bytes | bytearray | memoryview
    ) or callable(getattr(source, "read", None))


def named(source: Picture | Contents) -> str:
    """Return the name of an image for messages."""
    if isinstance(source, np.ndarray):
        return "the array"
    if isinstance(source, Image.Image):
        return f"the Pillow image of mode {source.mode}"
    if isinstance(source, str | os.PathLike):
        return f"the image {os.fspath(source)!r}"
    if isinstance(source, Contents):
        return f"the image {source.name}"
    return f"the image in the {type(source).__name__}"


def _opened(source: Picture | Contents, name: str, least: int | None) -> Image.Image:
    """Return an image as a Pillow image."""
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, str | os.PathLike):
        return load_image(source, least=least)
    if isinstance(source, Contents):
        return image_in(source.data, source.name, least=least)
    if isinstance(source, bytes | bytearray | memoryview):
        data = _limited(source, name)
        try:
            return image_in(data, name, least=least)
        except ImageError:
            _check_no_path(data)
            raise
    if is_picture(source):
        return image_in(_contents(source, name), name, least=least)
    raise UsageError(
        f"an object of type {type(source).__name__} is no image; give the name "
        f"(path) or the bytes of a {KINDS} file, a file open in binary mode, a Pillow image or a "
        "uint8 array"
    )


def _check_no_path(data: bytes) -> None:
    """Raise `UsageError` for the name of a file as bytes, which `os.fsencode` makes."""
    if 0 < len(data) < _LONGEST_PATH and b"\0" not in data and os.path.isfile(data):
        raise UsageError(
            f"{data!r:.200} is the name of a file, and bytes are taken as what is in a file; give "
            "the name as a text (os.fsdecode), or the bytes of the file"
        )


def _limited(data: bytes | bytearray | memoryview, name: str) -> bytes:
    """Return the bytes of a file, if they are not too many."""
    try:
        with memoryview(data) as view:
            if view.nbytes <= MAX_FILE_BYTES:
                return data if isinstance(data, bytes) else view.tobytes()
            size = view.nbytes
    except ValueError as error:  # a view that was released
        raise UsageError(f"{name} cannot be read: {error}; give its bytes") from error
    raise ImageError(
        f"{name} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are accepted"
    )


def _contents(file: Any, name: str) -> bytes:
    """Read an open file from its beginning, as Pillow does; a socket or a pipe from where it is."""
    remedy = "give a file that is open for reading in binary mode ('rb'), its path or its bytes"
    data = bytearray()
    try:
        if callable(getattr(file, "seek", None)) and getattr(file, "seekable", lambda: True)():
            file.seek(0)
        while len(data) <= MAX_FILE_BYTES and (part := file.read(MAX_FILE_BYTES + 1 - len(data))):
            if not isinstance(part, bytes | bytearray | memoryview):
                raise TypeError(f"it returns {type(part).__name__} instead of bytes")
            data += part  # some files return less than was asked for
    except (io.UnsupportedOperation, TypeError, ValueError) as error:
        # It is closed, not open for reading, or returns text.
        raise UsageError(f"{name} cannot be read: {error}; {remedy}") from error
    except MemoryError as error:
        raise too_much(name) from error
    except Exception as error:  # what an object of any class raises when it is read
        check_machine(name, error)
        raise ImageError(f"{name} cannot be read: {error or type(error).__name__}") from error
    return _limited(data, name)


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
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey, in any of Pillow's I modes, to 8 bits; a transparent value to alpha."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        raise ImageError(
            f"its pixels run from {deep.min()} to {deep.max()}; scale them to 0..65535"
        )
    if image.mode == "I" and 0 < deep.max() <= 255:
        raise ImageError(
            f"its pixels run to {deep.max()} in numbers of 32 bits, so they may be of 8 or of 16 "
            "bits; convert it to mode L or to I;16"
        )
    key = image.info.get("transparency")
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    if key is not None:
        grey.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
    return grey
