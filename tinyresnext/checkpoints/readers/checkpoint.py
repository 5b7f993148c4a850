"""What every reader of other people's files gives, and how the numbers come out of the file: piece by piece.

A reader first finds out which tensors there are and where their numbers lie (`Stored`), without
reading these. Then the names and shapes are judged, then every number, in pieces of a mebibyte (a
CRC that differs, a double beyond float32, and what the caller does not want); so refusing a file
never takes the memory that its tensors would have. After that a tensor is read whenever it is asked
for, and a network is converted without being in memory as a whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, IntegrityError, UnsafeError
from ...system.files import PIECE, pieces

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_EXPANSION",
    "MAX_TENSORS",
    "TYPES",
    "Check",
    "Checkpoint",
    "Look",
    "OnDemand",
    "Stored",
    "checked_name",
    "finish",
    "viewed",
]

MAX_TENSORS = 20_000  # a ResNeXt-101 has 626
MAX_NAME = 256  # characters of a tensor's name
MAX_DIMENSIONS = 8
# tensors may hold this many times the file's bytes: half widened to float32, compression, shared
# storages
MAX_EXPANSION = 4

# Is told a tensor's name, the place in it of some numbers (None where these do not come in C
# order), and the numbers.
Look = Callable[[str, int | None, NDArray], None]
Check = Callable[
    [dict[str, tuple[int, ...]]], Look | None
]  # is told names and shapes; gives what looks at the numbers
# The type's name, as safetensors has it -> how the file has it; BF16 is the upper half of a
# float32.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|u1"}
TYPES |= {f"I{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)} | {
    f"U{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)
}

_NAME = re.compile(
    r"(?!__)[\w:-]+([./](?!__)[\w:-]+)*", re.ASCII
)  # Keras has paths in its names, and a colon at the end


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds, and what was done to get at it.

    Attributes
    ----------
    tensors : mapping of str to ndarray
        In the file's order and in the container's own names and orientation; ``prefix`` is removed.
        Independent C-contiguous arrays: half, bfloat16 and double as float32 (exactly, double to
        the nearest), bool and integers as they are. As long as the file is open, each is read from
        it when it is asked for.
    shapes : dict of str to tuple of int
        Of the tensors.
    container : str
        ``"zip"`` or ``"legacy"`` (of PyTorch), ``"safetensors"``, ``"npz"``, ``"torch7"``,
        ``"keras"``.
    wrapper : str
        The key under which the weights were found (``"state_dict"``, ``"model_ema"``...), ``""`` at
        the top.
    others : tuple of str
        Keys under which the file holds further weights that were not taken.
    prefix : str
        What was removed from the front of every name, such as ``"module."``.
    skipped : tuple of str
        Entries left out because they are no tensors (text, None, a plain number, of which no
        network is made), and the counter of an averaged model.
    sha256 : str
        Of the whole file, in hexadecimal.
    """

    tensors: Mapping[str, NDArray]
    shapes: dict[str, tuple[int, ...]]
    container: str
    wrapper: str
    others: tuple[str, ...]
    prefix: str
    skipped: tuple[str, ...]
    sha256: str


