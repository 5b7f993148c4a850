"""The definition of the poolings and their gradients."""

from __future__ import annotations

import numpy as np

from .. import shapes
from ..checks import Pair, pair
from .windows import gather, place, windows_of

Array = np.ndarray


def max_pool2d(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Array | None = None,
) -> Array:
    """Return the maximum of each window, after padding with minus infinity.

    Arguments and result are those of `tinyresnext.ops.shapes.max_pool2d`.
    """
    shape = shapes.max_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    return place(
        windows_of(x, shape, pair("size", size, 1), stride, padding, -np.inf).max((4, 5)), out
    )


def max_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
) -> tuple[Array]:
    """Pass the gradient to the first largest value of each window, row by row, as in PyTorch."""
    k_h, k_w = pair("size", size, 1)
    windows = windows_of(x, y.shape, (k_h, k_w), stride, padding, -np.inf)
    first = windows.reshape(*y.shape, k_h * k_w).argmax(-1)
    hit = first[..., None] == np.arange(k_h * k_w)
    passed = np.where(hit, dy[..., None], dy.dtype.type(0))
    return (gather(passed.reshape(windows.shape), x, stride, padding),)


def avg_pool2d(
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Array | None = None,
) -> Array:
    """Divide the sum of each window by the number of places that count.

    Arguments and result are those of `tinyresnext.ops.shapes.avg_pool2d`.
    """
    shape = shapes.avg_pool2d(
        x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out
    )
    total = windows_of(x, shape, pair("size", size, 1), stride, padding).sum((4, 5))
    return place(total / _places(x, shape, size, stride, padding, count_include_pad), out)


def avg_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> tuple[Array]:
    """Give every value of a window an equal share."""
    share = dy / _places(x, y.shape, size, stride, padding, count_include_pad)
    dwindows = np.broadcast_to(share[..., None, None], (*y.shape, *pair("size", size, 1)))
    return (gather(dwindows, x, stride, padding),)


def mean_pool(x: Array, *, keepdims: bool = False, out: Array | None = None) -> Array:
    """Take the mean over height and width; the sum is float64 at least.

    Arguments and result are those of `tinyresnext.ops.shapes.mean_pool`.
    """
    shapes.mean_pool(x, keepdims=keepdims, out=out)
    mean = x.mean((1, 2), np.promote_types(x.dtype, np.float64), keepdims=keepdims)
    return place(mean.astype(x.dtype), out)


def mean_pool_backward(dy: Array, y: Array, x: Array, *, keepdims: bool = False) -> tuple[Array]:
    """Give every position an equal share."""
    n, h, w, c = x.shape
    return (np.broadcast_to(dy.reshape(n, 1, 1, c) / (h * w), x.shape),)


def blur_pool(x: Array, *, stride: int = 2, out: Array | None = None) -> Array:
    """Reflect the edges, weigh each window with the binomial filter, and add.

    Arguments and result are those of `tinyresnext.ops.shapes.blur_pool`.
    """
    shape = shapes.blur_pool(x, stride=stride, out=out)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    windows = windows_of(padded, shape, (3, 3), stride, 0)
    return place((windows * _binomial(x)).sum((4, 5)), out)


def blur_pool_backward(dy: Array, y: Array, x: Array, *, stride: int = 2) -> tuple[Array]:
    """Give each value its weights' share, and those of the reflected edges to where they lie."""
    n, h, w, c = x.shape
    padded = np.broadcast_to(x.dtype.type(0), (n, h + 2, w + 2, c))
    d = gather(dy[..., None, None] * _binomial(x), padded, stride, 0)
    d[:, 2] += d[:, 0]
    d[:, h - 1] += d[:, h + 1]
    d[:, :, 2] += d[:, :, 0]
    d[:, :, w - 1] += d[:, :, w + 1]
    return (d[:, 1:-1, 1:-1],)


def _binomial(x: Array) -> Array:
    """Return the filter ``[1 2 1] x [1 2 1] / 16`` in the type of ``x``."""
    return (np.outer((1, 2, 1), (1, 2, 1)) / 16).astype(x.dtype)


def _places(
    x: Array, shape: shapes.Shape, size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    """Return how many places of each window count, ``[h_out, w_out, 1]``."""
    along = []
    for length, count, k, s, p in zip(
        x.shape[1:3],
        shape[1:3],
        pair("size", size, 1),
        pair("stride", stride, 1),
        pair("padding", padding, 0),
        strict=True,
    ):
        start = np.arange(count) * s - p
        low, high = (-p, length + p) if count_include_pad else (0, length)
        along.append(np.minimum(start + k, high) - np.maximum(start, low))
    return np.multiply.outer(along[0], along[1])[..., None].astype(x.dtype)
