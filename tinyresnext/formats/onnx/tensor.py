"""A TensorProto: its name, its shape, and where its numbers lie, in any of the ways that ONNX has.

::

    1 dims    2 data_type    8 name    9 raw_data: all numbers as little-endian bytes
    4 float_data, 5 int32_data, 7 int64_data, 10 double_data: typed; half numbers lie in int32_data
    14 data_location (1: in another file)    13 external_data: pairs of texts, which say where

Source: onnx.proto of https://github.com/onnx/onnx
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

import numpy as np

from ...errors import FormatError, UnsafeError
from ...system.files import PIECE, pieces
from ..dtypes import MAX_DIMENSIONS, NUMBERS, Number
from .wire import BYTES, EIGHT, FOUR, VARINT, Field, Source

__all__ = ["DATA_TYPES", "Tensor", "integers", "read_tensor", "stored_pieces", "type_name"]

MOST_NAME = 1024  # bytes
MOST_INTEGERS = 64  # in a constant that is a shape or a list of axes
MOST_NUMBERS = 1 << 40
# by the number of the data type: our name, and the field that holds such numbers one by one
DATA_TYPES = {1: "F32", 6: "I32", 7: "I64", 10: "F16", 11: "F64", 16: "BF16"}
_FIELDS = {"F32": 4, "I32": 5, "F16": 5, "BF16": 5, "I64": 7, "F64": 10}
_OTHERS = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 8: "string", 9: "bool", 12: "uint32"}
_OTHERS |= {13: "uint64", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 19: "float8e5m2"}
_OTHERS |= {21: "uint4", 22: "int4", 23: "float4e2m1"}
_RAW, _TYPED = 9, (4, 5, 6, 7, 10, 11)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes
    ----------
    name : str
    type : int
        The number of its data type.
    shape : tuple of int
    message : (int, int)
        The range of the file that the TensorProto has.
    field : int
        That which holds the numbers; 0 if they lie in another file.
    external : dict of str to str
        Where they lie then.
    """

    name: str
    type: int
    shape: tuple[int, ...]
    message: tuple[int, int]
    field: int
    external: dict[str, str]

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def kind(self) -> Number:
        """The type of its numbers; raises `FormatError` if such are not read."""
        if self.type not in DATA_TYPES:
            raise FormatError(
                f"{self.name!a:.80} has numbers of type {type_name(self.type)}; expected float32, "
                "float16, bfloat16 or double; quantised weights are not read"
            )
        return NUMBERS[DATA_TYPES[self.type]]


def type_name(number: int) -> str:
    """Return the name of a data type."""
    return DATA_TYPES.get(number) or _OTHERS.get(number, f"{number}, which is unknown")


