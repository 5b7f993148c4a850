"""NumPy arrays inside a pickle, read without importing names.

Two kinds of files have them: data sets, whose arrays of bytes are made at once, and Paddle's
checkpoints, of whose arrays only the places in the file are noted.

An array is pickled as three steps: ``_reconstruct(ndarray, (0,), b"b")`` makes an empty one,
``dtype("u1", ...)`` its type, and a state of ``(version, shape, dtype, is_fortran, bytes)`` fills
it. The same opcodes run here, on `UInt8Array` and `PlacedArray`. Nothing is allocated beyond the
bytes that stand in the pickle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, UnsafeError
from ...system.checks import is_int
from ..dtypes import MAX_DIMENSIONS
from .names import CHECKPOINT
from .vocabulary import Global, Placeholder, Vocabulary

__all__ = ["PlacedArray", "Run", "UInt8Array", "uint8_arrays", "weights"]

NDARRAY = Global("numpy", "ndarray")
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
# NumPy's types of weights -> PyTorch's words; Paddle keeps bfloat16 as uint16
WORDS: Mapping[str, str] = {
    "f8": "Double",
    "f4": "Float",
    "f2": "Half",
    "u2": "BFloat16",
    "i8": "Long",
    "i4": "Int",
    "i2": "Short",
    "i1": "Char",
    "u1": "Byte",
    "b1": "Bool",
}
LONGEST = 1 << 10  # bytes of a text or an array that is kept; of longer ones the place is noted
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
            **{Global(module, "_reconstruct"): _reconstruct for module in MODULES},
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
        found = arguments[0] if arguments else None
        shown = ascii(found)[:40] if type(found) is str else "no name"
        raise FormatError(
            f"an array in the pickle has the type {shown}; images are of unsigned bytes, 'u1'"
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


# -- arrays of weights, whose numbers stay in the file


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of an array: in memory if they are few, else ``count`` in the file from ``start`` on.

    If ``is_text``, they are written as text in UTF-8, a character for each byte.
    """

    start: int
    count: int
    is_text: bool
    data: bytes | None = None


@dataclass(eq=False, slots=True)
class PlacedArray:
    """An array of numbers; without a ``run`` until the pickle has filled it."""

    word: str = ""
    shape: tuple[int, ...] = ()
    is_fortran: bool = False
    run: Run | None = None

    def set_state(self, state: object) -> None:
        """Take ``(version, shape, dtype, is_fortran, bytes)``."""
        if self.run is not None or type(state) is not tuple or len(state) != 5:
            raise UnsafeError(
                "an array in the pickle is filled twice, or with something that is not its five "
                "parts"
            )
        version, shape, dtype, is_fortran, data = state
        if not is_int(version, 1, 1):
            raise FormatError(
                "an array in the pickle has another version than 1, which NumPy writes"
            )
        sides = shape if type(shape) is tuple and len(shape) <= MAX_DIMENSIONS else (-1,)
        if not all(is_int(n, 0, (1 << 62) - 1) for n in sides) or type(is_fortran) is not bool:
            raise FormatError(
                f"an array in the pickle has no shape of up to {MAX_DIMENSIONS} whole numbers"
            )
        if type(dtype) is not PlacedType or not dtype.word:
            return  # Python objects, or numbers that no weights are of
        run = _run(data)
        bytes_ = math.prod(sides) * np.dtype(dtype.name).itemsize
        if run is None or not bytes_ <= run.count <= (2 if run.is_text else 1) * bytes_:
            raise FormatError(
                f"an array in the pickle has not {bytes_:,} bytes for the shape {sides!s:.80}"
            )
        self.word, self.shape, self.is_fortran, self.run = dtype.word, sides, is_fortran, run


@dataclass(eq=False, slots=True)
class PlacedType:
    """NumPy's dtype; ``word`` is PyTorch's word for it, empty if no weights are of it."""

    name: str = ""
    word: str = ""

    def set_state(self, state: object) -> None:
        """Take the state of a plain type: no fields, no subarray, little-endian."""
        if type(state) is not tuple or len(state) < 5:
            raise UnsafeError("a dtype in the pickle has not the parts of a dtype")
        if state[1] not in ("<", "|") or any(part is not None for part in state[2:5]):
            self.word = ""


def _run(data: object) -> Run | None:
    """Return the bytes of an array as they stand in the pickle, None if they are no bytes."""
    if type(data) is str:  # a short string of Python 2
        data = data.encode()
    if type(data) is bytes:
        return Run(0, len(data), False, data)
    if type(data) is _Encoded:
        return data.run
    return data if type(data) is Run and not data.is_text else None


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Stands for a long text that is to become bytes in Latin-1."""

    run: Run


def _encode_any(arguments: tuple) -> object:
    """Return what ``_codecs.encode(text, "latin1")`` means, for long texts too."""
    text = arguments[0] if arguments else None
    if len(arguments) == 2 and arguments[1] == "latin1" and type(text) is Run and text.is_text:
        return _Encoded(text)
    if len(arguments) == 2 and type(text) is str and arguments[1] == "latin1":
        return _encode(arguments)
    return Placeholder(Global("_codecs", "encode"))


def _placed(arguments: tuple) -> PlacedArray | Placeholder:
    """Return what ``_reconstruct(ndarray, (0,), b"b")`` means: an empty array."""
    if arguments[:1] != (NDARRAY,):
        return Placeholder(Global(MODULES[0], "_reconstruct"))
    return PlacedArray()


def _placed_type(arguments: tuple) -> PlacedType:
    """Return what ``dtype("f4", align, copy)`` means."""
    name = arguments[0] if arguments else None
    return PlacedType(name, WORDS[name]) if type(name) is str and name in WORDS else PlacedType()


def _tuple(arguments: tuple) -> tuple | Placeholder:
    """Return what ``tuple(parts)`` means."""
    if len(arguments) != 1 or type(arguments[0]) not in (list, tuple):
        return Placeholder(Global("builtins", "tuple"))
    return tuple(arguments[0])


def _no_bytes(arguments: tuple) -> bytes | Placeholder:
    """Return what ``bytes()`` means: so Python writes none, before protocol 3."""
    return Placeholder(Global("builtins", "bytes")) if arguments else b""


def weights() -> Vocabulary:
    """Return the vocabulary of a pickle whose arrays are `PlacedArray`.

    Like a checkpoint of PyTorch, it may have anything beside them.
    """
    return replace(
        CHECKPOINT,
        calls={
            **CHECKPOINT.calls,
            **{Global(module, "_reconstruct"): _placed for module in MODULES},
            Global("numpy", "dtype"): _placed_type,
            Global("_codecs", "encode"): _encode_any,
            Global("builtins", "bytes"): _no_bytes,
            Global("__builtin__", "bytes"): _no_bytes,
            Global("builtins", "tuple"): _tuple,
            Global("__builtin__", "tuple"): _tuple,
        },
        types={*CHECKPOINT.types, NDARRAY},
        states={
            **CHECKPOINT.states,
            PlacedArray: PlacedArray.set_state,
            PlacedType: PlacedType.set_state,
        },
        longest=LONGEST,
        passed=Run,
    )
