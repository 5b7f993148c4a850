"""From the name of an image file to a Pillow image of its first frame, within limits.

Pillow decodes the formats. This module adds what Pillow does not do: it reads the file once, within
a limit; chooses the format by the file's first bytes; checks the number of pixels before any of
them is decoded; and raises one error, `ImageError`, for everything that a decoder may raise. It
calls the class of the format directly, because ``Image.open`` would try other formats, and warn by
a global limit.

JPEG, PNG, WebP, BMP and GIF are read: the formats of cameras, screens and the web; and TIFF, if it
is one plain image (see `tinyresnext.formats.image.tiff`). PPM, AVIF and the forty others that
Pillow knows are refused. Some of them run other programs (EPS), some are families of codecs with a
long record of security holes (JPEG 2000, the rest of TIFF), some depend on how Pillow was built
(AVIF). Each can be saved as PNG without loss.

Two global settings of Pillow stay in force. With ``ImageFile.LOAD_TRUNCATED_IMAGES``, a file that
is cut short is filled up. ``Image.MAX_IMAGE_PIXELS``, where somebody lowered it, also holds for
WebP, TIFF and GIFs whose first frame reaches beyond their screen; such a frame of more than that
many pixels is the one case where Pillow warns before this module refuses it. libtiff writes a line
to stderr where compressed pixels of a TIFF are damaged.
"""

from __future__ import annotations

import io
import os
import re
import struct
from typing import NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import ImageError
from ..formats.image import gif, jpeg, png, tiff, webp
from ..formats.image.parts import Bare, as_file
from ..formats.others import packed_kind
from ..system.files import regular
from .checks import too_much

__all__ = [
    "KINDS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Contents",
    "check_size",
    "contents_of",
    "image_in",
    "load_image",
]

MAX_FILE_BYTES = 64 * 2**20
"""Bytes. A larger file is refused before it is read: photographs are smaller."""

MAX_PIXELS = 89_478_485
"""A larger image is refused before it is decoded: 2**28 / 3, where Pillow begins to warn. Decoding
so many pixels needs 1 to 1.5 GiB of memory."""

KINDS = "JPEG, PNG, WebP, BMP, GIF or TIFF"
"""The formats that are read, for messages."""

