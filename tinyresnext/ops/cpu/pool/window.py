"""The numbers that all poolings over windows share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.core import types
from numba.extending import overload

from ...checks import Pair, Shape, pair
from ..runtime.kernel import as_part, part
from ..runtime.memory import HALF
from ..runtime.simd import copy, working


class Window(NamedTuple):
    """The numbers of a pooling and of its gradient."""

    n: int
    h: int
    w: int
    c: int
    h_out: int
    w_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    count_pad: int  # 1 where an average counts the padding too
    add: int  # 1 where the gradient is added to what is there
    tasks: int


def window(
    x: Shape,
    y: Shape,
    size: Pair,
    stride: Pair,
    padding: Pair,
    tasks: int,
    *,
    count_pad: bool = False,
    add: bool = False,
) -> Window:
    """Return the numbers of a pooling."""
    (n, h, w, c), (_, h_out, w_out, _) = x, y
    (k_h, k_w), (s_h, s_w) = pair("size", size, 1), pair("stride", stride, 1)
    p_h, p_w = pair("padding", padding, 0)
    return Window(
        n, h, w, c, h_out, w_out, k_h, k_w, s_h, s_w, p_h, p_w, int(count_pad), int(add), tasks
    )  # fmt: skip


def room_for(out, g):
    """Return memory for the sums of a sample's gradient, where ``out`` is bfloat16."""
    return working(g.h * g.w * g.c if out.dtype == HALF else 0, np.float32)


def _sums(out, first, room):
    """Return where a sample's sums are: in ``out`` from ``first`` on, or in ``room``."""
    return room if out.dtype == HALF else out[first:]


@overload(room_for, jit_options=as_part(inline=True))
def _room_for(out, g):
    """Replace `room_for` in compiled code."""
    if out.dtype == types.uint16:
        return lambda out, g: working(g.h * g.w * g.c, np.float32)
    return lambda out, g: out


@overload(_sums, jit_options=as_part(inline=True))
def _sums_of(out, first, room):
    """Replace `_sums` in compiled code."""
    if out.dtype == types.uint16:
        return lambda out, first, room: room
    return lambda out, first, room: out[first:]


@part(inline=True)
def begun(out, room, sample, g):
    """Return the sums that a sample's gradient begins with: zeros, or what it is added to."""
    size = g.h * g.w * g.c
    sums = _sums(out, sample * size, room)
    if g.add:
        if out.itemsize == 2:
            copy(out, sample * size, sums, 0, size)
    else:
        sums[:size] = 0
    return sums


@part(inline=True)
def ended(sums, out, sample, g):
    """Round the sums of a sample, where its gradient is bfloat16."""
    size = g.h * g.w * g.c
    if out.itemsize == 2:
        copy(sums, 0, out, sample * size, size)
