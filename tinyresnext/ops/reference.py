"""Every op and its gradient in a few lines of NumPy. This file is the definition; the other backends are only faster.

It computes in the type it is given: float64 in, float64 out. Shapes, arguments and errors: `tinyresnext.ops.shapes`.
Inside, ``windows`` is always ``[n, h_out, w_out, c, k_h, k_w]``: what each output position sees of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import UsageError
from . import shapes
from .shapes import Pair, pair

Array = np.ndarray


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Array | None = None,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Split the channels into groups, transform each by a matrix product, merge by writing them side by side."""
    shape = shapes.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups, residual=residual, out=out)
    columns, filters = _split(_windows(x, shape, weight.shape[2:], stride, padding), weight, groups)
    y = (columns @ filters.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(shape)
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + residual
    if relu:
        y = np.maximum(y, 0)
    return _place(y, out)


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
) -> tuple[Array | None, ...]:
    """Transpose the forward product twice: towards the weights over positions, towards the input over filters.

    The epilogue (residual, relu) is what plans say and plans are not differentiated, so it has no gradient here.
    """
    windows = _windows(x, y.shape, weight.shape[2:], stride, padding)
    columns, filters = _split(windows, weight, groups)
    d = dy.reshape(-1, groups, weight.shape[0] // groups).transpose(1, 0, 2)  # [groups, positions, c_out / groups]
    dweight = (d.transpose(0, 2, 1) @ columns).reshape(weight.shape)
    dwindows = (d @ filters).transpose(1, 0, 2).reshape(windows.shape)
    dbias = None if bias is None else dy.sum((0, 1, 2))
    return _gather(dwindows, x, stride, padding), dweight, dbias


def batch_norm(
    x: Array, scale: Array, shift: Array, mean: Array, var: Array, *, eps: float = 1e-5, out: Array | None = None
) -> Array:
    """One multiplication and one addition a value; the statistics are constants."""
    shapes.batch_norm(x, scale, shift, mean, var, eps=eps, out=out)
    return _place((x - mean) * (scale / np.sqrt(var + x.dtype.type(eps))) + shift, out)


def batch_norm_backward(
    dy: Array, y: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, ...]:
    """``y = (x - mean) * rstd * scale + shift``, term by term."""
    rstd = 1 / np.sqrt(var + x.dtype.type(eps))
    dshift = dy.sum((0, 1, 2))
    centred = (dy * (x - mean)).sum((0, 1, 2))
    return dy * (scale * rstd), centred * rstd, dshift, -dshift * scale * rstd, -centred * scale * rstd**3 / 2


def batch_norm_train(
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    out: Array | None = None,
) -> Array:
    """`batch_norm` with the statistics of the batch itself."""
    shapes.batch_norm_train(x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, out=out)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    if statistics is not None:
        statistics[:] = mean, var
    y = batch_norm(x, scale, shift, mean, var, eps=eps)
    if residual is not None:
        y = y + residual
    return _place(np.maximum(y, 0) if relu else y, out)


def batch_norm_train_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
) -> tuple[Array | None, ...]:
    """The statistics depend on every value, so two means are taken out of the gradient (Ioffe and Szegedy, section 3)."""
    if relu:
        dy = dy * (y > 0)
    rstd = 1 / np.sqrt(x.var((0, 1, 2)) + x.dtype.type(eps))
    normalised = (x - x.mean((0, 1, 2))) * rstd
    dshift, dscale = dy.sum((0, 1, 2)), (dy * normalised).sum((0, 1, 2))
    count = x.size // x.shape[-1]
    dx = scale * rstd * (dy - dshift / count - normalised * (dscale / count))
    return dx, dscale, dshift, None if residual is None else dy


def relu(x: Array, *, out: Array | None = None) -> Array:
    """The larger of the value and zero."""
    shapes.relu(x, out=out)
    return _place(np.maximum(x, 0), out)


def relu_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """Passes where the input was positive; at zero itself the gradient is zero, as in every framework."""
    return (dy * (x > 0),)


def add(x: Array, y: Array, *, out: Array | None = None) -> Array:
    """Sum, value by value."""
    shapes.add(x, y, out=out)
    return _place(x + y, out)


