"""The orientation of an image, as its EXIF block or its XMP packet has it.

EXIF is a TIFF file of a few entries: byte order, then a list of tags, each with a type, a count and
a value of four bytes. XMP is XML.
"""

from __future__ import annotations

import re
import struct

__all__ = ["orientation"]

_TAG = 0x0112
# The types of whole numbers, and how `struct` calls them: BYTE, SHORT, LONG, SBYTE, SSHORT, SLONG,
# IFD. The standard asks for SHORT, but cameras and programs write the others too.
_WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
_EXIF = re.compile(rb"(?:Exif\x00\x00)*(II\*\x00|MM\x00\*)")
# As an attribute or as an element.
_XMP = re.compile(
    rb"""\btiff:Orientation\s{0,99}(?:=\s{0,99}["']|>)\s{0,99}(\d{1,9})\s{0,99}["'<]"""
)


def orientation(exif: object, xmp: object = None) -> int:
    """Return the orientation of an image: 1 (upright) to 8, the numbers of the EXIF standard.

    The result is 1 if the value is no whole number from 1 to 8, or if there is none: the pixels can
    still be used. XMP counts where EXIF has no orientation.

    Parameters
    ----------
    exif
        An EXIF block, with "Exif" and two zero bytes in front or without, as bytes; anything else
        is ignored.
    xmp
        An XMP packet, as bytes or text; anything else is ignored.
    """
    value = _in_exif(exif) if isinstance(exif, bytes) else None
    if value is None:
        text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
        found = _XMP.search(text) if isinstance(text, bytes) else None
        value = int(found[1]) if found else 1
    return value if 1 <= value <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    """Return the value of the tag, 0 if it is no whole number, or None if it is not there."""
    start = _EXIF.match(exif)
    if start is None:
        return None
    order, tiff = "<" if start[1] == b"II*\x00" else ">", memoryview(exif)[start.start(1) :]
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", tiff, at)
            if tag == _TAG:
                struct.unpack_from("4s", tiff, at + 8)  # the whole entry has to be there
                whole = kind in _WHOLE and count == 1
                return struct.unpack_from(order + _WHOLE[kind], tiff, at + 8)[0] if whole else 0
    except struct.error:
        pass
    return None
