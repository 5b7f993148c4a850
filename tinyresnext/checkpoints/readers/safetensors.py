"""``.safetensors`` files: a length, a JSON header that says what lies where, and the numbers.

::

    8 bytes         little-endian length n of the header
    n bytes         {"fc.bias": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}, ...}
    all the rest    the numbers; offsets count from here

The format has no program in it and no checksum. Its rules leave a file one meaning: no key twice,
and the numbers of all tensors lie without gap or overlap from the first byte behind the header to
the last of the file.

Source: the format's description and validation rules, https://github.com/huggingface/safetensors
(Format).
"""

from __future__ import annotations

import json
import os
from functools import partial
from math import prod
from typing import BinaryIO, NoReturn

from ...errors import FormatError, UnsafeError
from ...formats.dtypes import MAX_DIMENSIONS, NUMBERS, Number
from ...system.checks import is_int
from ...system.files import pieces
from ..names.prefixes import unwrap
from .checkpoint import CARRIED_KEY, MAX_CARRIED, Listed, Stored, checked_name

__all__ = ["json_object", "listed"]

# bytes; the format allows 100 MB, a ResNeXt-101 needs 60 KB, and parsed it can take 25 times as
# much
MAX_HEADER = 2 << 20

_OTHER_TYPES = (
    "C64",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F6_E2M3",
    "F6_E3M2",
    "F4",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
)


def listed(file: BinaryIO) -> Listed:
    """List the tensors of an open file, at any position.

    Raises
    ------
    FormatError
        Cut short, not such a file, or its parts contradict each other.
    UnsafeError
        The header is made to be misread or to fill the memory: too long, too deep, a key twice,
        gaps and overlaps.
    """
    size = os.fstat(file.fileno()).st_size
    header, begin = _header(file, size)
    carried = _carried(header.pop("__metadata__", {}))
    tensors, ranges = {}, []
    for name, entry in header.items():
        kind, shape, first, last = _entry(name, entry)
        ranges.append((first, last, name))
        read_numbers = partial(pieces, file, begin + first, last - first, name)
        tensors[name] = Stored(kind, shape, prod(shape), read_numbers)
    _check_ranges(ranges, size - begin)
    prefix, named, counters = unwrap(tensors)
    return Listed(named, "safetensors", prefix=prefix, skipped=counters, carried=carried)


def _header(file: BinaryIO, size: int) -> tuple[dict[str, object], int]:
    """Return the parsed header, and the byte at which the numbers begin."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise FormatError(
            f"the header should have {length:,} bytes and the file has {size:,}; it is cut short, "
            "fetch it again"
        )
    if length > MAX_HEADER:
        raise UnsafeError(
            f"the header has {length:,} bytes; a network's has at most {MAX_HEADER:,}"
        )
    raw = file.read(length)
    if len(raw) != length or not raw.startswith(b"{"):
        raise FormatError("the header is not the JSON object of a safetensors file; fetch it again")
    return json_object(raw, "the header"), 8 + length


def json_object(raw: bytes, what: str) -> dict[str, object]:
    """Return a JSON object without a key twice and without any number that is not whole.

    Raises
    ------
    FormatError, UnsafeError
        It is none; ``what`` is its name in the message.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise UnsafeError(
                f"{what} has a key twice, so two programs may read two different files in it; do "
                "not use it"
            )
        return found

    def refuse(text: str) -> NoReturn:
        raise FormatError(f"{what} has the number {text[:40]}; expected whole numbers only")

    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique,
            parse_constant=refuse,
            parse_float=refuse,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{what} is not valid JSON: {str(error)[:80]}; fetch the file again"
        ) from None
    if type(found) is not dict:
        raise FormatError(f"{what} is not a JSON object; fetch the file again")
    return found


def _carried(metadata: object) -> bytes:
    """Return what tinyresnext wrote into the metadata, whose other entries are not used.

    Raise `FormatError` if the metadata do not map text to text.
    """
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise FormatError("__metadata__ in the header must map text to text; save the file again")
    carried = metadata.get(CARRIED_KEY, "").encode("utf-8", "surrogatepass")
    if len(carried) > MAX_CARRIED:
        raise UnsafeError(
            f"{CARRIED_KEY} in __metadata__ has {len(carried):,} bytes; at most {MAX_CARRIED:,} "
            "were expected"
        )
    return carried


def _entry(name: str, entry: object) -> tuple[Number, tuple[int, ...], int, int]:
    """Return type, shape, first byte and end of a tensor."""
    shown = checked_name(name)
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{shown} should have dtype, shape and data_offsets; save the file again")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind in _OTHER_TYPES:
        raise FormatError(
            f"{shown} has the type {kind}; quantised and complex weights are not read, save them "
            "as F32 or F16"
        )
    if type(kind) is not str or kind not in NUMBERS:
        raise FormatError(
            f"{shown} has the unknown type {ascii(kind)[:40]}; expected one of {', '.join(NUMBERS)}"
        )
    for numbers, most in ((shape, MAX_DIMENSIONS), (offsets, 2)):
        short = type(numbers) is list and len(numbers) <= most
        if not short or not all(is_int(n, 0, (1 << 63) - 1) for n in numbers):
            raise FormatError(
                f"{shown} has a shape or offsets that are not short lists of whole numbers from 0; "
                "save it again"
            )
    size = prod(shape) * NUMBERS[kind].itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise FormatError(
            f"{shown} of type {kind} and shape {shape!s:.80} does not fill the bytes "
            f"{offsets!s:.80}"
        )
    return NUMBERS[kind], tuple(shape), *offsets


def _check_ranges(ranges: list[tuple[int, int, str]], size: int) -> None:
    """Raise unless every byte behind the header belongs to exactly one tensor."""
    expected = 0
    for first, last, name in sorted(ranges):
        if last > size:
            raise FormatError(
                f"{name} ends at byte {last:,} of {size:,}; the file is cut short, fetch it again"
            )
        if first != expected:
            raise UnsafeError(
                f"{name} begins at byte {first:,} and not at {expected:,}, where the one before it "
                "ends"
            )
        expected = last
    if expected != size:
        raise UnsafeError(
            f"{size - expected:,} bytes of the file belong to no tensor; do not use it"
        )
