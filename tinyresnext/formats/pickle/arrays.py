"""NumPy arrays of bytes inside a pickle, as data sets are published, read without importing names.

An array is pickled as three steps: ``_reconstruct(ndarray, (0,), b"b")`` makes an empty one,
``dtype("u1", ...)`` its type, and a state of ``(version, shape, dtype, is_fortran, bytes)`` fills
it. The same opcodes run here, on `UInt8Array`. Nothing is allocated beyond the bytes that stand in
the pickle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, UnsafeError
from ...system.checks import is_int
from ..dtypes import MAX_DIMENSIONS
from .vocabulary import Global, Vocabulary

__all__ = ["UInt8Array", "uint8_arrays"]

NDARRAY = Global("numpy", "ndarray")
MORE_MEMORY = 64 << 20  # bytes of what is no array
SHORT = 256  # bytes: what Python 2 pickled as a shorter string is a name, as a longer one is pixels


@dataclass(eq=False, slots=True)
class UInt8Array:
    """An array of uint8; empty until the pickle has filled it."""

    values: NDArray[np.uint8] | None = None

    def set_state(self, state: object) -> None:
        """Take ``(version, shape, dtype, is_fortran, bytes)``."""
        if self.values is not None or type(state) is not tuple or len(state) != 5:
            raise UnsafeError(
                "an array in the pickle is filled twice, or with something that is not its five "
                "parts"
            )
        _, shape, dtype, is_fortran, data = state
        if type(data) is str:  # a short string of Python 2
            data = _encode((data, "latin1"))
        described = type(dtype) is UInt8Type and type(is_fortran) in (bool, int)
        if not described or type(data) is not bytes:
            raise UnsafeError(
                "an array in the pickle is not described by the type uint8 and a string of bytes"
            )
        sides = shape if type(shape) is tuple else ()
        if not 1 <= len(sides) <= MAX_DIMENSIONS or not all(is_int(n, 0) for n in sides):
            raise FormatError("an array in the pickle has no shape of one to eight whole numbers")
        if math.prod(sides) != len(data):
            raise FormatError(
                f"an array in the pickle has {len(data):,} bytes for the shape {list(sides)!s:.80}"
            )
        self.values = np.frombuffer(data, np.uint8).reshape(sides, order="F" if is_fortran else "C")


@dataclass(eq=False, slots=True)
class UInt8Type:
    """NumPy's dtype of one unsigned byte, the only one that is read here."""

    def set_state(self, state: object) -> None:
        """Take the state of a plain type of one byte: no byte order, no fields, no subarray."""
        if (
            type(state) is not tuple
            or len(state) < 5
            or state[1] != "|"
            or any(part is not None for part in state[2:5])
        ):
            raise UnsafeError("a dtype in the pickle is not that of plain unsigned bytes")


def uint8_arrays(most_text: int) -> Vocabulary:
    """Return the vocabulary of a pickle that holds arrays of uint8.

    A string of Python 2 becomes text in Latin-1 if it is shorter than 256 bytes, and bytes
    otherwise.

    Parameters
    ----------
    most_text : int
        Bytes that a string may have, the arrays' bytes included; all together may have 64 MiB
        more.
    """
    return Vocabulary(
        calls={
            Global("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            Global("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            Global("numpy", "dtype"): _dtype,
            Global("_codecs", "encode"): _encode,
        },
        types={NDARRAY},
        is_inert=lambda name: False,
        states={UInt8Array: UInt8Array.set_state, UInt8Type: UInt8Type.set_state},
        old_string=lambda data: data.decode("latin-1") if len(data) < SHORT else data,
        longest=most_text,
        most_memory=most_text + MORE_MEMORY,
        refusal="no data set needs and which was neither imported nor run",
    )


def _reconstruct(arguments: tuple) -> UInt8Array:
    """Return what ``_reconstruct(ndarray, (0,), b"b")`` means: an empty array."""
    if len(arguments) != 3 or arguments[0] != NDARRAY or arguments[1] != (0,):
        raise UnsafeError("the arguments of numpy's _reconstruct are not those of an empty ndarray")
    return UInt8Array()


def _dtype(arguments: tuple) -> UInt8Type:
    """Return what ``dtype("u1", align, copy)`` means."""
    if not arguments or arguments[0] != "u1":
        found = ascii(arguments[0] if arguments else None)[:40]
        raise FormatError(
            f"an array in the pickle has the type {found}; images are of unsigned bytes, 'u1'"
        )
    return UInt8Type()


def _encode(arguments: tuple) -> bytes:
    """Return what ``_codecs.encode(text, "latin1")`` means: so Python 3 writes bytes."""
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] != "latin1":
        raise UnsafeError("the arguments of _codecs.encode are not a text and latin1")
    try:
        return arguments[0].encode("latin-1")
    except UnicodeEncodeError:
        raise FormatError(
            "a string of bytes in the pickle contains characters that are not bytes"
        ) from None
