"""The op `conv2d_int8`: the weight is packed for one of two ways, and a call becomes launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....checks import Pair
from ....shapes import conv2d_int8 as shape_of
from ...conv.grouped import suits
from ...conv.windows import aligned, windows
from ...elementwise import copied
from ...runtime.arrays import DeviceArray, check, download, empty, scratch
from ...runtime.call import Call
from ...runtime.machine import Launch, Machine
from .ends import end_of
from .grouped import direct
from .pack import Turns, Words, matrices, turns
from .product import product
from .rounding import EIGHT


@dataclass(frozen=True, eq=False)
class PackedInt8:
    """A weight of integers, laid out for this backend's kernels.

    Attributes
    ----------
    shape : [c_out, c_in / groups, k_h, k_w]
        The weight's own.
    groups : int
    layout : Words or Turns
    """

    shape: tuple[int, ...]
    groups: int
    layout: Words | Turns


def pack(machine: Machine, weight: Any, groups: int) -> PackedInt8:
    """Lay a weight out once, for many calls of `conv2d_int8`.

    Parameters
    ----------
    machine : Machine
    weight : [c_out, c_in / groups, k_h, k_w] int8
        In NumPy's memory or on the machine.
    groups : int
    """
    values = download(weight) if isinstance(weight, DeviceArray) else np.asarray(weight)
    if values.dtype != np.int8 or values.ndim != 4 or 0 in values.shape:
        raise TypeError(
            f"pack_int8: weight is {values.dtype} {values.shape}, expected int8 [c_out, "
            "c_in/groups, k_h, k_w] with no axis of length 0"
        )
    c_out, narrow, *kernel = values.shape
    if groups < 1 or c_out % groups:
        raise ValueError(f"pack_int8: {c_out} filters are not {groups} equal groups")
    win = windows((1, *kernel, narrow * groups), (1, 1, 1, c_out), kernel, 1, 0, groups)
    way = turns if suits(win) else matrices
    return PackedInt8(values.shape, groups, way(machine, values, groups))


# --- the op ---------------------------------------------------------------------------------------


def conv2d_int8(
    x: DeviceArray,
    weight: DeviceArray | PackedInt8,
    factor: DeviceArray,
    bias: DeviceArray,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: DeviceArray | None = None,
    residual_scale: float = 1.0,
    relu: bool = False,
    scale: float | None = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute the convolution with `grouped` where groups are narrow, else with `product`."""
    shape = shape_of(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups, residual=residual,
        out=out,
    )  # fmt: skip
    made = np.float32 if scale is None else EIGHT[relu]
    y = empty(check("conv2d_int8", EIGHT, x=x), shape, made) if out is None else out
    bind_conv2d_int8(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups, residual=residual,
        residual_scale=residual_scale, relu=relu, scale=scale, out=y,
    )()  # fmt: skip
    return y


def bind_conv2d_int8(
    x: DeviceArray,
    weight: DeviceArray | PackedInt8,
    factor: DeviceArray,
    bias: DeviceArray,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: DeviceArray | None = None,
    residual_scale: float = 1.0,
    relu: bool = False,
    scale: float | None = None,
    out: DeviceArray,
) -> Call:
    """Bind the call; a weight that is not packed is packed now, once."""
    shape = shape_of(
        x, weight, factor, bias, stride=stride, padding=padding, groups=groups, residual=residual,
        out=out,
    )  # fmt: skip
    check("conv2d_int8", EIGHT, x=x, **({} if residual is None else {"residual": residual}))
    check("conv2d_int8", factor=factor, bias=bias)
    types = *EIGHT, np.float32
    machine = check("conv2d_int8", types, x=x, a=factor, b=bias, residual=residual, out=out)
    wanted = np.dtype(np.float32 if scale is None else EIGHT[relu])
    if out.dtype != wanted:
        raise TypeError(f"conv2d_int8: out is {out.dtype}, expected {wanted}")
    packed = weight if isinstance(weight, PackedInt8) else pack(machine, weight, groups)
    if packed.groups != groups:
        raise ValueError(
            f"conv2d_int8: weight was packed for {packed.groups} groups, expected {groups}; "
            f"use pack_int8(weight, {groups})"
        )
    win = windows(x.shape, shape, packed.shape[2:], stride, padding, groups)
    launches: list[Launch] = []

    def begun(array: DeviceArray) -> DeviceArray:
        """Return an array that begins at a multiple of 16 bytes: the same, or a copy."""
        if aligned(array):
            return array
        made = scratch(machine, array.shape, array.dtype)
        launches.append(copied(array, made))
        return made

    x, factor, bias = begun(x), begun(factor), begun(bias)
    residual = None if residual is None else begun(residual)
    end = end_of(factor, bias, residual, residual_scale, relu, scale)
    y = out if aligned(out) else scratch(machine, out.shape, out.dtype)
    if isinstance(packed.layout, Turns):
        made = direct(x, packed.layout, end, y, win)
    else:
        made = product(x, packed.layout, end, y, win)
    last = [] if y is out else [copied(y, out)]
    return Call(machine, [*launches, *made, *last] if made else [], out)
