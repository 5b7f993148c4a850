"""The op `conv2d_int8`: the weight is packed, the terms are laid out, and a call becomes a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ....checks import Pair
from ....shapes import conv2d_int8 as shape_of
from ....shapes.integer import inverse_of
from ...runtime.crew import Step
from ...runtime.memory import Array, empty, upload
from ..geometry import geometry
from . import narrow, strips
from .cutting import Values
from .epilogue import row_of, terms_of
from .narrow_tile import narrow_of
from .words import OFFSET, words

BYTES = (np.dtype(np.int8), np.dtype(np.uint8))


@dataclass(frozen=True, eq=False)
class PackedInt8:
    """A weight of integers, laid out for this backend's kernel.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    data : flat float32
        Words; what `narrow.pack` returns for groups that lie in lanes, else `strips.pack`.
    sums : [c_out] int32
        The sum of each filter's weights.
    """

    shape: tuple[int, ...]
    groups: int
    data: Array
    sums: Array


def pack_int8(weight: Array, groups: int) -> PackedInt8:
    """Lay a weight out once, for many calls of `conv2d_int8`.

    Parameters
    ----------
    weight : [c_out, c_in / groups, k_h, k_w] int8
    groups : int
    """
    if weight.dtype != np.int8 or weight.ndim != 4 or 0 in weight.shape:
        raise TypeError(
            f"pack_int8: weight is {weight.dtype} {weight.shape}, expected int8 [c_out, "
            "c_in/groups, k_h, k_w] with no axis of length 0"
        )
    sums = weight.reshape(len(weight), -1).sum(1, dtype=np.int32)
    found = narrow_of(weight.shape, groups, words().ways)
    data = narrow.pack(weight, groups, found) if found else strips.pack(weight, groups)
    return PackedInt8(weight.shape, groups, data, sums)


def conv2d_int8(
    x: Array,
    weight: Array | PackedInt8,
    factor: Array,
    bias: Array,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Array | None = None,
    residual_scale: float = 1.0,
    relu: bool = False,
    scale: float | None = None,
    out: Array | None = None,
) -> Array:
    """Compute the convolution from strips of words; see `tinyresnext.ops.shapes.conv2d_int8`."""
    if out is None:
        shape = shape_of(
            x, weight, factor, bias, stride=stride, padding=padding, groups=groups,
            residual=residual,
        )  # fmt: skip
        out = empty(shape, np.float32 if scale is None else np.uint8 if relu else np.int8)
    bind_conv2d_int8(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups, residual=residual,
        residual_scale=residual_scale, relu=relu, scale=scale, out=out,
    )()  # fmt: skip
    return out


def bind_conv2d_int8(
    x: Array,
    weight: Array | PackedInt8,
    factor: Array,
    bias: Array,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Array | None = None,
    residual_scale: float = 1.0,
    relu: bool = False,
    scale: float | None = None,
    out: Array,
) -> Callable[[], None]:
    """Prepare a call."""
    shape = shape_of(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups, residual=residual,
        out=out,
    )  # fmt: skip
    packed = weight if isinstance(weight, PackedInt8) else pack_int8(weight, groups)
    if packed.groups != groups:
        raise ValueError(
            f"conv2d_int8: weight was packed for {packed.groups} groups, expected {groups}; "
            f"use pack_int8(weight, {groups})"
        )
    made = np.dtype(np.float32 if scale is None else np.uint8 if relu else np.int8)
    source, target = flat_bytes("conv2d_int8", "x", x), flat_of("conv2d_int8", "out", out, (made,))
    other = target if residual is None else flat_bytes("conv2d_int8", "residual", residual)
    geo = geometry(x.shape, shape, packed.shape[2:], stride, padding, groups)
    low, high = (0, 255) if relu else (-127, 127)
    inverse = np.float32(1) if scale is None else inverse_of(scale)
    floor = 0 if relu else -np.inf
    scalars = np.array([inverse, low, high, floor, residual_scale], np.float32)
    signed = x.dtype == np.int8
    begin = packed.sums * np.int32(-OFFSET if signed and words().ways == 4 else 0)
    of_lanes = narrow_of(packed.shape, groups, words().ways)
    places = (
        narrow.filter_places(geo.c_out, of_lanes)
        if of_lanes
        else strips.filter_places(geo.c_out, groups)
    )
    terms = upload(terms_of(scalars, begin, _row(factor), _row(bias), places))
    add, other_signed = residual is not None, residual is not None and residual.dtype == np.int8
    values = Values(row_of(places), signed * OFFSET, other_signed * OFFSET, int(scale is None))
    numbers: narrow.Lanes | strips.Integers
    if of_lanes:
        numbers = narrow.cut(geo, of_lanes, add, values)
        kernel = narrow.narrow_kernel(of_lanes)
    else:
        deep = -(-packed.shape[1] // words().ways)
        numbers = strips.cut(geo, deep, add, relu, values)
        kernel = strips.strips_kernel(numbers.larger, numbers.smaller)
    arrays = {"x": source, "weight": packed.data, "terms": terms, "residual": other, "out": target}
    return Step(kernel, numbers, **arrays)


def _row(values: Array) -> Array:
    """Return a value for each filter as float32."""
    return np.asarray(values, np.float32)


def flat_bytes(op: str, name: str, array: Array) -> Array:
    """Return a one-dimensional view of an array of 8 bits, as bytes without a sign."""
    return flat_of(op, name, array, BYTES).view(np.uint8)


def flat_of(op: str, name: str, array: Array, dtypes: tuple[np.dtype, ...]) -> Array:
    """Return a one-dimensional view of an array.

    Raises
    ------
    TypeError, ValueError
        It has another type, or is not C-contiguous; or a result, ``out``, is read-only.
    """
    if not isinstance(array, np.ndarray) or array.dtype not in dtypes:
        found = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{op}: {name} is {found}, expected {' or '.join(map(str, dtypes))}")
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{op}: {name} has strides {array.strides} for shape {array.shape}, expected a "
            f"C-contiguous array; use numpy.ascontiguousarray({name})"
        )
    if name == "out" and not array.flags.writeable:
        raise ValueError(f"{op}: out is read-only, expected memory of its own; copy it")
    return array.reshape(-1)
