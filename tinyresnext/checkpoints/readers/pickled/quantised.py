"""Quantised tensors of PyTorch, read as the numbers that their integers stand for.

A weight is ``scale * (integer - zero_point)``, with a scale and a zero point for each output
channel (fbgemm) or one of each for the whole tensor (qnnpack). The product is computed in float64
and rounded to float32 once. A linear layer keeps weight and bias packed, as one tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import FormatError, IntegrityError
from ....formats.dtypes import NUMBERS
from ....formats.pickle.tensors import Quantiser, Tensor
from ....formats.pickle.vocabulary import Global
from ..checkpoint import Stored, is_dense

__all__ = ["dequantised", "inner", "unpacked"]

PACKED = "._packed_params"
PIECE = 1 << 16  # integers that are computed together


def unpacked(mapping: Mapping[Any, Any]) -> dict:
    """Return a state dict in which packed weights and biases stand under names of their own.

    ``fc._packed_params._packed_params`` becomes ``fc.weight`` and ``fc.bias``; so do the names of
    older files, ``fc._packed_params.weight`` and ``.bias``.
    """
    found: dict = {}
    for name, value in mapping.items():
        module, packed, field = name.rpartition(PACKED) if type(name) is str else ("", "", "")
        if not packed:
            found[name] = value
        elif name.endswith(PACKED + PACKED):
            module = name.removesuffix(PACKED + PACKED)
            whole = type(value) is tuple and len(value) == 2
            if not whole or type(value[0]) is not Tensor or f"{module}.weight" in mapping:
                raise FormatError(f"{ascii(name)[:80]} is not a weight and a bias; save it again")
            found[f"{module}.weight"] = value[0]
            if value[1] is not None:
                found[f"{module}.bias"] = value[1]
        elif field in (".weight", ".bias") and module + field not in mapping:
            found[module + field] = value
        elif field != ".dtype" or type(value) is not Global:
            found[name] = value
    return found


def inner(tensor: Tensor) -> list[Tensor]:
    """Return the tensor and those of its scales and zero points."""
    quantiser = tensor.quantiser
    more = () if quantiser is None else (quantiser.scales, quantiser.zero_points)
    return [tensor, *(one for one in more if type(one) is Tensor)]


def dequantised(
    found: Stored, tensor: Tensor, quantiser: Quantiser, place: Callable[[Tensor], Stored]
) -> Stored:
    """Return a quantised tensor as one of floating point, in float64.

    Parameters
    ----------
    found : Stored
        Where its integers lie.
    tensor : Tensor
    quantiser : Quantiser
    place : callable
        Returns where the numbers of a tensor lie: of the scales and of the zero points.

    Raises
    ------
    FormatError
        The integers have gaps or are those of several channels, so it is not known which channel
        each belongs to.
    """
    if found.stride is not None and not is_dense(found.shape, found.stride):
        raise FormatError("a quantised tensor has gaps between its integers; save it contiguous")
    axis = quantiser.axis
    step, count = (1, 1) if axis is None else (tensor.stride[axis], tensor.size[axis])
    if step == 0 and count > 1:
        raise FormatError(
            "the channels of a quantised tensor share their integers; save it contiguous"
        )

    def pieces() -> Iterator[memoryview]:
        scales, points = _rows(quantiser, place)
        at = 0
        for piece in found.pieces():
            integers = np.frombuffer(piece, found.kind.dtype)
            for begin in range(0, len(integers), PIECE):
                some = integers[begin : begin + PIECE]
                channel = (np.arange(at, at + len(some)) // step) % count
                values = scales[channel] * (some.astype(np.float64) - points[channel])
                yield memoryview(values.astype("<f8").tobytes())
                at += len(some)

    return found._replace(kind=NUMBERS["F64"], pieces=pieces)


def _rows(
    quantiser: Quantiser, place: Callable[[Tensor], Stored]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scales and zero points, one for each channel."""
    scales, points = (_row(row, place) for row in (quantiser.scales, quantiser.zero_points))
    if not (np.isfinite(scales) & (scales > 0)).all() or not (np.abs(points) < 1 << 31).all():
        raise IntegrityError(
            "a quantised tensor has a scale that is not above zero, or no possible zero point; use "
            "other weights"
        )
    return scales, points


def _row(row: Tensor | tuple, place: Callable[[Tensor], Stored]) -> NDArray[np.float64]:
    """Return a row of numbers, from the pickle or from a storage."""
    if isinstance(row, tuple):
        return np.array(row, np.float64)
    found = place(row)
    if found.stride is not None or found.kind.name == "BF16":
        raise FormatError("a quantised tensor has scales in an unusual order; save it again")
    parts = [np.frombuffer(piece, found.kind.dtype).astype(np.float64) for piece in found.pieces()]
    return np.concatenate([np.empty(0), *parts])
