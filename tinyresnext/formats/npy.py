"""NumPy's ``.npy`` files and their archive ``.npz``, read strictly.

An ``.npy`` begins with a Python literal, such as ``{'descr': '<f4', 'fortran_order': False,
'shape': (64, 3, 7, 7), }``. NumPy evaluates it, and may find that the array is one of Python
objects, which is a pickle. Here the literal is matched against the one form that NumPy writes, and
everything else is refused.

A deflated member can stand for a thousand times its size. So a member is unpacked piece by piece,
never further than its header says; the caller limits how much all members hold together.

Source: NumPy Enhancement Proposal 1, A Simple File Format for NumPy Arrays.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, UnsafeError
from ..system.writing import replacing
from .dtypes import MAX_DIMENSIONS
from .stored_zip.reader import Member, check_crc, unpacked

__all__ = ["Header", "header_bytes", "numbers", "read_array", "read_header", "write_npz"]

_LARGE = 16 << 20  # bytes
MAX_HEADER = 1 << 12  # bytes of the literal; NumPy's own have 118, padding included

_LITERAL = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,8})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18},? ?)*)\), \} *\n"
)
_NUMBER = re.compile(r"[<>|=]?[biuf]\d{1,2}", re.ASCII)  # a truth value, an integer or a float


class Header(NamedTuple):
    """What an ``.npy`` says of its array; ``begin`` is the number of bytes before its numbers."""

    descr: str
    fortran_order: bool
    shape: tuple[int, ...]
    begin: int


def header_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return the bytes that NumPy writes before the numbers of an array in C order."""
    file = BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def read_header(file: BinaryIO, member: Member, name: str) -> Header:
    """Read the header of an ``.npy`` in an archive.

    Parameters
    ----------
    file : binary file
        The archive.
    member : Member
        As `stored_zip.reader.read_members` finds it.
    name : str
        Of the array, for messages.

    Raises
    ------
    FormatError
        Not an ``.npy`` of numbers as NumPy writes it, or not as long as its header says.
    UnsafeError
        An array of Python objects, or a header that is too long.
    """
    head = bytearray()
    for piece in unpacked(file, member, 12 + MAX_HEADER):
        head += piece
        if len(head) >= 12 + MAX_HEADER:
            break
    wide = head[6:8] != b"\x01\x00"  # version 1 has two bytes for the length, 2 and 3 have four
    begin = 12 if wide else 10
    version = bytes(head[6:8])
    known = head[:6] == b"\x93NUMPY" and version in (b"\1\0", b"\2\0", b"\3\0")
    if not known or len(head) < begin:
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
            f"the header of {name} is not as NumPy writes it for plain arrays; save it again with "
            "numpy.savez"
        )
    found = Header(
        literal[1].decode(), literal[2] == b"True", _shape(literal[3], name), begin + length
    )
    size = found.begin + prod(found.shape) * _dtype(found.descr, name).itemsize
    if size != member.size:
        raise FormatError(
            f"{name} has {member.size:,} bytes; its header says {size:,}; "
            "download or copy the file again"
        )
    return found


def numbers(file: BinaryIO, member: Member, begin: int) -> Iterator[memoryview]:
    """Yield what follows the header, in pieces of whole numbers; the CRC is checked at the end.

    Raises
    ------
    FormatError
        The member is cut short or cannot be unpacked.
    IntegrityError
        The CRC differs.
    UnsafeError
        The member continues beyond the length that the archive states.
    """
    crc, rest, skip = 0, b"", begin
    for piece in unpacked(file, member, member.size):
        crc = zlib.crc32(piece, crc)
        if skip >= len(piece):
            skip -= len(piece)
            continue
        data = rest + bytes(piece[skip:])
        skip, whole = 0, len(data) & ~7
        rest = data[whole:]
        yield memoryview(data)[:whole]
    check_crc(member, crc)
    if rest:
        yield memoryview(rest)


def read_array(file: BinaryIO, member: Member, name: str) -> NDArray[Any]:
    """Read a whole array, which may be written to. Parameters and errors as in `read_header`.

    A large member that is compressed is unpacked twice: first to check it, within little memory.

    Raises
    ------
    IntegrityError
        Also if the CRC differs.
    """
    header = read_header(file, member, name)
    if member.deflated and member.size > _LARGE:
        for _ in numbers(file, member, header.begin):
            pass
    array, done = np.empty(prod(header.shape), _dtype(header.descr, name)), 0
    data = array.view(np.uint8)
    for piece in numbers(file, member, header.begin):
        data[done : done + len(piece)] = piece
        done += len(piece)
    return array.reshape(header.shape, order="F" if header.fortran_order else "C")


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to an ``.npz``; a file of this name is replaced once the new one is whole.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no name is one of its own arguments


def _dtype(descr: str, name: str) -> np.dtype:
    """Return the type of that name, which must be one of plain numbers."""
    if "O" in descr:
        raise UnsafeError(
            f"{name} is an array of Python objects, which is a program; save arrays of numbers"
        )
    try:
        if _NUMBER.fullmatch(descr):
            return np.dtype(descr)
    except TypeError:  # such as a float of three bytes
        pass
    raise FormatError(f"{name} has NumPy's type {descr}; expected numbers or truth values")


def _shape(text: bytes, name: str) -> tuple[int, ...]:
    """Return the shape that is written as ``64, 3, 7, 7`` or ``64,`` or nothing."""
    sides = tuple(int(n) for n in re.findall(rb"\d+", text))
    written = f"{sides[0]}," if len(sides) == 1 else ", ".join(map(str, sides))
    if written.encode() != bytes(text) or len(sides) > MAX_DIMENSIONS:
        raise FormatError(
            f"the shape of {name} is not as NumPy writes one of up to {MAX_DIMENSIONS} sides; "
            "save it again"
        )
    return sides
