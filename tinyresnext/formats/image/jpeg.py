"""JPEG files as segments: 0xFF, a marker, a length and the data; behind a scan's, its numbers.

The application segments and comments are metadata, whatever is wrong or large in them. Two are kept
if they are whole, as libjpeg does: JFIF and Adobe's say which colours the numbers mean. What lies
behind the end is no part of the image.

A decoder can be kept busy for long by what an image does not need: bytes of filling, segments,
restart markers and scans without number. So each of them is counted here (ITU-T T.81, B.1).
"""

from __future__ import annotations

import re

import numpy as np

from ...errors import ImageError
from .parts import MOST_METADATA, Bare

__all__ = ["bare"]

_MOST_SEGMENTS = 1 << 16  # photographs have up to 200
_MOST_FILLING = 1 << 16  # bytes of filling, between segments and inside of scans
_MOST_SCANS = 100  # ten are usual; each scan is a pass over the whole image
_MOST_SCANNED = 10**9  # pixels of all scans together
_MOST_CODED = 32 * 64  # bytes that the numbers of a block of 8 x 8 pixels can need in a scan
_MOST_EXIF = MOST_METADATA >> 16  # segments; a long block has several
_PIECE = 1 << 20

_SCAN, _END, _COMMENT = 0xDA, 0xD9, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the segments with the size of the image
_KEPT = re.compile(rb"\xe0JFIF\x00.{9}|\xeeAdobe.{7}", re.DOTALL)
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

# What follows a byte 0xFF: a marker that has a length behind it, or the end; a restart; filling; or
# none of these, such as the zero behind a 0xFF among the numbers, and what libjpeg skips.
_MARKER, _RESTART, _FILLING = 1, 2, 3
_KINDS = np.zeros(256, np.uint8)
_KINDS[0x02:0xFF] = _MARKER
_KINDS[0xD0:0xD8] = _RESTART
_KINDS[0xD8] = 0
_KINDS[0xFF] = _FILLING


def bare(data: bytes) -> Bare:
    """Return a JPEG without its metadata, and its EXIF and XMP.

    Where a segment is not whole, the rest is kept as it is: the decoder refuses it. Where there is
    none, nothing of the rest is kept.

    Raises
    ------
    ImageError
        It has more of something than an image needs, or a segment without a length.
    """
    view, kept = memoryview(data), [memoryview(data)[:2]]
    exif: list[bytes] = []
    xmp, seen = None, set()
    scans, blocks, at = 0, 0, _next_marker(data, 2, _MOST_FILLING)
    for _ in range(_MOST_SEGMENTS):
        if at + 2 > len(data) or data[at + 1] == _END:
            kept.append(view[at:][:2])
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        metadata = 0xE0 <= marker <= 0xEF or marker == _COMMENT
        if end > len(data):
            kept.append(view[at:])
            break
        if length < 2:
            _require(metadata, "it has a segment without a length")
            end = at + 2
        elif marker == 0xE1 and data.startswith(_EXIF, at + 4):
            if len(exif) < _MOST_EXIF:
                exif.append(data[at + 4 + (len(_EXIF) if exif else 0) : end])
        elif marker == 0xE1 and data.startswith(_XMP, at + 4):
            xmp = data[at + 4 + len(_XMP) : end] if xmp is None else xmp
        elif not metadata or (
            marker not in seen and _KEPT.match(bytes([marker]) + data[at + 4 : min(end, at + 20)])
        ):
            kept.append(view[at:end])
            seen.add(marker)
        if marker in _FRAMES and length > 6:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (5, 7))
            blocks = -(-height // 8) * -(-width // 8)
        at, start = _next_marker(data, end, blocks + 8), end
        if marker == _SCAN:
            scans += 1
            pixels = 64 * blocks * scans
            _require(scans <= _MOST_SCANS, f"it has more than {_MOST_SCANS} scans")
            _require(scans == 1 or pixels <= _MOST_SCANNED, f"its {scans} scans are too large")
            kept.append(view[start : min(at, start + _MOST_CODED * (blocks + 64))])
    else:
        raise ImageError(f"it has more than {_MOST_SEGMENTS:,} segments; save it again")
    return Bare(kept, b"".join(exif) or None, xmp)


def _next_marker(data: bytes, at: int, restarts: int) -> int:
    """Return where the next segment begins, or the length of the file.

    Parameters
    ----------
    data : bytes
    at : int
        Where to begin.
    restarts : int
        How many restart markers there may be on the way.

    Raises
    ------
    ImageError
        There are more, or too many bytes of filling.
    """
    if at + 1 < len(data) and data[at] == 0xFF and _KINDS[data[at + 1]] == _MARKER:
        return at
    filling = _MOST_FILLING
    for start in range(at, len(data), _PIECE):
        piece = np.frombuffer(data[start : start + _PIECE + 1], np.uint8)
        places = np.flatnonzero(piece[:-1] == 0xFF)
        kinds = _KINDS[piece[places + 1]]
        found = np.flatnonzero(kinds == _MARKER)
        kinds = kinds[: found[0]] if len(found) else kinds
        restarts -= int(np.count_nonzero(kinds == _RESTART))
        filling -= int(np.count_nonzero(kinds == _FILLING))
        _require(restarts >= 0, "it has more restart markers than blocks")
        _require(filling >= 0, f"it has more than {_MOST_FILLING:,} bytes of filling")
        if len(found):
            return start + int(places[found[0]])
    return len(data)


def _require(right: bool, what: str) -> None:
    """Raise `ImageError` for a JPEG that has more than it needs."""
    if not right:
        raise ImageError(f"{what}; save it again")
