"""JPEG files as segments: 0xFF, a marker, a length and the data, up to the first scan.

The application segments and comments are metadata, whatever is wrong or large in them. Two are kept
if they are whole, as libjpeg does: JFIF and Adobe's say which colours the numbers mean.
"""

from __future__ import annotations

import re

from .orientation import Bare

__all__ = ["bare"]

# Markers that have a length behind them, and the end. What lies between segments, such as bytes of
# filling, is skipped, as libjpeg does.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
_EMPTY = re.compile(rb"(?:\xff[\xe0-\xef\xfe]\x00\x02)+")  # many at once: there may be millions
_SCAN, _END, _COMMENT = 0xDA, 0xD9, 0xFE
_KEPT = re.compile(rb"\xe0JFIF\x00.{9}|\xeeAdobe.{7}", re.DOTALL)
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def bare(data: bytes) -> Bare:
    """Return a JPEG without its metadata, and its EXIF and XMP.

    Where a segment is not whole, the rest is kept as it is: the decoder refuses it. Where there is
    none, nothing of the rest is kept.
    """
    kept, at = [data[:2]], 2
    exif: list[bytes] = []
    xmp = None
    while found := _MARKER.search(data, at):
        at, marker = found.start(), data[found.start() + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        metadata = 0xE0 <= marker <= 0xEF or marker == _COMMENT
        if metadata and length <= 2:
            empty = _EMPTY.match(data, at)
            at = empty.end() if empty else at + 2
            continue
        end = at + 2 + length
        if marker in (_SCAN, _END) or length < 2 or end > len(data):
            break
        body = data[at + 4 : end]
        if not metadata or _KEPT.match(bytes([marker]) + body[:16]):
            kept.append(data[at:end])
        elif marker == 0xE1 and body.startswith(_EXIF):  # a long block has several segments
            exif.append(body[len(_EXIF) :] if exif else body)
        elif marker == 0xE1 and body.startswith(_XMP) and xmp is None:
            xmp = body[len(_XMP) :]
        at = end
    if found:
        kept.append(data[at:])
    return Bare(b"".join(kept), b"".join(exif) or None, xmp)