def add_backward(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Both summands see the whole gradient: this is why a residual network can be deep."""
    return dz, dz


def max_pool2d(
    x: Array, *, size: Pair, stride: Pair, padding: Pair = 0, ceil_mode: bool = False, out: Array | None = None
) -> Array:
    """Padding with minus infinity never wins, since no window lies wholly in it."""
    shape = shapes.max_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out)
    return _place(_windows(x, shape, pair("size", size, 1), stride, padding, -np.inf).max((4, 5)), out)


def max_pool2d_backward(
    dy: Array, y: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair = 0, ceil_mode: bool = False
) -> tuple[Array]:
    """The first largest value of each window, row by row, receives the gradient, as in PyTorch."""
    k_h, k_w = pair("size", size, 1)
    windows = _windows(x, y.shape, (k_h, k_w), stride, padding, -np.inf)
    first = windows.reshape(*y.shape, k_h * k_w).argmax(-1)
    hit = first[..., None] == np.arange(k_h * k_w)
    return (_gather((dy[..., None] * hit).reshape(windows.shape), x, stride, padding),)


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
    """The sum of each window over the number of places that count."""
    shape = shapes.avg_pool2d(x, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode, out=out)
    total = _windows(x, shape, pair("size", size, 1), stride, padding).sum((4, 5))
    return _place(total / _places(x, shape, size, stride, padding, count_include_pad), out)


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
    """Every value of a window receives its equal share."""
    share = dy / _places(x, y.shape, size, stride, padding, count_include_pad)
    dwindows = np.broadcast_to(share[..., None, None], (*y.shape, *pair("size", size, 1)))
    return (_gather(dwindows, x, stride, padding),)


def mean_pool(x: Array, *, out: Array | None = None) -> Array:
    """Mean over height and width."""
    shapes.mean_pool(x, out=out)
    return _place(x.mean((1, 2)), out)


def mean_pool_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """Every position receives its equal share."""
    share = dy[:, None, None, :] / (x.shape[1] * x.shape[2])
    return (np.broadcast_to(share, x.shape),)


def linear(x: Array, weight: Array, bias: Array, *, out: Array | None = None) -> Array:
    """A matrix product and a bias."""
    shapes.linear(x, weight, bias, out=out)
    return _place(x @ weight.T + bias, out)


def linear_backward(dy: Array, y: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
    """The product transposed both ways."""
    return dy @ weight, dy.T @ x, dy.sum(0)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Shifting by the largest logit changes nothing but keeps ``exp`` from overflowing."""
    shapes.softmax(x, out=out)
    with np.errstate(over="ignore"):  # a logit that is further below than float can say has probability zero
        e = np.exp(x - x.max(1, keepdims=True))
    return _place(e / e.sum(1, keepdims=True), out)


def softmax_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """``dx = y * (dy - <dy, y>)``: only what changes the proportions counts."""
    return (y * (dy - (dy * y).sum(1, keepdims=True)),)


def softmax_cross_entropy(x: Array, *, labels: Array, smoothing: float = 0.0, out: Array | None = None) -> Array:
    """Logarithms are taken of the sum of exponentials, never of a probability that may be zero."""
    shapes.softmax_cross_entropy(x, labels=labels, smoothing=smoothing, out=out)
    shifted = x - x.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return _place(-(_targets(x, labels, smoothing) * log_p).sum() / x.dtype.type(len(x)), out)


def softmax_cross_entropy_backward(dy: Array, y: Array, x: Array, *, labels: Array, smoothing: float = 0.0) -> tuple[Array]:
    """Probability minus target, shared over the batch."""
    return (dy * (softmax(x) - _targets(x, labels, smoothing)) / x.dtype.type(len(x)),)


def empty(shape: Sequence[int], dtype: np.dtype | type = np.float32) -> Array:
    """Memory for a result."""
    return np.empty(shape, dtype)


def upload(array: Array) -> Array:
    """NumPy's own memory is this backend's device: nothing moves."""
    return array


def download(array: Array) -> Array:
    """Nothing moves."""
    return array


def thread_count(asked: int | None = None) -> int:
    """One: what NumPy does with more, it decides itself, before it is told anything from here."""
    if asked not in (None, 1):
        raise UsageError(
            f"threads is {asked!r}, and plain NumPy has its own: set OPENBLAS_NUM_THREADS before Python starts, or choose "
            "another device"
        )
    return 1


def on_threads(count: int) -> AbstractContextManager[None]:
    """Nothing to be done."""
    return nullcontext()


def when_compiling(tell: Callable[[], None], after: float = 1.0) -> AbstractContextManager[None]:
    """Nothing is compiled."""
    return nullcontext()


def pack(weight: Array, groups: int) -> Array:
    """The checkpoint's own layout is good enough here."""
    return weight


def bind(op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
    """Nothing is prepared: the call is made anew each time."""
    if not op.endswith("_backward"):
        return partial(globals()[op], *args, **attrs)
    out, more = attrs.pop("out"), attrs.pop("more")

    def run() -> None:
        for place, add, gradient in zip(out, more, globals()[op](*args, **attrs), strict=False):
            if place is not None:
                np.copyto(place, place + gradient if add else gradient)

    return run


def chain(calls: Sequence[Callable[[], Any]]) -> Callable[[], None]:
    """One after the other."""

    def run_all() -> None:
        for call in calls:
            call()

    return run_all


def at_once(n: int) -> int:
    """All of them."""
    return max(1, n)


def _windows(x: Array, shape: shapes.Shape, kernel: Sequence[int], stride: Pair, padding: Pair, fill: float = 0.0) -> Array:
    """A view of the padded picture: ``[n, h_out, w_out, c, k_h, k_w]``."""
    lead, (s_h, s_w) = pair("padding", padding, 0), pair("stride", stride, 1)
    h_out, w_out = shape[1:3]
    reach = ((h_out - 1) * s_h + kernel[0], (w_out - 1) * s_w + kernel[1])
    trail = [max(0, r - p - length) for r, p, length in zip(reach, lead, x.shape[1:3], strict=True)]
    x = np.pad(x, ((0, 0), (lead[0], trail[0]), (lead[1], trail[1]), (0, 0)), constant_values=fill)
    return sliding_window_view(x, tuple(kernel), axis=(1, 2))[:, ::s_h, ::s_w][:, :h_out, :w_out]


def _split(windows: Array, weight: Array, groups: int) -> tuple[Array, Array]:
    """Columns ``[groups, positions, fan_in]`` and filters ``[groups, c_out / groups, fan_in]``: im2col, once a group."""
    fan_in = weight[0].size
    columns = windows.reshape(-1, groups, fan_in).transpose(1, 0, 2)
    return columns, weight.reshape(groups, -1, fan_in)


def _gather(dwindows: Array, x: Array, stride: Pair, padding: Pair) -> Array:
    """The transpose of `_windows`: sum what every window says about each value of ``x``."""
    (p_h, p_w), (s_h, s_w) = pair("padding", padding, 0), pair("stride", stride, 1)
    n, h, w, c = x.shape
    _, h_out, w_out, _, k_h, k_w = dwindows.shape
    dx = np.zeros((n, max(p_h + h, (h_out - 1) * s_h + k_h), max(p_w + w, (w_out - 1) * s_w + k_w), c), dwindows.dtype)
    for i, j in np.ndindex(k_h, k_w):
        dx[:, i : i + s_h * h_out : s_h, j : j + s_w * w_out : s_w] += dwindows[..., i, j]
    return dx[:, p_h : p_h + h, p_w : p_w + w]


def _places(x: Array, shape: shapes.Shape, size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Array:
    """How many places of each window count, ``[h_out, w_out, 1]``."""
    along = []
    for length, count, k, s, p in zip(
        x.shape[1:3], shape[1:3], pair("size", size, 1), pair("stride", stride, 1), pair("padding", padding, 0), strict=True
    ):
        start = np.arange(count) * s - p
        low, high = (-p, length + p) if count_include_pad else (0, length)
        along.append(np.minimum(start + k, high) - np.maximum(start, low))
    return np.multiply.outer(along[0], along[1])[..., None].astype(x.dtype)


def _targets(x: Array, labels: Array, smoothing: float) -> Array:
    """One-hot rows, or the distributions that were given, smoothed."""
    labels = np.asarray(labels)
    rows = labels if labels.ndim == 2 else np.arange(x.shape[1]) == labels[:, None]
    return (rows * (1 - smoothing) + smoothing / x.shape[1]).astype(x.dtype)


def _place(y: Array, out: Array | None) -> Array:
    """The result, in the caller's memory when there is some."""
    if out is None:
        return y
    np.copyto(out, y)
    return out