def read_tensor(source: Source, start: int, end: int) -> Tensor:
    """Read a TensorProto in a range of the file, without its numbers.

    Raises
    ------
    FormatError, UnsafeError
        It contradicts itself, or is made to exhaust memory.
    """
    name, kind, dims, external = "", 0, [], dict[str, str]()
    sizes: dict[int, int] = {}
    elsewhere = False
    for one in source.fields(start, end):
        if one.number == 1:
            dims += source.numbers(one, MAX_DIMENSIONS + 1, "the dimensions of a tensor")
            if len(dims) > MAX_DIMENSIONS:
                raise UnsafeError(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
        elif one.number == 2:
            kind = one.value
        elif one.number == 8:
            name = source.text(one, MOST_NAME, "the name of a tensor")
        elif one.number == 13:
            key, value = _pair(source, one)
            if key in external:
                raise FormatError(f"{name!a:.80} says twice where its numbers lie")
            external[key] = value
        elif one.number == 14:
            elsewhere = one.value == 1
        elif one.number == 3:
            raise FormatError(f"{name!a:.80} is a segment of a tensor; save the model again")
        elif one.number == _RAW or one.number in _TYPED:
            if one.number == _RAW and _RAW in sizes:
                raise FormatError(f"{name!a:.80} has its numbers twice; save the model again")
            sizes[one.number] = sizes.get(one.number, 0) + one.size
    if any(n < 0 for n in dims) or prod(dims) > MOST_NUMBERS:
        raise FormatError(f"{name!a:.80} has the shape {dims}; no tensor has this")
    tensor = Tensor(name, kind, tuple(dims), (start, end), next(iter(sizes), 0), external)
    _judge(tensor, sizes, elsewhere)
    return tensor


def _pair(source: Source, entry: Field) -> tuple[str, str]:
    """Return a StringStringEntryProto: a key and a value."""
    pair = {1: "", 2: ""}
    for one in source.message(entry, "an entry of external_data"):
        if one.number in pair:
            pair[one.number] = source.text(one, 4096, "an entry of external_data")
    return pair[1], pair[2]


def _judge(tensor: Tensor, sizes: dict[int, int], elsewhere: bool) -> None:
    """Raise `FormatError` unless the numbers lie in one place and are as many as the shape says."""
    shown = f"{tensor.name!a:.80}"
    if bool(tensor.external) != elsewhere or (
        elsewhere and (sizes or "location" not in tensor.external)
    ):
        raise FormatError(f"{shown} has numbers here and elsewhere, or does not say where")
    if len(sizes) > 1:
        raise FormatError(f"{shown} has its numbers in two fields; save the model again")
    if elsewhere or tensor.type not in DATA_TYPES:
        return
    if not sizes and tensor.numel:
        raise FormatError(f"{shown} has no numbers; the weights may be missing, fetch it again")
    name = DATA_TYPES[tensor.type]
    if sizes and tensor.field not in (_RAW, _FIELDS[name]):
        raise FormatError(f"{shown} of type {name} has numbers of another type; save it again")
    expected = tensor.numel * NUMBERS[name].itemsize
    if tensor.field == _RAW and sizes[_RAW] != expected:
        raise FormatError(
            f"{shown} of type {name} and shape {tensor.shape} has {sizes[_RAW]:,} bytes; expected "
            f"{expected:,}"
        )


def stored_pieces(source: Source, tensor: Tensor) -> Iterator[memoryview]:
    """Yield the numbers of a tensor in this file as bytes of its `kind`, whole numbers in each.

    Raises
    ------
    FormatError
        They are not numbers of its type.
    """
    what, alone = f"{tensor.name!a:.80}", list[Field]()
    for one in _runs(source, tensor, what):
        if one.wire != BYTES:
            alone.append(one)
            if len(alone) == PIECE // 8:
                yield _gathered(source, tensor, alone, what)
                alone = []
            continue
        if alone:
            yield _gathered(source, tensor, alone, what)
            alone = []
        if tensor.field in (5, 7):
            yield from _varints(source.file, one, tensor.kind, what)
        else:
            if one.size % tensor.kind.itemsize:
                raise FormatError(f"{what} has a part of a number; fetch the file again")
            yield from pieces(source.file, one.start, one.size, what)
    if alone:
        yield _gathered(source, tensor, alone, what)


def _gathered(source: Source, tensor: Tensor, alone: list[Field], what: str) -> memoryview:
    """Return numbers that lie in a field each."""
    if tensor.field in (5, 7):
        values = np.array([one.value for one in alone], np.uint64)
        return _narrowed(values, tensor.kind, what)
    return memoryview(b"".join(source.raw(one, 8, what) for one in alone))


def _runs(source: Source, tensor: Tensor, what: str) -> Iterator[Field]:
    """Yield the fields that hold a tensor's numbers, packed or one by one."""
    wires = {4: (BYTES, FOUR), 10: (BYTES, EIGHT), _RAW: (BYTES,)}.get(
        tensor.field, (BYTES, VARINT)
    )
    for one in source.fields(*tensor.message):
        if one.number == tensor.field:
            if one.wire not in wires:
                raise FormatError(f"{what} has numbers of another wire type; fetch it again")
            yield one


def _varints(file: BinaryIO, run: Field, kind: Number, what: str) -> Iterator[memoryview]:
    """Yield whole numbers that lie as varints, packed, as bytes of a type.

    The bytes below 128 end a number each. Half numbers are the lower 16 bits.
    """
    rest = b""
    for piece in pieces(file, run.start, run.size, what):
        raw = np.frombuffer(rest + bytes(piece), np.uint8)
        ends = np.flatnonzero(raw < 128) + 1
        rest = raw[ends[-1] if len(ends) else 0 :].tobytes()
        lengths = np.diff(ends, prepend=0)
        if len(rest) >= 10 or lengths.max(initial=0) > 10:
            break
        values = np.zeros(len(ends), np.uint64)
        for index in range(lengths.max(initial=0)):
            has = lengths > index
            byte = raw[(ends - lengths + index)[has]] & np.uint8(127)
            values[has] |= byte.astype(np.uint64) << np.uint64(7 * index)
        if len(values):
            yield _narrowed(values, kind, what)
    if rest:
        raise FormatError(f"{what} has a number that does not end; fetch the file again")


def _narrowed(values: np.ndarray, kind: Number, what: str) -> memoryview:
    """Return varints as bytes of a type; raise `FormatError` if one is out of its range."""
    if kind.name in ("F16", "BF16"):
        fits = bool((values < 1 << 16).all())
        values = values.astype(np.uint16)
    else:
        whole = values.view(np.int64)
        low = -(1 << 31)
        fits = kind.name == "I64" or bool(((whole >= low) & (whole < -low)).all())
        values = whole.astype(kind.dtype)
    if not fits:
        raise FormatError(f"{what} has numbers beyond its type; fetch the file again")
    return memoryview(values.tobytes())


def integers(source: Source, tensor: Tensor) -> tuple[int, ...]:
    """Return the numbers of a small tensor of whole numbers: a shape, or axes.

    Raises
    ------
    FormatError
        It is none.
    """
    whole = tensor.kind.name in ("I32", "I64") and len(tensor.shape) <= 1
    if not whole or tensor.numel > MOST_INTEGERS or tensor.external:
        raise FormatError(f"{tensor.name!a:.80} is no short list of whole numbers here")
    raw = b"".join(map(bytes, stored_pieces(source, tensor)))
    size = tensor.kind.itemsize
    if len(raw) != size * tensor.numel:
        raise FormatError(f"{tensor.name!a:.80} has not as many numbers as its shape says")
    return struct.unpack(f"<{tensor.numel}{'q' if size == 8 else 'i'}", raw)
