"""NumPy's ``.npz``: a zip archive with one ``.npy`` for each array, stored or deflated."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import BinaryIO

from ...errors import FormatError
from ...formats.dtypes import BY_NUMPY
from ...formats.npy import numbers, read_header
from ...formats.stored_zip.reader import Member, read_members
from .checkpoint import Check, Checkpoint, Stored, checked_name
from .examine import finish
from .wrappers import unwrap

__all__ = ["read"]


def read(file: BinaryIO, check: Check | None = None) -> Checkpoint:
    """Read an open file, at any position; ``check`` as in `container.opened`.

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
                f"the archive holds {ascii(name)[:80]}, which is no .npy; expected NumPy arrays"
            )
        key = checked_name(name.removesuffix(".npy"))
        tensors[key] = _stored(file, member, key)
    prefix, named, counters = unwrap(tensors)
    return finish(file, named, "npz", check, prefix=prefix, skipped=counters)


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
