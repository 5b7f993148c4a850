"""The numbers that all poolings over windows share."""

from __future__ import annotations

from typing import NamedTuple

from ...checks import Pair, Shape, pair
from ..runtime.kernel import part


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


@part(inline=True)
def cleared(out, sample, g):
    """Fill the gradient of a sample with zeros, unless it is added to what is there."""
    size = g.h * g.w * g.c
    if not g.add:
        out[sample * size : (sample + 1) * size] = 0
