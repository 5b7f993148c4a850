"""The table of classes in ImageNet's development kit, ``meta.mat``: ids, numbers, nothing else.

It is a MAT-file of level 5 ("MAT-File Format", MathWorks), as MATLAB and SciPy write it: elements
with a type and a length, compressed with zlib or not. Its variable ``synsets`` is an array of
structures with the fields ``ILSVRC2012_ID`` and ``WNID``. Nothing in such a file is run, and other
variables are passed over.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ...errors import FormatError

__all__ = ["synsets"]

_MOST = 64 << 20  # bytes, unpacked; the file of ImageNet 2012 has less than one
_MATRIX, _COMPRESSED, _STRUCTURE, _CHARACTERS = 14, 15, 2, 4
# types of numbers: how `struct` calls them
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
_WNID = re.compile(r"n\d{8}")
_REMEDY = "give the devkit of ILSVRC2012 as it is published"


class _Element(NamedTuple):
    """One element: its type and its bytes."""

    kind: int
    data: bytes


def synsets(file: BinaryIO) -> dict[int, str]:
    """Return the WordNet id of each ILSVRC2012 id.

    Raises
    ------
    FormatError
        It is no such file.
    """
    data = file.read(_MOST + 1)
    if data[:10] != b"MATLAB 5.0" or data[126:128] != b"IM" or len(data) > _MOST:
        raise FormatError(f"meta.mat is no MAT-file of level 5 in little-endian order; {_REMEDY}")
    try:
        for element in _elements(data[128:]):
            found = _synsets_in(_unpacked(element))
            if found:
                return found
    except (struct.error, ValueError, OverflowError, IndexError, zlib.error) as error:
        raise FormatError(f"meta.mat is damaged: {error}; {_REMEDY}") from error
    raise FormatError(f"meta.mat has no array synsets with ILSVRC2012_ID and WNID; {_REMEDY}")


def _unpacked(element: _Element) -> _Element:
    """Return an element that may be compressed as it was before."""
    if element.kind != _COMPRESSED:
        return element
    packed = zlib.decompressobj()
    data = packed.decompress(element.data, _MOST)
    if packed.unconsumed_tail:
        raise ValueError(f"a variable has more than {_MOST:,} bytes")
    return next(_elements(data), _Element(0, b""))


def _elements(data: bytes) -> Iterator[_Element]:
    """Yield the elements that follow each other; a short one is packed into eight bytes."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            begin, after = at + 4, at + 8
        else:
            begin = at + 8
            after = begin + size + (-size % 8 if kind != _COMPRESSED else 0)
        if begin + size > len(data):
            raise ValueError("an element is cut short")
        yield _Element(kind, data[begin : begin + size])
        at = after


def _synsets_in(element: _Element) -> dict[int, str]:
    """Return the ids in a variable, or nothing if it is another one."""
    if element.kind != _MATRIX:
        return {}
    parts = list(_elements(element.data))
    if len(parts) < 5 or parts[0].data[:1] != bytes([_STRUCTURE]) or parts[2].data != b"synsets":
        return {}
    wide = struct.unpack("<i", parts[3].data[:4])[0]
    if not 0 < wide <= 64:
        raise ValueError(f"the names of fields have {wide} bytes")
    names = [
        parts[4].data[i : i + wide].split(b"\0")[0] for i in range(0, len(parts[4].data), wide)
    ]
    number, wnid = names.index(b"ILSVRC2012_ID"), names.index(b"WNID")
    cells = parts[5:]
    found: dict[int, str] = {}
    for first in range(0, len(cells) - len(names) + 1, len(names)):
        value, text = _number(cells[first + number]), _text(cells[first + wnid])
        if not _WNID.fullmatch(text) or found.setdefault(value, text) != text:
            raise ValueError(f"ILSVRC2012_ID {value} has the WordNet id {text!r:.40}")
    return found


def _number(cell: _Element) -> int:
    """Return the whole number in a cell of one value."""
    value = list(_elements(cell.data))[3]
    [number] = struct.unpack(f"<{_NUMBERS.get(value.kind, '?')}", value.data)
    if number != int(number):
        raise ValueError(f"an ILSVRC2012_ID is {number}")
    return int(number)


def _text(cell: _Element) -> str:
    """Return the text in a cell of characters."""
    flags, _, _, value = list(_elements(cell.data))[:4]
    if flags.data[0] != _CHARACTERS or value.kind not in _TEXTS:
        raise ValueError("a WNID is no text")
    return value.data.decode(_TEXTS[value.kind]).rstrip("\0 ")
