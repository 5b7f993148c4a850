"""Judging a checkpoint before anything is made of it, and reading its numbers piece by piece.

First the names and shapes are judged, then every number, in pieces of a mebibyte: a CRC that
differs, a double beyond the range of float32, and what the caller does not want. So refusing a file
never takes the memory that its tensors would have.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, IntegrityError, UnsafeError
from ...formats.dtypes import FLOATS, MAX_DIMENSIONS, Number
from ...system.files import PIECE, sha256_of
from .checkpoint import MAX_TENSORS, Check, Checkpoint, Listed, Look, OnDemand, Stored, is_dense

__all__ = ["finish"]

# tensors may hold this many times the file's bytes: half widened to float32, compression, shared
# storages
MAX_EXPANSION = 4


def finish(files: Sequence[BinaryIO], listed: Listed, check: Check | None) -> Checkpoint:
    """Judge names and shapes, then every number, and return a checkpoint that reads on demand.

    Parameters
    ----------
    files : sequence of binary files
        Those that the tensors lie in: one, or all parts of a checkpoint in their order.
    listed : Listed
        What a reader found in them.
    check : callable, optional
        As in `container.opened`.

    Raises
    ------
    FormatError, IntegrityError, UnsafeError
        What is wrong, as each reader promises: a zip member's CRC differs, or a double does not
        fit into float32; and whatever ``check`` raises, or what it returns.
    """
    stored = listed.stored
    _judge_sizes(stored)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    look = check(dict(shapes), listed.carried, listed.spec) if check is not None else None
    _judge_expansion(files, stored)
    for name, storage in listed.besides.items():
        _judged(storage, name, None)
    crcs = {name: _judged(tensor, name, look) for name, tensor in stored.items()}
    tensors = OnDemand(stored, lambda name: _array(stored[name], name, crcs[name]))
    return Checkpoint(
        tensors,
        shapes,
        listed.container,
        listed.wrapper,
        tuple(listed.others),
        listed.prefix,
        tuple(listed.skipped),
        sha256_of(*files),
        listed.carried,
        listed.spec,
        tuple(listed.remarks),
        listed.eps,
        listed.called,
        listed.layers,
    )


def _judge_sizes(stored: Mapping[str, Stored]) -> None:
    """Raise if there are no tensors, too many, or one with too many dimensions."""
    if len(stored) > MAX_TENSORS:
        raise UnsafeError(f"the file has {len(stored):,} tensors; expected at most {MAX_TENSORS:,}")
    if not stored:
        raise FormatError("the file holds no tensors; save the network's weights")
    for name, tensor in stored.items():
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise FormatError(
                f"{name} has {len(tensor.shape)} dimensions; expected at most {MAX_DIMENSIONS}"
            )


def _judge_expansion(files: Sequence[BinaryIO], stored: Mapping[str, Stored]) -> None:
    """Raise if the tensors would take much more memory than the files have bytes."""
    size = sum(os.fstat(file.fileno()).st_size for file in files)
    produced = sum(
        max(tensor.numel, prod(tensor.shape)) * _result(tensor.kind).itemsize
        for tensor in stored.values()
    )
    if produced > MAX_EXPANSION * size + PIECE:
        raise UnsafeError(
            f"the tensors would hold {produced:,} bytes, from a file of {size:,}; no weights "
            "repeat themselves so much"
        )


def _judged(tensor: Stored, name: str, look: Look | None) -> int:
    """Read every number of a tensor without keeping any; return the CRC-32 of what was read.

    The CRC shows later whether the file was changed. Numbers between those of the tensor are not
    its own. So a tensor with gaps is held as it lies in the file, where it is no larger than the
    file: only views of PyTorch and Torch7 have gaps, and these are not compressed.
    """
    dtype, crc, at = np.dtype(tensor.kind.dtype), 0, 0
    dense = tensor.stride is None or is_dense(tensor.shape, tensor.stride)
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


def _result(kind: Number) -> np.dtype:
    """Return the array's type: float32 for all floats, native byte order for the other types."""
    if kind.name in FLOATS:
        return np.dtype(np.float32)
    return np.dtype(bool) if kind.name == "BOOL" else np.dtype(kind.dtype).newbyteorder("=")


def _numbers(raw: NDArray, kind: Number, name: str) -> NDArray:
    """Return some of a tensor's numbers in the type of the result.

    Raises
    ------
    IntegrityError
        A finite double is beyond float32's range, or a truth value is neither 0 nor 1.
    """
    if kind.name == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if kind.name == "BOOL":
        if (raw > 1).any():
            raise IntegrityError(
                f"{name} has truth values that are neither 0 nor 1; fetch the file again"
            )
        return raw != 0
    if kind.name not in ("F64", "F16"):
        return raw
    # an overflow is refused below, a signalling NaN stays a NaN
    with np.errstate(over="ignore", invalid="ignore"):
        row = raw.astype(np.float32)
    if kind.name == "F64" and not np.array_equal(np.isfinite(row), np.isfinite(raw)):
        raise IntegrityError(
            f"{name} has doubles beyond float32's range of 3.4e38; scale the weights"
        )
    return row


def _array(tensor: Stored, name: str, crc: int) -> NDArray:
    """Read a tensor that has been judged.

    Raises
    ------
    FormatError
        It can no longer be read.
    IntegrityError
        It has changed since it was judged.
    """
    row, found, at = np.empty(tensor.numel, _result(tensor.kind)), 0, 0
    try:
        for piece in tensor.pieces():
            found = zlib.crc32(piece, found)
            numbers = _numbers(np.frombuffer(piece, tensor.kind.dtype), tensor.kind, name)
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
    """Return a view with the tensor's shape of the numbers that it spans."""
    strides = [
        0 if n == 1 else s * row.itemsize
        for n, s in zip(tensor.shape, tensor.stride or (), strict=True)
    ]
    return np.ndarray(tensor.shape, row.dtype, buffer=row, strides=strides)
