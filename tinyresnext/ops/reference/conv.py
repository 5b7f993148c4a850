"""The definition of the convolution and its gradient: im2col in a few lines of NumPy."""

from __future__ import annotations

import numpy as np

from .. import shapes
from ..checks import Pair
from .windows import gather, place, windows_of

Array = np.ndarray


def conv2d(
    x: Array,
    weight: Array,
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
    """Split the channels into groups, transform each by a matrix product, and merge the results.

    The results of the groups are merged by writing them side by side.

    Arguments and result are those of `tinyresnext.ops.shapes.conv2d`.
    """
    shape = shapes.conv2d(
        x, weight, bias, stride=stride, padding=padding, groups=groups, dilation=dilation,
        residual=residual, out=out,
    )  # fmt: skip
    windows = windows_of(x, shape, weight.shape[2:], stride, padding, dilation=dilation)
    columns, filters = _split(windows, weight, groups)
    y = (columns @ filters.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(shape)
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + residual
    if relu:
        y = np.maximum(y, 0)
    return place(y, out)


def conv2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> tuple[Array | None, ...]:
    """Return ``dx``, ``dW`` and ``db`` of ``y = P W^T + b``, for each group.

    P are the windows of ``x`` as rows. ``dW = dy^T P``, ``db`` is the sum of ``dy`` over positions,
    and ``dx`` adds up ``dP = dy W`` at the places that the windows come from.

    Only plans use the epilogue (residual, relu), and plans are not differentiated: it has no
    gradient here.
    """
    windows = windows_of(x, y.shape, weight.shape[2:], stride, padding, dilation=dilation)
    columns, filters = _split(windows, weight, groups)
    # [groups, positions, c_out / groups]
    d = dy.reshape(-1, groups, weight.shape[0] // groups).transpose(1, 0, 2)
    dweight = (d.transpose(0, 2, 1) @ columns).reshape(weight.shape)
    dwindows = (d @ filters).transpose(1, 0, 2).reshape(windows.shape)
    dbias = None if bias is None else dy.sum((0, 1, 2))
    return gather(dwindows, x, stride, padding, dilation), dweight, dbias


def _split(windows: Array, weight: Array, groups: int) -> tuple[Array, Array]:
    """Return the columns (im2col) and the filters of each group.

    Returns
    -------
    columns : [groups, positions, fan_in]
    filters : [groups, c_out / groups, fan_in]
    """
    fan_in = weight[0].size
    columns = windows.reshape(-1, groups, fan_in).transpose(1, 0, 2)
    return columns, weight.reshape(groups, -1, fan_in)
