"""What is computed with integers of 8 bits: rounding to them, back, and a convolution of them.

A value of 8 bits stands for a real number: ``real = scale * integer``. There is one scale for all
values of an array. Of arrays without negative numbers, such as those behind a ReLU, the integers
are 0 to 255 (``uint8``), of others -127 to 127 (``int8``). So zero is zero, and a zero of the
padding is one too. Weights are -127 to 127, with a scale for each filter.

A convolution adds products of integers in 32 bits, and that is exact. So neither the order of the
sums nor the processor changes a bit of its result. Only plans of quantised networks use these ops.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..checks import Pair, Shape, Shaped, same
from .conv import conv2d

MOST_DEPTH = (2**31 - 1) // (255 * 127)  # products that a sum of 32 bits always has room for


def quantise(x: Shaped, *, scale: float, signed: bool = False, out: Shaped | None = None) -> Shape:
    """Return the shape of values as integers of 8 bits.

    ``y = round(x * (1 / scale))``, to the nearest integer, and to the even one of two that are as
    near. What is beyond the range becomes its end.

    Parameters
    ----------
    x : any shape, float32
    scale : float
        Positive.
    signed : bool
        Whether the range is -127 to 127 and not 0 to 255.
    out : like x, int8 or uint8, optional
    """
    same("quantise", "out", out, tuple(x.shape))
    return tuple(x.shape)


def dequantise(x: Shaped, *, scale: float, out: Shaped | None = None) -> Shape:
    """Return the shape of the numbers ``scale * x`` that integers of 8 bits stand for.

    Parameters
    ----------
    x : any shape, int8 or uint8
    scale : float
    out : like x, float32, optional
    """
    same("dequantise", "out", out, tuple(x.shape))
    return tuple(x.shape)


def conv2d_int8(
    x: Shaped,
    weight: Shaped,
    factor: Shaped,
    bias: Shaped,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Shaped | None = None,
    residual_scale: float = 1.0,
    relu: bool = False,
    scale: float | None = None,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of a convolution of integers of 8 bits.

    The sums of `conv2d` are exact in 32 bits. Then every step is one operation in float32::

        y = float32(sum) * factor + bias
        y = y + float32(residual) * residual_scale      with a residual
        y = max(y, 0)                                   with relu

    Without ``scale`` this is the result, float32. With it, the result is what `quantise` makes of
    ``y``: ``uint8`` with relu, else ``int8``.

    Parameters
    ----------
    x : [n, h, w, c_in] int8 or uint8
    weight : [c_out, c_in / groups, k_h, k_w] int8 from -127 to 127, or what ``pack_int8`` made
    factor, bias : [c_out] float32
        The scale of ``x`` times that of the filter's weights; and what is added.
    stride, padding, groups
        As for `conv2d`.
    residual : like the result, int8 or uint8, optional
    residual_scale : float
    relu : bool
    scale : float, optional
        Positive.
    out : like the result, optional

    Returns
    -------
    [n, h_out, w_out, c_out], as for `conv2d`

    Raises
    ------
    ValueError
        The shapes do not fit each other, or a sum has more products than 32 bits have room for.
    """
    shape = conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, residual=residual, out=out
    )
    same("conv2d_int8", "factor", factor, tuple(bias.shape))
    if (depth := prod(weight.shape[1:])) > MOST_DEPTH:
        raise ValueError(
            f"conv2d_int8: each sum has {depth:,} products of up to 255 * 127, and 32 bits have "
            f"room for {MOST_DEPTH:,}; compute this convolution in float32"
        )
    return shape


def inverse_of(scale: float) -> np.float32:
    """Return ``1 / scale`` in float32; every backend multiplies by this number.

    Raises
    ------
    ValueError
        The scale or its inverse is not a positive, finite number of float32.
    """
    with np.errstate(all="ignore"):
        found = np.float32(1) / np.float32(scale)
    if not (np.isfinite(found) and found > 0):
        raise ValueError(
            f"scale is {scale!r}, expected a positive number whose inverse float32 has, too"
        )
    return np.float32(found)
