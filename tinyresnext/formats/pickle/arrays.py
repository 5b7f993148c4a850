"""NumPy arrays of bytes inside a pickle, as data sets are published: what the names mean, again without importing them.

An array is pickled as three steps: ``_reconstruct(ndarray, (0,), b"b")`` makes an empty one,
``dtype("u1", ...)`` its type, and a state of ``(version, shape, dtype, is_fortran, bytes)`` fills
it. The same opcodes run here, on `UInt8Array`. Nothing is allocated beyond the bytes that stand in
the pickle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, UnsafeError
from .names import MAX_DIMENSIONS, Global

__all__ = ["ARRAY_CALLS", "NDARRAY", "UInt8Array", "UInt8Type"]

NDARRAY = Global("numpy", "ndarray")


@dataclass(eq=False, slots=True)
class UInt8Array:
    """An array of uint8; empty until the pickle has filled it."""

    values: NDArray[np.uint8] | None = None

    def set_state(self, state: object) -> None:
        """Take ``(version, shape, dtype, is_fortran, bytes)``."""
        if self.values is not None or type(state) is not tuple or len(state) != 5:
            raise UnsafeError(
                "an array in the pickle is filled twice, or with something that is not its five parts"
            )
        _, shape, dtype, is_fortran, data = state
        if type(data) is str:  # a short string of Python 2
            data = _encode((data, "latin1"))
        if (
            type(dtype) is not UInt8Type
            or type(data) is not bytes
            or type(is_fortran) not in (bool, int)
        ):
            raise UnsafeError(
                "an array in the pickle is not described by the type uint8 and a string of bytes"
            )
        sides = shape if type(shape) is tuple else ()
        if not 1 <= len(sides) <= MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in sides):
            raise FormatError("an array in the pickle has no shape of one to eight whole numbers")
        if math.prod(sides) != len(data):
            raise FormatError(
                f"an array in the pickle has {len(data):,} bytes for the shape {list(sides)!s:.80}"
            )
        self.values = np.frombuffer(data, np.uint8).reshape(sides, order="F" if is_fortran else "C")


@dataclass(eq=False, slots=True)
class UInt8Type:
    """NumPy's dtype of one unsigned byte, the only one there is here."""

    def set_state(self, state: object) -> None:
        """Take the state of a plain type of one byte: no byte order, no fields, no subarray."""
        if (
            type(state) is not tuple
            or len(state) < 5
            or state[1] != "|"
            or any(part is not None for part in state[2:5])
        ):
            raise UnsafeError("a dtype in the pickle is not that of plain unsigned bytes")


def _reconstruct(arguments: tuple) -> UInt8Array:
    """``_reconstruct(ndarray, (0,), b"b")``."""
    if len(arguments) != 3 or arguments[0] != NDARRAY or arguments[1] != (0,):
        raise UnsafeError("numpy's _reconstruct is given something that is not an empty ndarray")
    return UInt8Array()


def _dtype(arguments: tuple) -> UInt8Type:
    """``dtype("u1", align, copy)``."""
    if not arguments or arguments[0] != "u1":
        found = ascii(arguments[0] if arguments else None)[:40]
        raise FormatError(
            f"an array in the pickle has the type {found}; pictures are of unsigned bytes, 'u1'"
        )
    return UInt8Type()


def _encode(arguments: tuple) -> bytes:
    """``_codecs.encode(text, "latin1")``, which is how Python 3 writes bytes for Python 2."""
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] != "latin1":
        raise UnsafeError("_codecs.encode is given something that is not a text for latin1")
    try:
        return arguments[0].encode("latin-1")
    except UnicodeEncodeError:
        raise FormatError(
            "a string of bytes in the pickle contains characters that are not bytes"
        ) from None


ARRAY_CALLS: dict[Global, Callable[[tuple], object]] = {
    Global("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    Global("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    Global("numpy", "dtype"): _dtype,
    Global("_codecs", "encode"): _encode,
}