class OnDemand(Mapping[str, NDArray]):
    """Arrays by name, each made anew whenever it is asked for: so they are not all in memory, unless somebody keeps them."""

    def __init__(self, names: Iterable[str], make: Callable[[str], NDArray]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> NDArray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Stored(NamedTuple):
    """A tensor in the file.

    ``kind`` is a key of `TYPES`; ``pieces`` begins to read, from the first number that the tensor
    has, and gives whole numbers, or raises at the end when a checksum differs; ``stride`` counts
    numbers and is None for C order; ``numel`` is how many are read.
    """

    kind: str
    shape: tuple[int, ...]
    numel: int
    pieces: Callable[[], Iterator[memoryview]]
    stride: tuple[int, ...] | None = None


def viewed(
    file: BinaryIO,
    kind: str,
    start: int,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    what: str,
) -> Stored:
    """A tensor that sees numbers, which begin at byte ``start``, through ``offset`` and ``stride``: the range that it spans."""
    width = np.dtype(TYPES[kind]).itemsize
    numel = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    plain = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    same = numel == 0 or all(n == 1 or s == p for n, s, p in zip(shape, stride, plain, strict=True))
    read = partial(pieces, file, start + offset * width, numel * width, what)
    return Stored(kind, shape, numel, read, None if same else stride)


def checked_name(name: object) -> str:
    """A name that a network's tensors can have.

    Raises
    ------
    FormatError
    """
    if type(name) is not str or len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise FormatError(
            f"{ascii(name)[:80]} is not a name that a network's tensors have; save only the weights"
        )
    return name


def finish(
    file: BinaryIO,
    stored: Mapping[str, Stored],
    container: str,
    check: Check | None,
    *,
    besides: Mapping[str, Stored] | None = None,
    wrapper: str = "",
    others: Sequence[str] = (),
    prefix: str = "",
    skipped: Sequence[str] = (),
) -> Checkpoint:
    """Judge names and shapes, then every number; what is left is to be read when it is asked for.

    ``besides`` are no tensors, but must be read through without an error: storages of which the
    tensors have parts.

    Raises
    ------
    FormatError, IntegrityError, UnsafeError
        What is wrong, as each reader promises; and whatever ``check`` raises, or what it gives.
    """
    size = os.fstat(file.fileno()).st_size
    if len(stored) > MAX_TENSORS:
        raise UnsafeError(f"the file has {len(stored):,} tensors; expected at most {MAX_TENSORS:,}")
    if not stored:
        raise FormatError("the file holds no tensors; save the network's weights")
    for name, tensor in stored.items():
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise FormatError(
                f"{name} has {len(tensor.shape)} dimensions; expected at most {MAX_DIMENSIONS}"
            )
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    look = check(dict(shapes)) if check is not None else None
    produced = sum(
        max(tensor.numel, prod(tensor.shape)) * _result(tensor.kind).itemsize
        for tensor in stored.values()
    )
    if produced > MAX_EXPANSION * size + PIECE:
        raise UnsafeError(
            f"the tensors would hold {produced:,} bytes, from a file of {size:,}; no weights repeat themselves so much"
        )
    for name, storage in (besides or {}).items():
        _judged(storage, name, None)
    crcs = {name: _judged(tensor, name, look) for name, tensor in stored.items()}
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = OnDemand(stored, lambda name: _array(stored[name], name, crcs[name]))
    return Checkpoint(
        tensors, shapes, container, wrapper, tuple(others), prefix, tuple(skipped), digest
    )


def _judged(tensor: Stored, name: str, look: Look | None) -> int:
    """Read every number of a tensor without keeping any; the CRC-32 of what was read, by which it is known again.

    Numbers between those of the tensor are not its own. So a tensor with gaps is held as it lies in
    the file, where it is no larger than this: only views of PyTorch and Torch7 have gaps, and these
    are not compressed.
    """
    dtype, crc, at = np.dtype(TYPES[tensor.kind]), 0, 0
    dense = tensor.stride is None or _is_dense(tensor.shape, tensor.stride)
    raw = np.empty(0 if dense else tensor.numel, dtype)
    for piece in tensor.pieces():
        crc, some = zlib.crc32(piece, crc), np.frombuffer(piece, dtype)
        if dense:
            numbers = _numbers(some, tensor.kind, name)
            if look is not None:
                look(name, at if tensor.stride is None else None, numbers)
        else:
            raw[at : at + len(some)] = some
        at += len(some)
    if at != tensor.numel:
        raise FormatError(f"{name} has {at:,} numbers in the file; expected {tensor.numel:,}")
    if not dense:
        own = _laid_out(raw, tensor).flat
        for at in range(0, len(own), PIECE // 8):
            numbers = _numbers(own[at : at + PIECE // 8], tensor.kind, name)
            if look is not None:
                look(name, at, numbers)
    return crc


def _is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the numbers that are spanned are all the tensor's own: its axes in some order, or repeated."""
    expected = 1
    if 0 in shape:
        return True
    for step, n in sorted((s, n) for n, s in zip(shape, stride, strict=True) if n > 1 and s):
        if step != expected:
            return False
        expected *= n
    return True


def _result(kind: str) -> np.dtype:
    """The type of the array: float32 for every floating type, native byte order for the others."""
    if kind in ("F64", "F32", "F16", "BF16"):
        return np.dtype(np.float32)
    return np.dtype(bool) if kind == "BOOL" else np.dtype(TYPES[kind]).newbyteorder("=")


def _numbers(raw: NDArray, kind: str, name: str) -> NDArray:
    """Some of a tensor's numbers, as they are given.

    Raises
    ------
    IntegrityError
        A finite double is beyond float32's range, or a truth value neither 0 nor 1.
    """
    if kind == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if kind == "BOOL":
        if (raw > 1).any():
            raise IntegrityError(
                f"{name} has truth values that are neither 0 nor 1; fetch the file again"
            )
        return raw != 0
    if kind not in ("F64", "F16"):
        return raw
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # an overflow is refused below, a signalling NaN stays a NaN
        row = raw.astype(np.float32)
    if kind == "F64" and not np.array_equal(np.isfinite(row), np.isfinite(raw)):
        raise IntegrityError(
            f"{name} has doubles beyond float32's range of 3.4e38; scale the weights"
        )
    return row


def _array(tensor: Stored, name: str, crc: int) -> NDArray:
    """Read a tensor that has been judged.

    Raises
    ------
    FormatError
        It cannot be read any more.
    IntegrityError
        It is not what it was then.
    """
    row, found, at = np.empty(tensor.numel, _result(tensor.kind)), 0, 0
    try:
        for piece in tensor.pieces():
            found = zlib.crc32(piece, found)
            numbers = _numbers(np.frombuffer(piece, TYPES[tensor.kind]), tensor.kind, name)
            row[at : at + len(numbers)] = numbers
            at += len(numbers)
    except OSError as error:
        raise FormatError(f"{name} cannot be read: {error.strerror or error}; try again") from error
    if found != crc:
        raise IntegrityError(f"{name} was changed while the file was read; try again")
    if tensor.stride is None or 0 in tensor.shape:
        return row.reshape(tensor.shape)
    return _laid_out(row, tensor).copy(order="C")


def _laid_out(row: NDArray, tensor: Stored) -> NDArray:
    """The tensor's shape over the numbers that it spans."""
    strides = [
        0 if n == 1 else s * row.itemsize
        for n, s in zip(tensor.shape, tensor.stride or (), strict=True)
    ]
    return np.ndarray(tensor.shape, row.dtype, buffer=row, strides=strides)
