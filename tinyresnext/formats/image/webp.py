"""WebP files as chunks: four letters, a length, the data. Pixels and what they need are kept.

Of an animation, the first frame is kept. Profiles and unknown chunks are not, and EXIF and XMP are
taken out. Source: Google 2023, WebP Container Specification (RFC 9649, section 2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ...errors import ImageError
from .parts import MOST_METADATA, Bare, Part

__all__ = ["bare"]

_MOST_CHUNKS = 1 << 16
_PIXELS = (b"VP8 ", b"VP8L")
_METADATA = 0x20 | 0x08 | 0x04  # the flags of a profile, EXIF and XMP
_FEW_BYTES, _MOST_BYTES = 1 << 16, 16  # of an image, and for each of its pixels
_FRAME = 16  # bytes before the chunks of a frame


def bare(data: bytes) -> Bare:
    """Return a WebP with its first image, and its EXIF and XMP.

    Where a chunk is not whole, it is kept as it is: the decoder refuses it.

    Raises
    ------
    ImageError
        It has more chunks than an image needs, or longer ones.
    """
    view, body = memoryview(data), [b"WEBP"]
    parts: list[Part] = list(body)
    stop = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    found: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data, 12, stop):
        if kind in (b"EXIF", b"XMP ") and end <= stop:
            length = min(_length(data, start), MOST_METADATA)
            found.setdefault(kind, data[start + 8 : start + 8 + length])
        elif kind == b"VP8X" and kind not in found and end <= stop:
            found[kind] = b""
            _check(data, kind, start)
            flags = bytes(flag & ~_METADATA for flag in data[start + 8 : min(start + 9, end)])
            parts += [data[start : start + 8], flags, view[start + 9 : end]]
        elif kind == b"ANIM" and kind not in found:
            found[kind] = b""
            _check(data, kind, start)
            parts.append(view[start:end])
        elif b"pixels" not in found and kind in (*_PIXELS, b"ALPH", b"ANMF"):
            if kind == b"ANMF":
                parts += _frame(data, start, min(end, stop))
            elif kind not in found:
                _check(data, kind, start)
                parts.append(view[start:end])
            found[kind if kind == b"ALPH" else b"pixels"] = b""
    length = sum(map(len, parts))
    # A file that is cut short says that it is longer.
    missing = 8 + int.from_bytes(data[4:8], "little") > len(data)
    parts.insert(0, b"RIFF" + struct.pack("<I", length + missing))
    return Bare(parts, found.get(b"EXIF"), found.get(b"XMP "))


def _frame(data: bytes, start: int, end: int) -> list[Part]:
    """Return the frame of an animation, with its first image and nothing else."""
    view, inside = memoryview(data), start + 8 + _FRAME
    kept: list[Part] = [view[start + 8 : inside]]
    for kind, at, stop in _chunks(data, inside, end):
        if kind in _PIXELS or (kind == b"ALPH" and len(kept) == 1):
            _check(data, kind, at)
            kept.append(view[at : min(stop, end)])
        if kind in _PIXELS:
            break
    return [b"ANMF" + struct.pack("<I", sum(map(len, kept))), *kept]


def _check(data: bytes, kind: bytes, at: int) -> None:
    """Raise `ImageError` for a chunk that is far larger than it, or its pixels, can need.

    A decoder copies all of it before it looks at it.
    """
    sides = [0, 0]
    if kind == b"VP8 ":  # RFC 6386, 9.1: two sides of 14 bits, and two bits of scale each
        sides = [int.from_bytes(data[at + i : at + i + 2], "little") & 0x3FFF for i in (14, 16)]
    elif kind == b"VP8L":  # RFC 9649, 3.4: two sides of 14 bits, less one
        packed = int.from_bytes(data[at + 9 : at + 13], "little")
        sides = [(packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1]
    elif kind == b"ALPH" and data[12:16] == b"VP8X":  # no frame is larger than the canvas
        sides = [1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27)]
    if _length(data, at) > _FEW_BYTES + _MOST_BYTES * sides[0] * sides[1]:
        raise ImageError(
            f"it has {_length(data, at):,} bytes for {sides[0]} x {sides[1]} pixels; save it again"
        )


def _chunks(data: bytes, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, begin and end of each chunk; the last one may end beyond the file."""
    for _ in range(_MOST_CHUNKS):
        if at + 8 > stop:
            return
        length = _length(data, at)
        end = at + 8 + length + length % 2
        yield data[at : at + 4], at, end
        at = end
    raise ImageError(f"it has more than {_MOST_CHUNKS:,} chunks; save it again")


def _length(data: bytes, at: int) -> int:
    """Return the length of the data of the chunk that begins at a place."""
    return int.from_bytes(data[at + 4 : at + 8], "little")
