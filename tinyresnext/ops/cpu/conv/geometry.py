"""The geometry of a convolution: the sizes that all its kernels begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...checks import Pair, Shape, pair


class Geometry(NamedTuple):
    """Sizes of one convolution; the numbers of a kernel of convolutions begin with these names."""

    n: int
    h: int
    w: int
    c_in: int
    h_out: int
    w_out: int
    c_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    groups: int

    @property
    def positions(self) -> int:
        """Return the number of positions of the result."""
        return self.n * self.h_out * self.w_out

    @property
    def width(self) -> int:
        """Return the number of output channels of a group."""
        return self.c_out // self.groups


def geometry(
    x: Shape, y: Shape, kernel: Sequence[int], stride: Pair, padding: Pair, groups: int
) -> Geometry:
    """Return the geometry of a convolution.

    Parameters
    ----------
    x : (n, h, w, c_in)
    y : (n, h_out, w_out, c_out)
    kernel : (k_h, k_w)
    stride, padding : int or (int, int)
    groups : int
    """
    (n, h, w, c_in), (_, h_out, w_out, c_out), (k_h, k_w) = x, y, kernel
    (s_h, s_w), (p_h, p_w) = pair("stride", stride, 1), pair("padding", padding, 0)
    return Geometry(
        n, h, w, c_in, h_out, w_out, c_out, k_h, k_w, s_h, s_w, p_h, p_w, groups
    )  # fmt: skip
