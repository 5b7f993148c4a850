"""TIFF files with one plain image: the first directory, checked and written again.

TIFF is a container of everything, and its decoders have a long record of security holes. Here a
decoder never sees the file: it sees a new one that has the strips, and of the tags only those that
say how the pixels lie, each checked. Strips may be compressed by LZW, Deflate, PackBits or not at
all; tiles, pages, planes, floating point, JPEG and fax inside of TIFF are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ...errors import ImageError
from .parts import Bare, Part, check_coded

__all__ = ["bare"]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOUR, _FILL = 256, 257, 258, 259, 262, 266
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANES, _PREDICTOR = 273, 277, 278, 279, 284, 317
_PALETTE, _TILES, _EXTRA, _SAMPLE_FORMAT = 320, 322, 338, 339

_USUAL = {  # what a tag means where it is missing
    _BITS: (1,),
    _COMPRESSION: (1,),
    _FILL: (1,),
    _SAMPLES: (1,),
    _PLANES: (1,),
    _PREDICTOR: (1,),
    _EXTRA: (),
    _SAMPLE_FORMAT: (1,),
    _PALETTE: (),
}
# tags of one value each
_SINGLE = (_WIDTH, _HEIGHT, _COMPRESSION, _COLOUR, _FILL, _SAMPLES, _PLANES, _PREDICTOR, _ROWS)
_TYPES = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG
_PREDICTED = (5, 8, 32946)  # LZW, and Deflate under two numbers
_COMPRESSIONS = (1, 32773, *_PREDICTED)
# Colours (white is 0, black is 0, RGB, palette, inks) and samples without extra ones; then bits.
_COLOURS = {
    (0, 1): (1, 8),
    (1, 1): (1, 8, 16),
    (2, 3): (8, 16),
    (3, 1): (1, 2, 4, 8),
    (5, 4): (8,),
}
_MOST_ENTRIES, _MOST_STRIPS = 1000, 1 << 16

Tags = dict[int, tuple[int, ...]]


def bare(data: bytes) -> Bare:
    """Return a TIFF with the first image of a file and nothing else; the file itself is its EXIF.

    Raises
    ------
    ImageError
        The image is none of those that are read, or its parts contradict each other.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        tags, packet = _directory(data, order)
        strips = _strips(data, tags)
    except (struct.error, KeyError) as error:
        raise ImageError(
            "it is a TIFF image whose parts lie outside the file or are missing; save it again"
        ) from error
    return Bare(_written(order, tags, strips), data, packet)


def _directory(data: bytes, order: str) -> tuple[Tags, bytes | None]:
    """Return the tags of the first image that pixels need, and its XMP packet."""
    (at,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, at)
    _require(at >= 8 and entries <= _MOST_ENTRIES, "its directory is no directory")
    tags: Tags = {}
    packet = None
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        _require(tag != _TILES, "it is stored in tiles, and only strips are read")
        if tag in _USUAL or tag in (_WIDTH, _HEIGHT, _COLOUR, _OFFSETS, _ROWS, _COUNTS):
            _require(
                kind in _TYPES and count <= _MOST_STRIPS, f"its tag {tag} is no list of numbers"
            )
            if tag not in tags:
                tags[tag] = _values(data, order, _TYPES[kind], count, entry + 8)
        elif tag == 700:  # XMP
            (start,) = struct.unpack_from(order + "I", data, entry + 8)
            packet = data[start : start + min(count, 1 << 20)]
    (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * entries)
    _require(following == 0, "it has several pages; save the one that is meant")
    return _USUAL | tags, packet


def _values(data: bytes, order: str, form: str, count: int, at: int) -> tuple[int, ...]:
    """Return the values of an entry: they are in its last four bytes, if they fit there."""
    layout = f"{order}{count}{form}"
    if struct.calcsize(layout) > 4:
        (at,) = struct.unpack_from(order + "I", data, at)
    return struct.unpack_from(layout, data, at)


