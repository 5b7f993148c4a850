"""PNG files as chunks: a length, four letters, the data, a checksum.

A chunk whose first letter is small is ancillary: the pixels do not need it. Only transparency is
kept of these. So a text of any length, or a damaged checksum of a text, does not keep an image from
being read, and costs nothing.
"""

from __future__ import annotations

import re
import zlib

from .orientation import Bare

__all__ = ["bare"]

_ANCILLARY = re.compile(rb"[a-z][a-zA-Z]{3}")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp"
_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")  # of ImageMagick, in hexadecimal
_MOST_TEXT = 1 << 20  # bytes of a text that are inflated; XMP and EXIF have some kilobytes


def bare(data: bytes) -> Bare:
    """Return a PNG without its ancillary chunks but tRNS, and its EXIF and XMP.

    Chunks behind the end count as well, because Pillow reads on in some files.
    """
    kept: list[bytes] = []
    start, at = 0, 8  # what begins at `start` is kept
    found: dict[str, bytes] = {}
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind != b"tRNS" and _ANCILLARY.fullmatch(kind):
            kept.append(data[start:at])
            start = end
            if kind == b"eXIf":
                found.setdefault("exif", data[at + 8 : end - 4])
            elif kind in _TEXTS:
                _read_text(kind, data[at + 8 : end - 4], found)
        at = end
    return Bare(
        b"".join([*kept, data[start:]]) if kept else data,
        found.get("exif") or found.get("raw"),
        found.get("xmp"),
    )


def _read_text(kind: bytes, body: bytes, found: dict[str, bytes]) -> None:
    """Keep the text of a chunk if it is XMP or EXIF."""
    keyword, _, rest = body[: len(_EXIF[0]) + 4].partition(b"\0")
    if keyword != _XMP and keyword not in _EXIF:
        return
    rest = body[len(keyword) + 1 :]
    compressed = kind == b"zTXt"
    if kind == b"iTXt":  # two bytes, then a language and the keyword in that language
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    elif compressed:
        rest = rest[1:]
    try:
        text = zlib.decompressobj().decompress(rest, _MOST_TEXT) if compressed else rest
        if keyword == _XMP:
            found.setdefault("xmp", text[:_MOST_TEXT])
        else:  # an empty line, a name, the length, and lines of digits
            digits = b"".join(text[:_MOST_TEXT].split(b"\n")[3:])
            found.setdefault("raw", bytes.fromhex(digits.decode("ascii")))
    except (zlib.error, ValueError):  # damaged: the pixels do not need it
        pass
