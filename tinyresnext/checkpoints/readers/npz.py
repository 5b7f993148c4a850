"""NumPy's ``.npz``: a zip archive with one ``.npy`` for each array, stored or deflated."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from ...formats.dtypes import BY_NUMPY
from ...formats.npy import numbers, read_array, read_header
from ...formats.others import RUN_STATE
from ...formats.stored_zip.reader import Member, read_members
from ..names.prefixes import unwrap
from .checkpoint import CARRIED_NAME, MAX_CARRIED, Listed, Stored, checked_name

__all__ = ["listed"]


def listed(file: BinaryIO) -> Listed:
    """List the tensors of an open file, at any position.

    Raises
    ------
    FormatError
        Cut short, not such a file, arrays of a type that weights do not have, or its parts
        contradict each other.
    IntegrityError
        The CRC of a member that is read here differs.
    UnsafeError
        Made to be misread or to fill the memory, or an array of Python objects, which are never
        loaded.
    """
    tensors, carried = {}, b""
    for name, member in read_members(file, deflated=True).items():
        if not name.endswith(".npy"):
            raise FormatError(
                f"the archive holds {ascii(name)[:80]}, which is no .npy; expected NumPy arrays"
            )
        if name == f"{CARRIED_NAME}.npy":
            carried = _carried(file, member)
            continue
        key = checked_name(name.removesuffix(".npy"))
        tensors[key] = _stored(file, member, key)
    if {"meta", "values", "velocity"} <= tensors.keys():
        raise FormatError(f"no checkpoint, but {RUN_STATE}")
    prefix, named, counters = unwrap(tensors)
    return Listed(named, "npz", prefix=prefix, skipped=counters, carried=carried)


def _carried(file: BinaryIO, member: Member) -> bytes:
    """Return what tinyresnext wrote, which is an array of bytes."""
    if member.size > MAX_CARRIED + 4096:
        raise UnsafeError(
            f"{CARRIED_NAME} has {member.size:,} bytes; at most {MAX_CARRIED:,} were expected"
        )
    array = read_array(file, member, CARRIED_NAME)
    if array.dtype != "u1" or array.ndim != 1:
        raise FormatError(
            f"{CARRIED_NAME} is {array.dtype} {array.shape}; expected a row of bytes (uint8)"
        )
    return array.tobytes()


def _stored(file: BinaryIO, member: Member, name: str) -> Stored:
    """Return where the numbers of one ``.npy`` are."""
    header = read_header(file, member, name)
    if header.descr not in BY_NUMPY:
        raise FormatError(
            f"{name} has NumPy's type {header.descr}; expected little-endian floats (<f2, <f4, "
            "<f8), integers or bool"
        )
    kind, shape = BY_NUMPY[header.descr], header.shape
    fortran = tuple(prod(shape[:axis]) for axis in range(len(shape)))
    read_numbers = partial(numbers, file, member, header.begin)
    return Stored(kind, shape, prod(shape), read_numbers, fortran if header.fortran_order else None)