def _strips(data: bytes, tags: Tags) -> list[Part]:
    """Check the tags against each other, and return the strips of the image."""
    tags.setdefault(_ROWS, tags[_HEIGHT])
    for tag in _SINGLE:
        _require(len(tags[tag]) == 1, f"its tag {tag} has {len(tags[tag])} values")
    width, height, samples = tags[_WIDTH][0], tags[_HEIGHT][0], tags[_SAMPLES][0]
    bits, compression = set(tags[_BITS]), tags[_COMPRESSION][0]
    colour = tags[_COLOUR][0], samples - len(tags[_EXTRA])
    _require(width > 0 and height > 0, "it is empty")
    _require(
        compression in _COMPRESSIONS,
        f"it is compressed by method {compression}; only LZW, Deflate and PackBits are read",
    )
    _require(
        len(bits) == 1
        and len(tags[_BITS]) == samples
        and min(bits) in _COLOURS.get(colour, ())
        and len(tags[_EXTRA]) <= 1
        and (not tags[_EXTRA] or min(bits) >= 8)
        and set(tags[_SAMPLE_FORMAT]) == {1}
        and len(tags[_SAMPLE_FORMAT]) in (1, samples),
        f"its pixels are of a kind that is not read ({samples} samples of {sorted(bits)} bits, "
        f"colours {colour[0]}, numbers {sorted(set(tags[_SAMPLE_FORMAT]))})",
    )
    _require(tags[_PLANES] == (1,) or samples == 1, "its colours are stored apart")
    _require(tags[_FILL] == (1,), "its bits are stored backwards")
    _require(tags[_PREDICTOR][0] in (1, 2), f"its predictor is {tags[_PREDICTOR][0]}")
    palette = 3 * 2 ** min(bits) if colour[0] == 3 else 0
    _require(len(tags[_PALETTE]) >= palette, "its palette is cut short")
    rows = min(tags[_ROWS][0], height)
    offsets, counts = tags[_OFFSETS], tags[_COUNTS]
    _require(rows > 0 and len(offsets) == len(counts) == -(-height // rows), "it lacks strips")
    _require(sum(counts) <= len(data), "its strips are larger than the file")
    view = memoryview(data)
    strips: list[Part] = [view[at : at + n] for at, n in zip(offsets, counts, strict=True)]
    row = -(-width * samples * min(bits) // 8)
    check_coded(sum(counts), row * height + 64 * len(strips))
    whole = compression != 1 or sum(counts) >= row * height
    _require(
        whole and all(map(len, strips)) and sum(map(len, strips)) == sum(counts), "it is cut short"
    )
    tags |= {_ROWS: (rows,), _PALETTE: tags[_PALETTE][:palette]}
    return strips


def _written(order: str, tags: Tags, strips: Sequence[Part]) -> list[Part]:
    """Return the parts of a TIFF of some tags and strips."""
    sizes = [len(strip) for strip in strips]
    starts = [8]
    for size in sizes:
        starts.append(starts[-1] + size)
    wanted = {tag: values for tag, values in tags.items() if values}
    wanted |= {_OFFSETS: tuple(starts[:-1]), _COUNTS: tuple(sizes)}
    if tags[_COMPRESSION][0] not in _PREDICTED:
        del wanted[_PREDICTOR]
    parts: list[Part] = [*strips, bytes(starts[-1] % 2)]
    at = starts[-1] + starts[-1] % 2
    entries = []
    for tag in sorted(wanted):
        short = tag not in (_WIDTH, _HEIGHT, _OFFSETS, _COUNTS, _ROWS)
        body = struct.pack(f"{order}{len(wanted[tag])}{'H' if short else 'I'}", *wanted[tag])
        if len(body) > 4:
            parts.append(body)
            body, at = struct.pack(order + "I", at), at + len(body)
        head = struct.pack(order + "HHI", tag, 3 if short else 4, len(wanted[tag]))
        entries.append(head + body.ljust(4, b"\0"))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    end = [struct.pack(order + "H", len(entries)), *entries, bytes(4)]
    return [start, *parts, *end]


def _require(right: bool, what: str) -> None:
    """Raise `ImageError` for a TIFF that is not read."""
    if not right:
        raise ImageError(f"it is a TIFF image that is not read: {what}; save it as PNG")
