"""PNG files as chunks: a length, four letters, the data, a checksum.

A chunk whose first letter is small is ancillary: the pixels do not need it. Only transparency is
kept of these. So a text of any length, or a damaged checksum of a text, does not keep an image from
being read, and costs nothing.
"""

from __future__ import annotations

import re
import zlib

from ...errors import ImageError
from .parts import MOST_METADATA, Bare, Part, check_coded

__all__ = ["bare"]

_ANCILLARY = re.compile(rb"[a-z][a-zA-Z]{3}")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")  # of ImageMagick, in hexadecimal
_MOST_CHUNKS = 1 << 16  # the usual 8 KiB of pixels each make 8,192 of 64 MiB
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, for each type of colour


def bare(data: bytes) -> Bare:
    """Return a PNG without its ancillary chunks but tRNS, and its EXIF and XMP.

    Nothing behind the end is kept.

    Raises
    ------
    ImageError
        It has more chunks than an image needs, or longer ones.
    """
    view = memoryview(data)
    kept: list[Part] = []
    start, at, stop = 0, 8, len(data)  # what begins at `start` is kept
    found: dict[str, bytes] = {}
    coded = 0
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data):
            break
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            stop = min(end, stop)
            break
        if kind != b"tRNS" and _ANCILLARY.fullmatch(kind):
            kept.append(view[start:at])
            start = end
            if kind == b"eXIf":
                found.setdefault("exif", data[at + 8 : min(end - 4, at + MOST_METADATA)])
            elif kind in _TEXTS:
                _read_text(kind, view[at + 8 : end - 4], found)
        elif kind == b"tRNS" and data[24:26] in (b"\2\0", b"\4\0"):
            kept += [view[start:at], _transparent(view[at:end], data[24])]
            start = end
        elif kind == b"IDAT":
            coded += end - at
        elif min(end, len(data)) - at > MOST_METADATA:
            raise ImageError(
                f"it has a part of {end - at:,} bytes that is not pixels; save it again"
            )
        at = end
    else:
        raise ImageError(f"it has more than {_MOST_CHUNKS:,} chunks; save it again")
    check_coded(min(coded, len(data)), _pixels(data))
    kept.append(view[start:stop])
    return Bare(kept, found.get("exif") or found.get("raw") or None, found.get("xmp") or None)


def _transparent(whole: memoryview, bits: int) -> bytes:
    """Return a tRNS whose grey of a few bits has 8, as the pixels have that it is compared with.

    One whose checksum is wrong stays as it is, and so is refused.
    """
    body, most = bytes(whole[8:-4]), 2**bits - 1
    if len(body) < 2 or zlib.crc32(whole[4:-4]).to_bytes(4, "big") != whole[-4:]:
        return bytes(whole)
    chunk = b"tRNS" + bytes((0, (body[1] & most) * 255 // most)) + body[2:]
    return b"".join((whole[:4], chunk, zlib.crc32(chunk).to_bytes(4, "big")))


def _pixels(data: bytes) -> int:
    """Return the bytes of the pixels before they are compressed, each row with a byte in front."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    bits, colour = (data[24], data[25]) if len(data) > 25 else (0, 0)
    return height * (1 + -(-width * bits * _SAMPLES.get(colour, 4) // 8))


def _read_text(kind: bytes, view: memoryview, found: dict[str, bytes]) -> None:
    """Keep the text of a chunk if it is the first one of XMP or of EXIF."""
    keyword, _, rest = bytes(view[: len(_EXIF[0]) + 4]).partition(b"\0")
    if keyword != _XMP and keyword not in _EXIF:
        return
    to = "xmp" if keyword == _XMP else "raw"
    if to in found:
        return
    found[to] = b""
    rest = bytes(view[len(keyword) + 1 :][: 2 * MOST_METADATA])
    compressed = kind == b"zTXt"
    if kind == b"iTXt":  # two bytes, then a language and the keyword in that language
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    elif compressed:
        rest = rest[1:]
    try:
        text = zlib.decompressobj().decompress(rest, MOST_METADATA) if compressed else rest
        if keyword == _XMP:
            found[to] = text[:MOST_METADATA]
        else:  # an empty line, a name, the length, and lines of digits
            digits = b"".join(text[:MOST_METADATA].split(b"\n")[3:])
            found[to] = bytes.fromhex(digits.decode("ascii"))
    except (zlib.error, ValueError):  # damaged: the pixels do not need it
        pass
