"""Convolution: the weight is packed for one of two ways, and a call becomes launches of that way.

`grouped` computes narrow groups directly, `gemm` everything else as a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import shapes
from ...checks import Pair, pair
from ...shapes.conv import parts_padding, parts_shape
from ..elementwise import copied, widened
from ..runtime.arrays import STORED, DeviceArray, check, empty, same_type, scratch
from ..runtime.call import Call
from ..runtime.machine import Launch
from ..tensor.pairs import RUN as NARROW_RUN
from ..tensor.pairs import Pairs, pairs
from ..tensor.product import product as tensor_product
from .gemm import product
from .grouped import direct, suits
from .interlaced import gathered, join, split
from .pack import RUN, Columns, Room, Slabs, Source, columns, forward, slabs
from .windows import Windows, line_of, windows

Layout = Columns | Slabs | Pairs
WIDEST = 8  # channels of a group in 16 bits: wider ones fill enough of a tensor core's tile


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution's weight, laid out for this backend's kernels.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    layout : Columns, Slabs or Pairs
        Of float32, float16 or bfloat16.
    """

    shape: tuple[int, ...]
    groups: int
    layout: Layout


def lined(
    weight: DeviceArray, win: Windows, memory: Room, dtype: Any
) -> tuple[Layout, list[Launch]]:
    """Return the layout of a forward convolution, perhaps with longer lines of its kernel."""
    if not (line := line_of(win, RUN if dtype == np.float32 else NARROW_RUN)):
        [layout], launches = lay_out(weight, forward(win), win, memory, dtype)
        return layout, launches
    longer = win._replace(k_w=line)
    made = scratch(weight.machine, (*weight.shape[:3], line), weight.dtype)
    [layout], launches = lay_out(made, forward(longer), longer, memory, dtype)
    assert not isinstance(layout, Slabs)  # which are of several groups
    return layout._replace(line=line), [widened(weight, made, win.k_w, line), *launches]


def lay_out(
    weight: DeviceArray, source: Source, win: Windows, memory: Room, dtype: Any = np.float32
) -> tuple[Sequence[Layout], list[Launch]]:
    """Return the layout that each kind of convolution reads, and the launches that fill them.

    ``win`` is a convolution with all taps of the weight, and ``dtype`` the type of the layout.
    """
    if weight.dtype != np.float32:
        wide = scratch(weight.machine, weight.shape)
        made, launches = lay_out(wide, source, win, memory, dtype)
        return made, [copied(weight, wide), *launches]
    if dtype != np.float32 and not (suits(win) and max(win.narrow, win.width) <= WIDEST):
        return pairs(weight, source, win, memory, dtype)
    if dtype == np.float32:
        way = slabs if suits(win) else columns
        return way(weight, source, win, memory)
    [single], launches = slabs(weight, source, win, scratch)
    narrow = Slabs(memory(weight.machine, single.data.shape, dtype), single.apart)
    return [narrow], [*launches, copied(single.data, narrow.data)]


def convolution(
    x: DeviceArray,
    layout: Layout,
    bias: DeviceArray | None,
    residual: DeviceArray | None,
    out: DeviceArray,
    win: Windows,
    relu: bool = False,
) -> list[Launch]:
    """Return the launches of a convolution with a weight that is laid out."""
    if isinstance(layout, Pairs):
        return tensor_product(x, layout, bias, residual, out, win, relu)
    if isinstance(layout, Slabs):
        return direct(x, layout, bias, residual, out, win, relu)
    return product(x, layout, bias, residual, out, win, relu)


