"""What every reader of other people's files gives, and how the numbers come out of the file: piece by piece.

A reader first finds out which tensors there are and where their numbers lie (`Stored`), without reading these. Then the
names and shapes are judged, and only then do the numbers come into memory, each once, in pieces of a mebibyte. What can
still be refused for its numbers (a CRC that differs, a double beyond float32) is read through before the first array is
made; so refusing a file never takes the memory that its tensors would have.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import FormatError, IntegrityError, UnsafeError

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_EXPANSION",
    "MAX_TENSORS",
    "PIECE",
    "TYPES",
    "Check",
    "Checkpoint",
    "Stored",
    "checked_name",
    "finish",
    "narrow",
    "pieces",
]

MAX_TENSORS = 20_000  # a ResNeXt-101 has 626
MAX_NAME = 256  # characters of a tensor's name
MAX_DIMENSIONS = 8
MAX_EXPANSION = 4  # tensors may hold this many times the file's bytes: half widened to float32, compression, shared storages
PIECE = 1 << 20  # bytes read at once

Check = Callable[[dict[str, tuple[int, ...]]], object]
# The type's name, as safetensors has it -> how the file has it; BF16 is the upper half of a float32.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|u1"}
TYPES |= {f"I{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)} | {f"U{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)}

_NAME = re.compile(r"(?!__)[\w:-]+([./](?!__)[\w:-]+)*", re.ASCII)  # Keras has paths in its names, and a colon at the end


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds, and what was done to get at it.

    Attributes
    ----------
    tensors : dict of str to ndarray
        In the file's order and in the container's own names and orientation; ``prefix`` is removed. Independent
        C-contiguous arrays: half, bfloat16 and double as float32 (exactly, double to the nearest), bool and integers as
        they are.
    container : str
        ``"zip"`` or ``"legacy"`` (of PyTorch), ``"safetensors"``, ``"npz"``, ``"torch7"``, ``"keras"``.
    wrapper : str
        The key under which the weights were found (``"state_dict"``, ``"model_ema"``...), ``""`` at the top.
    others : tuple of str
        Keys under which the file holds further weights that were not taken.
    prefix : str
        What was removed from the front of every name, such as ``"module."``.
    skipped : tuple of str
        Entries left out because they are no tensors (text, None, a plain number, of which no network is made), and the
        counter of an averaged model.
    sha256 : str
        Of the whole file, in hexadecimal.
    """

    tensors: dict[str, np.ndarray]
    container: str
    wrapper: str
    others: tuple[str, ...]
    prefix: str
    skipped: tuple[str, ...]
    sha256: str


class Stored(NamedTuple):
    """A tensor in the file.

    ``kind`` is a key of `TYPES`; ``pieces`` begins to read, from the first number that the tensor has, and gives whole
    numbers; ``stride`` counts numbers and is None for C order; ``numel`` is how many are read. ``doubted`` says that
    reading may still raise, for a checksum.
    """

    kind: str
    shape: tuple[int, ...]
    numel: int
    pieces: Callable[[], Iterator[memoryview]]
    stride: tuple[int, ...] | None = None
    doubted: bool = False


def pieces(file: BinaryIO, start: int, size: int, what: str) -> Iterator[memoryview]:
    """A range of the file; each piece is valid until the next.

    Raises
    ------
    FormatError
        The file ends before.
    """
    buffer = memoryview(bytearray(min(size, PIECE)))
    end = start + size
    while start < end:
        piece = buffer[: min(PIECE, end - start)]
        file.seek(start)
        if file.readinto(piece) != len(piece):
            raise FormatError(f"the file is cut short in {what}; fetch it again")
        yield piece
        start += len(piece)


def checked_name(name: object) -> str:
    """A name that a network's tensors can have.

    Raises
    ------
    FormatError
    """
    if type(name) is not str or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise FormatError(f"{ascii(name)[:80]} is not a name that a network's tensors have; save only the weights")
    return name


