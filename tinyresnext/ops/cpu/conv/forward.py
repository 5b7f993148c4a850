"""Convolution: the weight is packed for one of three ways, and a call becomes a step of that way.

`dense` multiplies matrices (1x1), `wide` reads what each position sees from strips of the image,
and `narrow` computes several groups in a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np

from ... import shapes
from ...checks import Pair, pair
from ...shapes.conv import parts_padding, parts_shape
from ..interlaced import bind_join, bind_split
from ..runtime.crew import Step, chain
from ..runtime.kernel import kernel
from ..runtime.memory import Array, empty, flat, result
from . import dense
from .geometry import Geometry, geometry
from .narrow import strips as narrow
from .wide import strips as wide

# --- which way ------------------------------------------------------------------------------------


def way_of(shape: tuple[int, ...], groups: int) -> ModuleType:
    """Return which module computes with a weight ``[c_out, c_in / groups, k_h, k_w]``.

    With a 1x1 kernel and one group each value is seen once, and it is a product of matrices. Of the
    other ways, the one with fewer instructions is taken: loads, permutations and multiply-adds,
    those of idle lanes included. A single group is for `wide`, since `narrow` compiles a kernel for
    each size of group.
    """
    c_out, c_group, k_h, k_w = shape
    if groups == k_h == k_w == 1:
        return dense
    if groups == 1:
        return wide
    sizes = c_group, c_out // groups, k_h, k_w, groups
    return min(narrow, wide, key=lambda way: way.instructions(*sizes))


# --- the weight -----------------------------------------------------------------------------------


@kernel()
def _refill(weight, index, data):
    """Copy every value to its place."""
    for i in range(len(data)):
        data[i] = weight[index[i]] if index[i] >= 0 else np.float32(0)


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution's weight, laid out for this backend's kernels.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    data : flat float32
        What ``pack`` of the module that `way_of` names returns.
    """

    shape: tuple[int, ...]
    groups: int
    data: Array


def pack(weight: Array, groups: int) -> Packed:
    """Lay a weight out once, for many calls of `conv2d`.

    Parameters
    ----------
    weight : [c_out, c_in / groups, k_h, k_w]
    groups : int
    """
    if 0 in weight.shape:
        raise ValueError(f"pack: weight has shape {weight.shape}, expected no axis of length 0")
    flat("pack", "weight", weight)
    way = way_of(weight.shape, groups)
    return Packed(weight.shape, groups, way.pack(weight, groups))


def repacking(
    weight: Array, layout: Callable[[Array], Packed]
) -> tuple[Packed, Callable[[], None]]:
    """Lay a weight out that will change.

    The places are found by laying out numbers in place of the values. A number has two parts, each
    small enough for float32. Where a layout is filled up, it is zero for a weight of ones.

    Returns
    -------
    packed : Packed
    refill : function
        Copies what ``weight`` then holds to its places in ``packed``.
    """
    packed, numbers = layout(weight), np.arange(weight.size).reshape(weight.shape)
    high, low = (layout((part).astype(np.float32)).data for part in np.divmod(numbers, 4096))
    there = layout(np.ones(weight.shape, np.float32)).data != 0
    index = np.where(there, high.astype(np.int64) * 4096 + low.astype(np.int64), -1)
    return packed, partial(_refill, flat("pack", "weight", weight), index, packed.data)


# --- the op ---------------------------------------------------------------------------------------


def bind_geometry(
    x: Array,
    packed: Packed,
    bias: Array,
    residual: Array | None,
    out: Array,
    geo: Geometry,
    relu: bool = False,
) -> Step:
    """Cut a convolution of flat arrays into tasks."""
    arrays = {"x": x, "weight": packed.data, "bias": bias, "out": out}
    arrays["residual"], add = out if residual is None else residual, residual is not None
    way = way_of(packed.shape, geo.groups)
    if way is narrow:
        sizes = (packed.shape[1], geo.width, geo.k_w, geo.s_w)
        return Step(narrow.strips_kernel(*sizes), narrow.cut(geo, add, relu), **arrays)
    if way is wide:
        numbers = wide.cut(geo, add, relu)
        return Step(wide.strips_kernel(numbers.larger, numbers.smaller), numbers, **arrays)
    return Step(dense.blocks, dense.cut(geo, add, relu), **arrays)


def conv2d(
    x: Array,
    weight: Array | Packed,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    residual: Array | None = None,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Compute the convolution the way that `way_of` says."""
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, dilation=dilation,
        residual=residual, out=out,
    )  # fmt: skip
    y = result("conv2d", shape, out)
    bind_conv2d(
        x,
        weight if isinstance(weight, Packed) else pack(weight, groups),
        bias,
        stride=stride,
        padding=padding,
        groups=groups,
        dilation=dilation,
        residual=residual,
        relu=relu,
        out=y,
    )()
    return y


def bind_conv2d(
    x: Array,
    weight: Array | Packed,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    residual: Array | None = None,
    relu: bool = False,
    out: Array,
) -> Callable[[], None]:
    """Prepare a call; with a packed weight it is a `Step`.

    The arrays must be writable and aligned, as `memory.empty` makes them: any other array is copied
    here, once.
    """
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, dilation=dilation,
        residual=residual, out=out,
    )  # fmt: skip
    steps, target = pair("dilation", dilation, 1), result("conv2d", shape, out)
    if steps != (1, 1):
        lead = pair("padding", padding, 0)
        return _bind_dilated(x, weight, bias, lead, groups, steps, residual, relu, target)
    refill = None
    if not isinstance(weight, Packed):
        weight, refill = repacking(weight, lambda values: pack(values, groups))
    if weight.groups != groups:
        raise ValueError(
            f"conv2d: weight was packed for {weight.groups} groups, expected {groups}; "
            f"use pack(weight, {groups})"
        )
    source, target = flat("conv2d", "x", x), target.reshape(-1)
    shift = np.zeros(shape[-1], np.float32) if bias is None else flat("conv2d", "bias", bias)
    other = None if residual is None else flat("conv2d", "residual", residual)
    geo = geometry(x.shape, shape, weight.shape[2:], stride, padding, groups)
    call = bind_geometry(source, weight, shift, other, target, geo, relu)
    return call if refill is None else chain([refill, call])


def _bind_dilated(
    x: Array,
    weight: Array | Packed,
    bias: Array | None,
    padding: tuple[int, int],
    groups: int,
    dilation: tuple[int, int],
    residual: Array | None,
    relu: bool,
    out: Array,
) -> Callable[[], None]:
    """Prepare a dilated convolution: split, convolve and join (`interlaced`)."""
    parts, made = empty(parts_shape(x.shape, dilation)), empty(parts_shape(out.shape, dilation))
    calls: list[Callable[[], None]] = [bind_split(flat("conv2d", "x", x), x.shape, dilation, parts)]
    other = None
    if residual is not None:
        other = empty(made.shape)
        source = flat("conv2d", "residual", residual)
        calls.append(bind_split(source, out.shape, dilation, other))
    inner = parts_padding(padding, dilation)
    calls.append(
        bind_conv2d(
            parts, weight, bias, padding=inner, groups=groups, residual=other, relu=relu, out=made
        )
    )
    return chain([*calls, bind_join(made, out.shape, dilation, out.reshape(-1))])
