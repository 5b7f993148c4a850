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
from ...bfloat16 import rounded, widened
from ...checks import Pair, pair
from ...shapes.conv import parts_padding, parts_shape
from ..elementwise import bind_convert, in_words
from ..interlaced import bind_join, bind_split
from ..runtime.crew import Chain, Early, Pace, Step
from ..runtime.kernel import kernel
from ..runtime.memory import HALF, WORD, Array, empty, flat, result
from ..runtime.simd import stored, value
from ..runtime.simd.bfloat16 import multiplies
from ..runtime.simd.words import paired
from . import dense
from .geometry import Geometry, geometry
from .narrow import strips as narrow
from .narrow.tile import pixels_of
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
        w = value(weight[index[i]]) if index[i] >= 0 else np.float32(0)
        data[i] = stored(w, data)


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution's weight, laid out for this backend's kernels.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    data : flat float32, or words of two bfloat16 (uint32)
        What ``pack`` of the module that `way_of` names returns.
    half : bool
        Whether it is for inputs and results in bfloat16.
    """

    shape: tuple[int, ...]
    groups: int
    data: Array
    half: bool = False

    @property
    def in_words(self) -> bool:
        """Return whether it is laid out in words."""
        return self.data.dtype == WORD

    @property
    def laid_out(self) -> tuple[int, ...]:
        """Return the shape of what is laid out: that of the weight, or that of its words."""
        c_out, c_group, *kernel = self.shape
        return c_out, -(-c_group // 2) if self.in_words else c_group, *kernel


def pack(weight: Array, groups: int) -> Packed:
    """Lay a weight ``[c_out, c_in / groups, k_h, k_w]`` out once, for many calls of `conv2d`."""
    _check_weight(weight)
    return Packed(weight.shape, groups, way_of(weight.shape, groups).pack(weight, groups))


def pack_rounded(weight: Array, groups: int, words: bool | None = None) -> Packed:
    """Round a weight to bfloat16 and lay it out, for arrays of bfloat16.

    Parameters
    ----------
    weight : [c_out, c_in / groups, k_h, k_w] float32
    groups : int
    words : bool, optional
        Whether in words of two; by default, if the processor multiplies words.
    """
    _check_weight(weight)
    words = multiplies() if words is None else words
    values = paired(weight) if words else widened(rounded(weight))
    data = way_of(values.shape, groups).pack(values, groups)
    return Packed(weight.shape, groups, data.view(WORD) if words else data, half=True)


def _check_weight(weight: Array) -> None:
    """Raise an error for a weight that cannot be packed."""
    if 0 in weight.shape:
        raise ValueError(f"pack: weight has shape {weight.shape}, expected no axis of length 0")
    flat("pack", "weight", weight)


def repacking(weight: Array, layout: Callable[[Array], Packed]) -> tuple[Packed, Early]:
    """Lay a weight out that will change.

    The places are found by laying out numbers in place of the values, a few bits of each at a time,
    which float32 or bfloat16 has. Where a layout is filled up, it is zero for a weight of ones.

    Returns
    -------
    packed : Packed
    refill : Early
        Copies what ``weight`` then holds to its places in ``packed``, rounded if that is bfloat16.
    """

    def places(values: Array) -> Array:
        found = layout(values.astype(np.float32)).data
        return widened(found.view(HALF)) if found.dtype == WORD else found

    packed, numbers = layout(weight), np.arange(weight.size).reshape(weight.shape)
    bits = 8 if packed.half else 12
    index = np.where(places(np.ones(weight.shape)) != 0, 0, -1)
    for shift in range(0, weight.size.bit_length(), bits):
        some = places((numbers >> shift) & ((1 << bits) - 1)).astype(np.int64)
        index[index >= 0] += some[index >= 0] << shift
    source = flat("pack", "weight", weight)
    if not packed.half:
        return packed, Early(partial(_refill, source, index, packed.data))
    halves = empty(source.shape, HALF)
    data = packed.data.view(HALF) if packed.in_words else packed.data
    refill = partial(_refill, halves, index, data)
    return packed, Early(Chain([bind_convert(source, halves), refill]))


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
    way, each = way_of(packed.laid_out, geo.groups), geo.h_out * geo.w_out
    if way is narrow:
        sizes = (packed.laid_out[1], geo.width, geo.k_w, geo.s_w, pixels_of(geo.w_out))
        strips = narrow.cut(geo, add, relu)
        pace = Pace(geo.n, each, strips.strips * strips.shares, each)
        return Step(narrow.strips_kernel(*sizes), strips, pace, **arrays)
    if way is wide:
        numbers = wide.cut(geo, add, relu)
        pace = Pace(geo.n, each, numbers.strips * numbers.shares, each)
        return Step(wide.strips_kernel(numbers.larger, numbers.smaller), numbers, pace, **arrays)
    blocks = dense.cut(geo, add, relu)
    return Step(dense.blocks, blocks, Pace(geo.n, each, blocks.shares, blocks.length), **arrays)


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
    """Compute what `tinyresnext.ops.shapes.conv2d` describes, the way that `way_of` says."""
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
    here, once. Where ``out`` is bfloat16, so are ``x`` and ``residual``, and a weight that is not
    packed is rounded here, once.
    """
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, dilation=dilation,
        residual=residual, out=out,
    )  # fmt: skip
    steps, target = pair("dilation", dilation, 1), result("conv2d", shape, out, halves=True)
    if steps != (1, 1):
        lead = pair("padding", padding, 0)
        return _bind_dilated(x, weight, bias, lead, groups, steps, residual, relu, target)
    before: list[Callable[[], None]] = []
    half, source = target.dtype == HALF, flat("conv2d", "x", x, target).reshape(x.shape)
    if not isinstance(weight, Packed) and half:
        weight = pack_rounded(weight, groups)
    elif not isinstance(weight, Packed):
        weight, refill = repacking(weight, lambda values: pack(values, groups))
        before.append(refill)
    if weight.half != half:
        kinds = ["bfloat16" if each else "float32" for each in (weight.half, half)]
        raise TypeError(f"conv2d: weight was packed for {kinds[0]}, and out is {kinds[1]}")
    if weight.groups != groups:
        raise ValueError(
            f"conv2d: weight was packed for {weight.groups} groups, expected {groups}; "
            f"use pack(weight, {groups})"
        )
    if weight.in_words:
        copied, source = in_words(source, groups)
        before += copied
    shift = np.zeros(shape[-1], np.float32) if bias is None else flat("conv2d", "bias", bias)
    other = None if residual is None else flat("conv2d", "residual", residual, target)
    geo = geometry(source.shape, shape, weight.shape[2:], stride, padding, groups)
    call = bind_geometry(source.reshape(-1), weight, shift, other, target.reshape(-1), geo, relu)
    return Chain([*before, call]) if before else call


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
    parts, made = (empty(parts_shape(a.shape, dilation), out.dtype) for a in (x, out))
    source = flat("conv2d", "x", x, out)
    calls: list[Callable[[], None]] = [bind_split(source, x.shape, dilation, parts)]
    other = None
    if residual is not None:
        other = empty(made.shape, out.dtype)
        source = flat("conv2d", "residual", residual, out)
        calls.append(bind_split(source, out.shape, dilation, other))
    inner = parts_padding(padding, dilation)
    calls.append(
        bind_conv2d(
            parts, weight, bias, padding=inner, groups=groups, residual=other, relu=relu, out=made
        )
    )
    return Chain([*calls, bind_join(made, out.shape, dilation, out.reshape(-1))])