_LOOKALIKES = (  # how files of other kinds begin
    (
        rb"(\xef\xbb\xbf)?\s{0,60}<",
        "text with tags (HTML, SVG or XML; often an error page saved under an image's name)",
    ),
    (
        rb".{4}ftyp(?:hei|hev|mif1|msf1|avi)",
        "a HEIC or AVIF image, as phones write it; save it as JPEG, for example with the package "
        "pillow-heif (PyPI), or set the camera to JPEG",
    ),
    (rb".{4}ftyp", "an ISO media file (AVIF, HEIC or a video)"),
    (rb"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (rb"\x00\x00\x01\x00", "a Windows icon"),
    (rb"8BPS", "a Photoshop document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\x80[\x02-\x05]", "a Python pickle"),
)

_MOST_BMP_HEADER = 124  # bytes, of version 5

_FORMATS = (  # how a file begins, its format, and the class that reads it
    (rb"\xff\xd8", "JPEG", JpegImagePlugin.JpegImageFile),
    (rb"\x89PNG\r\n\x1a\n", "PNG", PngImagePlugin.PngImageFile),
    (rb"GIF8[79]a", "GIF", GifImagePlugin.GifImageFile),
    (rb"RIFF.{4}WEBP", "WebP", WebPImagePlugin.WebPImageFile),
    (rb"BM", "BMP", BmpImagePlugin.BmpImageFile),
    (rb"II\*\x00|MM\x00\*", "TIFF", TiffImagePlugin.TiffImageFile),
)

# Metadata are taken out before Pillow sees them. It refuses long texts and damaged profiles, warns
# of a damaged EXIF block or animation, and needs minutes where there are millions of something; the
# pixels need none of it.
_BARE = {
    "JPEG": jpeg.bare,
    "PNG": png.bare,
    "GIF": gif.bare,
    "WebP": webp.bare,
    "TIFF": tiff.bare,
}


class Contents(NamedTuple):
    """An image file in memory, as out of an archive, and its name for messages."""

    name: str
    data: bytes


def load_image(
    path: str | os.PathLike[str], pixels: bool = True, least: int | None = None
) -> Image.Image:
    """Read, check and decode the first frame of an image file.

    Parameters
    ----------
    path
        A regular file of at most `MAX_FILE_BYTES`. It is opened once; devices and pipes are refused
        without waiting for them.
    pixels
        Whether to decode them; without, only the size of the image is known.
    least
        The shorter side that the caller needs at least. A JPEG with more than twice as many pixels
        is decoded at a half, a quarter or an eighth of its size, with at least twice as many: that
        is much faster, and not the same as decoding it whole and resizing it. By default, every
        image is decoded whole.

    Returns
    -------
    PIL.Image.Image
        Decoded, in the file's own mode, not yet turned upright; ``info["exif"]`` and
        ``info["xmp"]`` are the file's EXIF block and XMP packet, if it has them.

    Raises
    ------
    ImageError
        The file cannot be read, is not in one of the six formats, is cut short or damaged, or
        exceeds a limit.
    """
    name = repr(path if isinstance(path, str) else os.fspath(path))
    return image_in(_read(path, name), name, pixels, least)


def contents_of(path: str, inside: str = "") -> Contents:
    """Read an image file, and do not decode it.

    Parameters
    ----------
    path
        As for `load_image`.
    inside
        The folder in which a relative path begins, by default the working directory.

    Returns
    -------
    Contents
        `decode` says of it what it says of the path, in the same words.

    Raises
    ------
    ImageError
        The file cannot be read, or has more than `MAX_FILE_BYTES`.
    """
    return Contents(repr(path), _read(path, repr(path), inside))


def image_in(data: bytes, name: str, pixels: bool = True, least: int | None = None) -> Image.Image:
    """Check and decode the first frame of an image file that is already in memory.

    Parameters
    ----------
    data
        The whole file. The caller has limited its length to `MAX_FILE_BYTES`.
    name
        For messages; quoted by the caller.
    pixels, least
        As for `load_image`.

    Returns and raises the same as `load_image`.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); give a {KINDS} image")
    for start, kind, reader in _FORMATS:
        if re.match(start, data, re.DOTALL):
            return _decode(data, kind, reader, name, pixels, least)
    unknown = packed_kind(data) or f"of an unknown kind (it begins with {data[:8].hex(' ')})"
    found = next((kind for start, kind in _LOOKALIKES if re.match(start, data, re.DOTALL)), unknown)
    raise ImageError(f"{name} seems to be {found}; give a {KINDS} image")


def check_size(width: int, height: int) -> None:
    """Raise `ImageError` for an image without pixels or with more than `MAX_PIXELS` of them."""
    if width < 1 or height < 1:
        raise ImageError(f"it is {width} x {height} pixels, which is empty")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"it is {width} x {height} pixels, more than the {MAX_PIXELS:,} that are accepted; "
            "scale it down first"
        )


def _read(path: str | os.PathLike[str], name: str, inside: str = "") -> bytes:
    """Read all bytes of a file, if they are at most `MAX_FILE_BYTES`."""
    with regular(path, error=ImageError, inside=inside) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ImageError(
                f"{name} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are accepted"
            )
        return file.read(MAX_FILE_BYTES)


def _decode(
    data: bytes,
    kind: str,
    reader: type[ImageFile.ImageFile],
    name: str,
    pixels: bool,
    least: int | None,
) -> Image.Image:
    """Open by the format's class, check the size, decode; raise `ImageError` for any failure."""
    try:
        _check_cost(kind, data)
        bare = _BARE[kind](data) if kind in _BARE else Bare([data])
        # Pillow reads the whole file where libtiff or libwebp does.
        whole = kind in ("TIFF", "WebP")
        image = reader(io.BytesIO(b"".join(bare.parts)) if whole else as_file(bare.parts))
        check_size(*image.size)
        if least is not None and kind == "JPEG":
            image.draft(None, (2 * least, 2 * least))
        if pixels:
            deep = kind == "PNG" and image.tile and image.tile[0].args == "RGB;16B"
            image.load()
            if deep and "transparency" in image.info:
                _make_transparent(image, reader(as_file(bare.parts)))
        image.info.update(exif=bare.exif, xmp=bare.xmp)
    except ImageError as error:
        raise ImageError(f"{name} is refused: {error}") from error
    except MemoryError as error:
        raise too_much(name) from error
    # For damaged data, decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError,
    # IndexError and more. No list of them is complete, and to the caller they all mean the same.
    except Exception as error:
        raise ImageError(
            f"{name} is no usable {kind} image: {_reason(error)}; get it again, or save it again"
        ) from error
    return image


def _make_transparent(image: Image.Image, again: ImageFile.ImageFile) -> None:
    """Add alpha to 16-bit colour: 0 where both bytes are those of the transparent colour.

    Pillow keeps the high bytes only. The same file, read ``again`` as if its low bytes were the
    high ones, has the others.
    """
    again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
    again.load()
    clear = np.ones((image.height, image.width), bool)
    for number, value in enumerate(image.info.pop("transparency")):
        clear &= np.asarray(image.getchannel(number)) == value >> 8
        clear &= np.asarray(again.getchannel(number)) == value & 255
    image.putalpha(Image.fromarray(np.where(clear, np.uint8(0), np.uint8(255))))


def _reason(error: BaseException) -> str:
    """Return in one line what went wrong."""
    # Pillow raises SyntaxError at the end of the data; its cause says what really happened.
    error = error.__cause__ or error
    if isinstance(error, struct.error | IndexError | EOFError):
        return "it is cut short, or its parts contradict each other"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_cost(kind: str, data: bytes) -> None:
    """Raise `ImageError` for constructs that keep Pillow busy for minutes in a small file."""
    if kind == "WebP" and data[12:16] == b"VP8X":
        # Pillow makes the canvas before its size can be asked for.
        try:
            check_size(*(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27)))
        except ImageError as error:
            raise ImageError(f"as a WebP, {error}") from error
    if kind == "BMP" and int.from_bytes(data[14:18], "little") > _MOST_BMP_HEADER:
        raise ImageError("its header has a length that no BMP has; save it again")
    # Pillow decodes these byte by byte in Python.
    if kind == "BMP" and data[14] > 12 and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise ImageError("it is run-length coded, which is not supported in BMP; save it as PNG")