def finish(
    file: BinaryIO,
    stored: Mapping[str, Stored],
    container: str,
    check: Check | None,
    *,
    wrapper: str = "",
    others: Sequence[str] = (),
    prefix: str = "",
    skipped: Sequence[str] = (),
) -> Checkpoint:
    """Judge names and shapes, then the numbers, then read them.

    Raises
    ------
    FormatError, IntegrityError, UnsafeError
        What is wrong, as each reader promises; and whatever ``check`` raises.
    """
    size = os.fstat(file.fileno()).st_size
    if len(stored) > MAX_TENSORS:
        raise UnsafeError(f"the file has {len(stored):,} tensors; expected at most {MAX_TENSORS:,}")
    if not stored:
        raise FormatError("the file holds no tensors; save the network's weights")
    for name, tensor in stored.items():
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise FormatError(f"{name} has {len(tensor.shape)} dimensions; expected at most {MAX_DIMENSIONS}")
    if check is not None:
        check({name: tensor.shape for name, tensor in stored.items()})
    produced = sum(max(tensor.numel, prod(tensor.shape)) * _result(tensor.kind).itemsize for tensor in stored.values())
    if produced > MAX_EXPANSION * size + PIECE:
        raise UnsafeError(
            f"the tensors would hold {produced:,} bytes, from a file of {size:,}; no weights repeat themselves so much"
        )
    for name, tensor in stored.items():
        if tensor.doubted or tensor.kind in ("F64", "BOOL"):
            for piece in tensor.pieces():
                _numbers(piece, tensor.kind, name)
    arrays = {name: _array(tensor, name) for name, tensor in stored.items()}
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(arrays, container, wrapper, tuple(others), prefix, tuple(skipped), digest)


def narrow(raw: np.ndarray, what: str) -> np.ndarray:
    """float64 or float16 as float32.

    Raises
    ------
    IntegrityError
        A finite number is beyond float32's range.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is refused below, a signalling NaN stays a NaN
        row = raw.astype(np.float32)
    if raw.itemsize == 8 and not np.array_equal(np.isfinite(row), np.isfinite(raw)):
        raise IntegrityError(f"{what} has doubles beyond float32's range of 3.4e38; scale the weights")
    return row


def _result(kind: str) -> np.dtype:
    """The type of the array: float32 for every floating type, native byte order for the others."""
    if kind in ("F64", "F32", "F16", "BF16"):
        return np.dtype(np.float32)
    return np.dtype(bool) if kind == "BOOL" else np.dtype(TYPES[kind]).newbyteorder("=")


def _numbers(piece: memoryview, kind: str, name: str) -> np.ndarray:
    """Some of a tensor's numbers, as they are kept."""
    raw = np.frombuffer(piece, TYPES[kind])
    if kind == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if kind == "BOOL":
        if (raw > 1).any():
            raise IntegrityError(f"{name} has truth values that are neither 0 nor 1; fetch the file again")
        return raw != 0
    return narrow(raw, name) if kind in ("F64", "F16") else raw


def _array(tensor: Stored, name: str) -> np.ndarray:
    """Read a tensor."""
    row = np.empty(tensor.numel, _result(tensor.kind))
    at = 0
    for piece in tensor.pieces():
        numbers = _numbers(piece, tensor.kind, name)
        row[at : at + len(numbers)] = numbers
        at += len(numbers)
    if at != tensor.numel:
        raise FormatError(f"{name} has {at:,} numbers in the file; expected {tensor.numel:,}")
    if tensor.stride is None or 0 in tensor.shape:
        return row.reshape(tensor.shape)
    strides = [0 if n == 1 else s * row.itemsize for n, s in zip(tensor.shape, tensor.stride, strict=True)]
    return np.ndarray(tensor.shape, row.dtype, buffer=row, strides=strides).copy(order="C")
