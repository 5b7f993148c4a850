"""``.safetensors`` files: a length, a JSON header that says what lies where, and the numbers.

    8 bytes         little-endian length n of the header
    n bytes         {"conv1.weight": {"dtype": "F32", "shape": [64, 3, 7, 7], "data_offsets": [0, 37632]}, ...}
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

import numpy as np

from ...errors import FormatError, UnsafeError
from ...system.files import pieces
from .checkpoint import MAX_DIMENSIONS, TYPES, Check, Checkpoint, Stored, checked_name, finish
from .wrappers import unwrap

__all__ = ["read"]

MAX_HEADER = (
    2 << 20
)  # bytes; the format allows 100 MB, a ResNeXt-101 needs 60 KB, and parsed it can take 25 times as much

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


def read(file: BinaryIO, check: Check | None = None) -> Checkpoint:
    """Read an open file, whatever its position; ``check`` as in `container.opened`.

    Raises
    ------
    FormatError
        Cut short, not such a file, or its parts contradict each other.
    IntegrityError
        A double does not fit into float32.
    UnsafeError
        The header is made to be misread or to fill the memory: too long, too deep, a key twice,
        gaps and overlaps.
    """
    size = os.fstat(file.fileno()).st_size
    header, begin = _header(file, size)
    _check_metadata(header.pop("__metadata__", {}))
    tensors, ranges = {}, []
    for name, entry in header.items():
        kind, shape, first, last = _entry(name, entry)
        ranges.append((first, last, name))
        tensors[name] = Stored(
            kind, shape, prod(shape), partial(pieces, file, begin + first, last - first, name)
        )
    _check_ranges(ranges, size - begin)
    prefix, named, counters = unwrap(tensors)
    return finish(file, named, "safetensors", check, prefix=prefix, skipped=counters)


def _header(file: BinaryIO, size: int) -> tuple[dict[str, object], int]:
    """The parsed header, and where the numbers begin."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise FormatError(
            f"the header should have {length:,} bytes and the file has {size:,}; it is cut short, fetch it again"
        )
    if length > MAX_HEADER:
        raise UnsafeError(
            f"the header has {length:,} bytes; a network's has at most {MAX_HEADER:,}"
        )
    raw = file.read(length)
    if len(raw) != length or not raw.startswith(b"{"):
        raise FormatError("the header is not the JSON object of a safetensors file; fetch it again")
    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"the header is not valid JSON: {str(error)[:80]}; fetch the file again"
        ) from None
    if type(header) is not dict:
        raise FormatError("the header is not a JSON object; fetch the file again")
    return header, 8 + length


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, which must not say the same key twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnsafeError(
            "the header says a key twice, so two programs may read two different files in it; do not use it"
        )
    return found


def _refuse(text: str) -> NoReturn:
    """NaN, Infinity and fractions, of which a header has none."""
    raise FormatError(f"the header has the number {text[:40]}; expected whole numbers only")


def _check_metadata(metadata: object) -> None:
    """Text to text; its meaning is the writer's own."""
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise FormatError("__metadata__ in the header must map text to text; save the file again")


def _entry(name: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, first and last byte of a tensor."""
    shown = checked_name(name)
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{shown} should have dtype, shape and data_offsets; save the file again")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind in _OTHER_TYPES:
        raise FormatError(
            f"{shown} has the type {kind}; quantised and complex weights are not read, save them as F32 or F16"
        )
    if type(kind) is not str or kind not in TYPES:
        raise FormatError(
            f"{shown} has the unknown type {ascii(kind)[:40]}; expected one of {', '.join(TYPES)}"
        )
    for numbers, most in ((shape, MAX_DIMENSIONS), (offsets, 2)):
        if (
            type(numbers) is not list
            or len(numbers) > most
            or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers)
        ):
            raise FormatError(
                f"{shown} has a shape or offsets that are no short lists of whole numbers from 0; save it again"
            )
    if len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * np.dtype(TYPES[kind]).itemsize:
        raise FormatError(
            f"{shown} of type {kind} and shape {shape!s:.80} does not fill the bytes {offsets!s:.80}"
        )
    return kind, tuple(shape), *offsets


def _check_ranges(ranges: list[tuple[int, int, str]], size: int) -> None:
    """Every byte behind the header belongs to exactly one tensor."""
    expected = 0
    for first, last, name in sorted(ranges):
        if last > size:
            raise FormatError(
                f"{name} ends at byte {last:,} of {size:,}; the file is cut short, fetch it again"
            )
        if first != expected:
            raise UnsafeError(
                f"{name} begins at byte {first:,} and not at {expected:,}, where the one before it ends"
            )
        expected = last
    if expected != size:
        raise UnsafeError(
            f"{size - expected:,} bytes of the file belong to no tensor; do not use it"
        )
