"""The shape of a convolution."""

from __future__ import annotations

import numpy as np

from ..checks import Pair, Shape, Shaped, dimensions, pair, same, slide


def conv2d(
    x: Shaped,
    weight: Shaped,
    bias: Shaped | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    residual: Shaped | None = None,
    relu: bool = False,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of a convolution.

    It convolves each of ``groups`` equal slices of the channels with its own filters.

    ``y[n, r, s, o] = bias[o] + sum over i, j, c of x[n, r*stride + i - padding, s*stride + j -
    padding, g*d + c] * weight[o, c, i, j]``, where ``c`` counts the ``d = c_in / groups`` channels
    of a group, ``g = o // (c_out / groups)`` is the group that ``o`` belongs to, and ``x`` is zero
    outside the image. A dilation multiplies i and j: the kernel reads values that lie so far apart.
    Then ``residual`` is added and, with ``relu``, what is below zero becomes zero.

    Each value of the result of a 1x1 convolution with one group is an inner product, Equation 1 of
    the paper (Xie et al. 2017): ``sum over i of w_i * x_i``. The vector ``x`` is split into its
    channels, each is transformed (scaled by ``w_i``), and the results are merged by a sum. Equation
    2 replaces the product ``w_i * x_i`` by a function ``T_i(x)``, a path of several layers. In the
    form of Figure 3c the paths are one block, whose middle layer is a convolution with a group for
    each path.

    Parameters
    ----------
    x : [n, h, w, c_in]
    weight : [c_out, c_in / groups, k_h, k_w], or what the backend's ``pack`` made of it
    bias : [c_out], optional
    stride, padding : int or (int, int)
    groups : int
        Divides ``c_in`` and ``c_out``. The paper's cardinality.
    dilation : int or (int, int)
        Other than 1 only with stride 1, and with a padding that is a multiple of it.
    residual : like the result, optional
    relu : bool
    out : like the result, optional

    Returns
    -------
    [n, h_out, w_out, c_out] with ``h_out = (h + 2*padding - dilation*(k_h - 1) - 1) // stride + 1``

    Raises
    ------
    ValueError
        The shapes do not fit each other, or the kernel is larger than the padded image.
    """
    n, h, w, c_in = dimensions("x", x, "n h w c")
    c_out, c_group, k_h, k_w = dimensions("weight", weight, "c_out c_in/groups k_h k_w")
    if 0 in weight.shape:
        raise ValueError(
            f"conv2d: weight has shape {tuple(weight.shape)}, expected no axis of length 0"
        )
    if (
        not isinstance(groups, (int, np.integer))
        or groups < 1
        or c_in != groups * c_group
        or c_out % groups
    ):
        fits = h == groups * c_group
        last = f"; channels come last: the second axis of x has {h}" if fits else ""
        raise ValueError(
            f"conv2d: x has {c_in} channels and weight {tuple(weight.shape)} takes {c_group} "
            f"in each of {groups} groups; c_in must be groups * {c_group} "
            f"and c_out = {c_out} a multiple of groups{last}"
        )
    if bias is not None and tuple(bias.shape) != (c_out,):
        raise ValueError(
            f"conv2d: bias has shape {tuple(bias.shape)}, expected ({c_out},): "
            "one value for each filter"
        )
    (s_h, s_w), (p_h, p_w) = pair("stride", stride, 1), pair("padding", padding, 0)
    d_h, d_w = pair("dilation", dilation, 1)
    if d_h * d_w > 1 and (s_h * s_w > 1 or p_h % d_h or p_w % d_w):
        raise ValueError(
            f"conv2d: dilation is {dilation!r}, stride {stride!r} and padding {padding!r}; with a "
            "dilation, expected stride 1 and a padding that is a multiple of the dilation"
        )
    high, wide = d_h * (k_h - 1) + 1, d_w * (k_w - 1) + 1
    y = (n, slide("conv2d", h, high, s_h, p_h), slide("conv2d", w, wide, s_w, p_w), c_out)
    same("conv2d", "residual", residual, y)
    same("conv2d", "out", out, y)
    return y


def parts_shape(shape: Shape, dilation: tuple[int, int]) -> Shape:
    """Return the shape of the parts that a dilation splits images into, as one mini-batch.

    Of images ``[n, h, w, c]`` each part has the pixels of one remainder of line and column, so each
    image has d_h x d_w parts (`tinyresnext.ops.cpu.interlaced`).
    """
    (n, h, w, c), (d_h, d_w) = shape, dilation
    return n * d_h * d_w, -(-h // d_h), -(-w // d_w), c


def parts_padding(padding: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return the padding of the parts of images, whose own is a multiple of the dilation."""
    return padding[0] // dilation[0], padding[1] // dilation[1]