def pack(weight: DeviceArray, groups: int, dtype: Any = np.float32) -> Packed:
    """Lay a weight out once, for many calls of `conv2d`.

    Parameters
    ----------
    weight : [c_out, c_in / groups, k_h, k_w]
    groups : int
    dtype : NumPy type
        That it is stored in.
    """
    check("pack", weight=weight)
    c_out, c_group, *kernel = weight.shape
    x, y = (1, *kernel, c_group * groups), (1, 1, 1, c_out)
    shapes.conv2d(_Stand(x), weight, groups=groups)
    win = windows(x, y, kernel, 1, 0, groups)
    layout, launches = lined(weight, win, empty, dtype)
    Call(weight.machine, launches)()
    return Packed(weight.shape, groups, layout)


@dataclass(frozen=True)
class _Stand:
    """A shape without values."""

    shape: tuple[int, ...]


# --- the op ---------------------------------------------------------------------------------------


def bind_conv2d(
    x: DeviceArray,
    weight: DeviceArray | Packed,
    bias: DeviceArray | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    residual: DeviceArray | None = None,
    relu: bool = False,
    out: DeviceArray,
) -> Call:
    """Bind the call of `conv2d`; a weight that is not packed is laid out in each run."""
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, dilation=dilation,
        residual=residual, out=out,
    )  # fmt: skip
    values = weight.layout.data if isinstance(weight, Packed) else weight
    narrow = getattr(x, "dtype", None) in STORED[1:]
    types = STORED if narrow else (np.float32,)
    machine = check("conv2d", types, x=x, weight=values, bias=bias, residual=residual, out=out)
    if narrow:
        check("conv2d", bias=bias) if bias is not None else None
        same_type("conv2d", x=x, residual=residual)
        if isinstance(weight, Packed):
            same_type("conv2d", x=x, weight=values)
        if out.dtype != np.float32 or groups > 1 or residual is not None:
            same_type("conv2d", x=x, out=out)  # logits alone are not rounded
    steps = pair("dilation", dilation, 1)
    if steps != (1, 1):
        return _bind_dilated(
            x, weight, bias, pair("padding", padding, 0), groups, steps, residual, relu, out
        )
    win = windows(x.shape, shape, weight.shape[2:], stride, padding, groups)
    refill: list[Launch] = []
    if isinstance(weight, Packed):
        if weight.groups != groups:
            raise ValueError(
                f"conv2d: weight was packed for {weight.groups} groups, expected {groups}; "
                f"use pack(weight, {groups})"
            )
        layout = weight.layout
    else:
        layout, refill = lined(weight, win, scratch, x.dtype)
    x, win, first = gathered(x, win)
    launches = convolution(x, layout, bias, residual, out, win, relu)
    return Call(machine, [*refill, *first, *launches] if launches else [], out)


def _bind_dilated(
    x: DeviceArray,
    weight: DeviceArray | Packed,
    bias: DeviceArray | None,
    padding: tuple[int, int],
    groups: int,
    dilation: tuple[int, int],
    residual: DeviceArray | None,
    relu: bool,
    out: DeviceArray,
) -> Call:
    """Bind a dilated convolution: split, convolve and join (`interlaced`)."""
    parts = scratch(x.machine, parts_shape(x.shape, dilation), x.dtype)
    made = scratch(x.machine, parts_shape(out.shape, dilation), out.dtype)
    launches, other = split(x, dilation, parts), None
    if residual is not None:
        other = scratch(x.machine, made.shape, residual.dtype)
        launches += split(residual, dilation, other)
    inner = parts_padding(padding, dilation)
    call = bind_conv2d(
        parts, weight, bias, padding=inner, groups=groups, residual=other, relu=relu, out=made
    )
    return Call(x.machine, [*launches, *call.launches, *join(made, dilation, out, False)], out)


def conv2d(
    x: DeviceArray,
    weight: DeviceArray | Packed,
    bias: DeviceArray | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    residual: DeviceArray | None = None,
    relu: bool = False,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute the convolution with `grouped` where groups are narrow, else with `gemm`."""
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, dilation=dilation,
        residual=residual, out=out,
    )  # fmt: skip
    y = empty(check("conv2d", STORED, x=x), shape, x.dtype) if out is None else out
    bind_conv2d(
        x,
        weight,
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
