"""The geometry of a convolution: the sizes that all its kernels begin with, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...checks import Pair, Shape, pair
from ..runtime.kernel import part
from ..runtime.memory import Array


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


@part(inline=True)
def taken(g, task, units):
    """Return what a task computes: its strip, image, lines, and share of the ``units``.

    Of lines and units these are the first, and the one behind the last.
    """
    place, share = divmod(task, g.shares)
    n, strip = divmod(place, g.strips)
    first, last = strip * g.lines, min((strip + 1) * g.lines, g.h_out)
    return place, n, first, last, share * units // g.shares, (share + 1) * units // g.shares


# --- back to the input ----------------------------------------------------------------------------


class Taps(NamedTuple):
    """The taps that reach the places ``offset``, ``offset + stride`` ... along one direction.

    Attributes
    ----------
    taps : list of int or None
        The columns of the turned kernel: taps of the forward kernel, or None for a column of zeros.
    padding : int
        Of the convolution of ``dy`` with them.
    places : int
        How many such places there are.
    """

    taps: list[int | None]
    padding: int
    places: int


def taps_of(offset: int, length: int, kernel: int, stride: int, padding: int) -> Taps:
    """Return the taps that reach the places ``stride * q + offset``.

    Tap ``i`` of result ``r`` reaches the place ``r * stride + i - padding``.
    """
    reach = {
        (offset + padding - i) // stride: i
        for i in range(kernel)
        if (offset + padding - i) % stride == 0
    }
    places = len(range(offset, length, stride))
    if not reach:
        return Taps([], 0, places)
    low = min(0, *reach)
    return Taps([reach.get(step) for step in range(low, max(reach) + 1)], -low, places)


def turned(weight: Array, groups: int, rows: list[int | None], columns: list[int | None]) -> Array:
    """Return the weight of the convolution back to the input.

    Returns
    -------
    [c_in, c_out / groups, rows, columns]
    """
    c_out, c_group, k_h, k_w = weight.shape
    split = weight.reshape(groups, c_out // groups, c_group, k_h, k_w).swapaxes(1, 2)
    made = np.zeros((groups, c_group, c_out // groups, len(rows), len(columns)), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if row is not None and column is not None:
                made[..., i, j] = split[..., row, column]
    return made.reshape(groups * c_group, c_out // groups, len(rows), len(columns))
