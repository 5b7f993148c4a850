"""NumPy's ``.npz``: a zip archive with one ``.npy`` for each array, stored or deflated.

An ``.npy`` begins with a Python literal, such as ``{'descr': '<f4', 'fortran_order': False,
'shape': (64, 3, 7, 7), }``. NumPy evaluates it, and may find that the array is one of Python
objects, which is a pickle. Here the literal is matched against the one form that NumPy writes, and
everything else is refused.

A deflated member can stand for a thousand times its size. So a member is unpacked piece by piece,
never further than its header says, and all tensors together may be no more than four times the
file.

Source: NumPy Enhancement Proposal 1, A Simple File Format for NumPy Arrays; APPNOTE.TXT for the
archive.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from functools import partial
from math import prod
from typing import BinaryIO

import numpy as np

from ...errors import FormatError, IntegrityError, UnsafeError
from ...formats.stored_zip import Member, read_members
from ...system.files import PIECE, pieces
from .checkpoint import MAX_DIMENSIONS, TYPES, Check, Checkpoint, Stored, checked_name, finish
from .wrappers import unwrap

__all__ = ["read"]

MAX_HEADER = 1 << 12  # bytes of the literal; NumPy's own are 118, padded

_LITERAL = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,8})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,18},? ?)*)\), \} *\n"
)
_KINDS = {
    np.dtype(form).str: kind for kind, form in TYPES.items() if kind not in ("BF16", "BOOL")
} | {"|b1": "BOOL"}


def read(file: BinaryIO, check: Check | None = None) -> Checkpoint:
    """Read an open file, whatever its position; ``check`` as in `container.opened`.

    Raises
    ------
    FormatError
        Cut short, not such a file, arrays of a type that weights do not have, or its parts
        contradict each other.
    IntegrityError
        A member's CRC differs, or a double does not fit into float32.
    UnsafeError
        Made to be misread or to fill the memory, or an array of Python objects, which are never
        loaded.
    """
    tensors = {}
    for name, member in read_members(file, deflated=True).items():
        if not name.endswith(".npy"):
            raise FormatError(
                f"the archive holds {ascii(name)[:80]}, which is no .npy; expected NumPy arrays only"
            )
        key = checked_name(name.removesuffix(".npy"))
        tensors[key] = _stored(file, member, key)
    prefix, named, counters = unwrap(tensors)
    return finish(file, named, "npz", check, prefix=prefix, skipped=counters)


def _stored(file: BinaryIO, member: Member, name: str) -> Stored:
    """Understand the header of one ``.npy``."""
    head = bytearray()
    for piece in _unpacked(file, member, 12 + MAX_HEADER):
        head += piece
        if len(head) >= 12 + MAX_HEADER:
            break
    wide = head[6:8] != b"\x01\x00"  # version 1 has two bytes for the length, 2 and 3 have four
    begin = 12 if wide else 10
    if (
        head[:6] != b"\x93NUMPY"
        or bytes(head[6:8]) not in (b"\1\0", b"\2\0", b"\3\0")
        or len(head) < begin
    ):
        raise FormatError(
            f"{name} is not an .npy of version 1, 2 or 3; save the arrays again with numpy.savez"
        )
    length = int.from_bytes(head[8:begin], "little")
    if length > MAX_HEADER:
        raise UnsafeError(
            f"the header of {name} has {length:,} bytes; NumPy's have fewer than {MAX_HEADER:,}"
        )
    literal = _LITERAL.fullmatch(head[begin : begin + length])
    if literal is None:
        raise FormatError(
            f"the header of {name} is not as NumPy writes it for plain arrays; save it again with numpy.savez"
        )
    descr, order, shape = literal[1].decode(), literal[2] == b"True", _shape(literal[3], name)
    if "O" in descr:
        raise UnsafeError(
            f"{name} is an array of Python objects, which is a program; save arrays of numbers"
        )
    if descr not in _KINDS:
        raise FormatError(
            f"{name} has NumPy's type {descr}; expected little-endian floats (<f2, <f4, <f8), integers or bool"
        )
    kind, numel = _KINDS[descr], prod(shape)
    size = begin + length + numel * np.dtype(TYPES[kind]).itemsize
    if size != member.size:
        raise FormatError(
            f"{name} has {member.size:,} bytes; its header says {size:,}; fetch the file again"
        )
    stride = tuple(prod(shape[:axis]) for axis in range(len(shape))) if order else None
    return Stored(kind, shape, numel, partial(_numbers, file, member, begin + length), stride)


def _shape(text: bytes, name: str) -> tuple[int, ...]:
    """``64, 3, 7, 7`` or ``64,`` or nothing."""
    sides = tuple(int(n) for n in re.findall(rb"\d+", text))
    written = f"{sides[0]}," if len(sides) == 1 else ", ".join(map(str, sides))
    if written.encode() != bytes(text) or len(sides) > MAX_DIMENSIONS:
        raise FormatError(
            f"the shape of {name} is not as NumPy writes one of up to {MAX_DIMENSIONS} sides; save it again"
        )
    return sides


def _numbers(file: BinaryIO, member: Member, begin: int) -> Iterator[memoryview]:
    """What follows the header, in pieces of whole numbers; the CRC is checked at the end.

    Raises
    ------
    IntegrityError
        The CRC differs.
    """
    crc, rest, skip = 0, b"", begin
    for piece in _unpacked(file, member, member.size):
        crc = zlib.crc32(piece, crc)
        if skip >= len(piece):
            skip -= len(piece)
            continue
        data = rest + bytes(piece[skip:])
        skip, whole = 0, len(data) & ~7
        rest = data[whole:]
        yield memoryview(data)[:whole]
    if crc != member.crc:
        raise IntegrityError(
            f"{member.name} is damaged: its CRC-32 is not the one stored with it; fetch the file again"
        )
    if rest:
        yield memoryview(rest)


def _unpacked(file: BinaryIO, member: Member, most: int) -> Iterator[bytes | memoryview]:
    """A member's bytes in pieces, where at most the first ``most`` are wanted."""
    if member.deflated:
        return _inflated(file, member, min(most, PIECE))
    return pieces(file, member.start, min(member.size, most), member.name)


def _inflated(file: BinaryIO, member: Member, limit: int) -> Iterator[bytes]:
    """A compressed member's bytes, in pieces of ``limit`` at most.

    Raises
    ------
    FormatError
        The deflated data are damaged, or are not as long as the directory says.
    """
    unpack, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for packed in pieces(file, member.start, member.packed, member.name):
        data, full = bytes(packed), True
        while data or full:  # zlib may hold more although it has taken all that it was given
            if unpack.eof:
                break
            try:
                out = unpack.decompress(data, limit)
            except zlib.error as error:
                raise FormatError(
                    f"{member.name} cannot be unpacked ({error}); fetch the file again"
                ) from None
            data, full, total = unpack.unconsumed_tail, len(out) == limit, total + len(out)
            if total > member.size:
                break
            yield out
        if data or unpack.unused_data or total > member.size:
            raise UnsafeError(
                f"{member.name} goes on behind the {member.size:,} bytes that the directory counts"
            )
    if not unpack.eof or total != member.size:
        raise FormatError(
            f"{member.name} unpacks to {total:,} bytes; the directory says {member.size:,}; fetch the file again"
        )
