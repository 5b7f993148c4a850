"""From the name of a file to a Pillow picture of its first frame.

Pillow reads the formats. Around it stand the file, read once and within a limit; the choice of the
format by the file's first bytes; the number of pixels, checked before any of them is decoded; and
one error for everything that a decoder may raise. The class of the format is called directly,
because ``Image.open`` would try other formats, and warn by a global limit.

JPEG, PNG, WebP, BMP and GIF are read: what cameras, screens and the web produce. TIFF, PPM, AVIF
and the forty others that Pillow knows are refused. Some of them run other programs (EPS), some are
families of codecs with a long record of holes (TIFF, JPEG 2000), some depend on how Pillow was
built (AVIF); each can be saved as PNG without loss.

Two global settings of Pillow stay in force. With ``ImageFile.LOAD_TRUNCATED_IMAGES`` a file that is
cut short is filled up. ``Image.MAX_IMAGE_PIXELS``, where somebody lowered it, also holds for WebP
and for GIFs whose first frame reaches beyond their screen; such a frame of more than that many
pixels is the one case where Pillow warns before it is refused here.
"""

from __future__ import annotations

import io
import os
import re
import struct

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ..errors import ImageError
from ..system.files import regular

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "check_size",
    "load_picture",
    "orientation",
    "picture_in",
]

MAX_FILE_BYTES = 64 * 2**20
"""A larger file is refused before it is read: photographs are smaller, and Pillow takes a second over 3 MiB of empty parts."""

MAX_PIXELS = 89_478_485
"""A larger picture is refused before it is decoded: 2**28 / 3, where Pillow begins to warn; 1 to 1.5 GiB of memory."""

_JPEG_REPEATS = re.compile(
    rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)|Exif\x00\x00"
)  # scans, EXIF blocks
# ten is usual; each scan is a pass over the whole picture, each EXIF block a copy of those before
_MAX_REPEATS = 100

_LOOKALIKES = (  # how other files begin
    (
        rb"(\xef\xbb\xbf)?\s{0,60}<",
        "text with tags (HTML, SVG or XML; often an error page saved under a picture's name)",
    ),
    (rb".{4}ftyp", "an ISO media file (AVIF, HEIC or a video)"),
    (rb"II\*\x00|MM\x00\*", "a TIFF picture"),
    (rb"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (rb"\x00\x00\x01\x00", "a Windows icon"),
    (rb"8BPS", "a Photoshop document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\x80[\x02-\x05]", "a Python pickle"),
)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF block is left unread: Pillow would look up the resolution in it, and warn where it is damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


_FORMATS = (  # how a file begins, what it then is, and the class that reads it
    (rb"\xff\xd8", "JPEG", _Jpeg),
    (rb"\x89PNG\r\n\x1a\n", "PNG", PngImagePlugin.PngImageFile),
    (rb"GIF8[79]a", "GIF", GifImagePlugin.GifImageFile),
    (rb"RIFF.{4}WEBP", "WebP", WebPImagePlugin.WebPImageFile),
    (rb"BM", "BMP", BmpImagePlugin.BmpImageFile),
)


def load_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Read, check and decode the first frame of a picture file.

    Parameters
    ----------
    path
        A regular file of at most `MAX_FILE_BYTES`. It is opened once; devices and pipes are refused
        without waiting for them.

    Returns
    -------
    PIL.Image.Image
        Decoded, in the file's own mode, not yet turned upright; ``info["exif"]`` is the file's EXIF
        block, if it has one.

    Raises
    ------
    ImageError
        The file cannot be read, is not of the five formats, is cut short or damaged, or is larger
        than the limits.
    """
    name = repr(path if isinstance(path, str) else os.fspath(path))
    return picture_in(_read(path, name), name)


def picture_in(data: bytes, name: str) -> Image.Image:
    """Check and decode the first frame of a picture file whose bytes are at hand; the rest as for `load_picture`.

    Parameters
    ----------
    data
        The whole file. The caller has limited its length: to `MAX_FILE_BYTES`, as here.
    name
        For messages; quoted by the caller.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); give a JPEG, PNG, WebP, BMP or GIF picture")
    for start, kind, reader in _FORMATS:
        if re.match(start, data, re.DOTALL):
            return _decode(data, kind, reader, name)
    unknown = f"of an unknown kind (it begins with {data[:8].hex(' ')})"
    found = next((kind for start, kind in _LOOKALIKES if re.match(start, data, re.DOTALL)), unknown)
    raise ImageError(
        f"{name} seems to be {found}; give a JPEG, PNG, WebP, BMP or GIF picture instead"
    )


def orientation(exif: object) -> int:
    """Orientation that an EXIF block asks for: 1 (upright) to 8, the numbers of the EXIF standard.

    A block that is damaged, or says nothing or nonsense about the orientation, means 1: the pixels
    are good all the same.
    """
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(
                order + "HHIH", tiff, directory + 2 + 12 * entry
            )
            if tag == 0x0112:
                return value if (kind, count) == (3, 1) and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def check_size(width: int, height: int) -> None:
    """Refuse a picture without pixels or with more than `MAX_PIXELS` of them."""
    if width < 1 or height < 1:
        raise ImageError(f"it is {width} x {height} pixels, which is empty")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"it is {width} x {height} pixels, more than the {MAX_PIXELS:,} that are accepted; scale it down first"
        )


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    """All bytes of a file, if they are not too many."""
    with regular(path, error=ImageError) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ImageError(
                f"{name} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are accepted"
            )
        return file.read(MAX_FILE_BYTES)


def _decode(data: bytes, kind: str, reader: type[ImageFile.ImageFile], name: str) -> Image.Image:
    """Open by the format's class, check the size, decode; whatever goes wrong is an ImageError."""
    try:
        _check_cost(kind, data)
        image = reader(io.BytesIO(_without_animation(data) if kind == "PNG" else data))
        check_size(*image.size)
        image.load()
    except ImageError as error:
        raise ImageError(f"{name} is refused: {error}") from error
    # Decoders answer damaged data with OSError, SyntaxError, ValueError, struct.error, EOFError,
    # IndexError, MemoryError and more, and no list of them is complete; to the caller they all mean
    # the same.
    except Exception as error:
        raise ImageError(
            f"{name} is no usable {kind} picture: {_reason(error)}; get it again, or save it anew"
        ) from error
    return image


def _reason(error: BaseException) -> str:
    """Say in one line what went wrong."""
    error = (
        error.__cause__ or error
    )  # Pillow calls the end of the data a SyntaxError, caused by what really happened
    if isinstance(error, struct.error | IndexError | EOFError):
        return "it is cut short, or its parts contradict each other"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_cost(kind: str, data: bytes) -> None:
    """Refuse the few things by which a small file keeps Pillow busy for minutes."""
    if kind == "JPEG" and sum(1 for _ in _JPEG_REPEATS.finditer(data)) > _MAX_REPEATS:
        raise ImageError(f"it has more than {_MAX_REPEATS} scans or EXIF blocks; save it anew")
    if (
        kind == "BMP" and data[14] > 12 and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    ):  # undone byte by byte in Python
        raise ImageError("it is run-length coded, which is not supported in BMP; save it as PNG")


def _without_animation(data: bytes) -> bytes:
    """A PNG without the chunks of an animation: the first frame needs none, and Pillow warns where they are damaged."""
    if b"acTL" not in data:
        return data
    kept, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in (b"acTL", b"fcTL", b"fdAT"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
