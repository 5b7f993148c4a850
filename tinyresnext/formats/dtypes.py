"""The types of numbers that weights have, under the names that each file format gives them.

This package calls a type by safetensors' name, such as "F32".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

__all__ = ["BY_HDF5", "BY_NUMPY", "BY_TORCH", "FLOATS", "MAX_DIMENSIONS", "NUMBERS", "Number"]

MAX_DIMENSIONS = 8  # of any tensor in a file; the weights of a convolution have four


@dataclass(frozen=True, slots=True)
class Number:
    """One type of number.

    Attributes
    ----------
    name : str
        Safetensors' name.
    dtype : str
        NumPy's type for the bytes as they lie in a file: little-endian, or of one byte.
    torch : str
        The word that PyTorch and Torch7 put before "Storage" and "Tensor"; empty if neither has it.
    hdf5 : bytes
        HDF5's datatype message; empty for types that are not read from HDF5.
    """

    name: str
    dtype: str
    torch: str = ""
    hdf5: bytes = b""

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return np.dtype(self.dtype).itemsize


def _hdf5(size: int, exponent: int) -> bytes:
    """Return HDF5's datatype message of a little-endian IEEE float of ``size`` bytes.

    The sign is the highest bit; below it are the exponent's bits, and below those the mantissa's.
    """
    bits, mantissa, bias = 8 * size, 8 * size - 1 - exponent, (1 << exponent - 1) - 1
    layout = (0x11, 0x20, bits - 1, 0, size, 0, bits, mantissa, exponent, 0, mantissa, bias)
    return struct.pack("<4BIHH4BI4x", *layout)


# HDF5's datatype message of an integer of one byte with a sign.
_HDF5_BYTE = struct.pack("<4BIHH4x", 0x10, 0x08, 0, 0, 1, 0, 8)

NUMBERS = {
    number.name: number
    for number in (
        Number("F64", "<f8", "Double", _hdf5(8, 11)),
        Number("F32", "<f4", "Float", _hdf5(4, 8)),
        Number("F16", "<f2", "Half", _hdf5(2, 5)),
        Number("BF16", "<u2", "BFloat16"),  # the upper half of a float32; NumPy has no such type
        Number("BOOL", "|u1", "Bool"),  # one byte each: 0 or 1
        Number("I64", "<i8", "Long"),
        Number("I32", "<i4", "Int"),
        Number("I16", "<i2", "Short"),
        Number("I8", "|i1", "Char", _HDF5_BYTE),
        Number("U8", "|u1", "Byte"),
        Number("U64", "<u8"),
        Number("U32", "<u4"),
        Number("U16", "<u2"),
    )
}
FLOATS = ("F64", "F32", "F16", "BF16")
BY_TORCH = {number.torch: number for number in NUMBERS.values() if number.torch}
BY_HDF5 = {number.hdf5: number for number in NUMBERS.values() if number.hdf5}
# under the name that an .npy file has
BY_NUMPY = {n.dtype: n for n in NUMBERS.values() if n.name not in ("BF16", "BOOL")}
BY_NUMPY["|b1"] = NUMBERS["BOOL"]
