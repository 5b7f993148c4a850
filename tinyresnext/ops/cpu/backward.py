"""The gradients that are passes over memory, or too small to matter; the others are in `conv_backward` and `norm_train`.

A linear layer is a 1x1 convolution of pictures of one pixel, and so are its gradients. What has one
value for each picture and class (softmax, loss) is computed as `tinyresnext.ops.reference` defines
it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import reference
from ..shapes import Pair, pair
from .conv.backward import conv2d_backward
from .norm_train import VALUES, frozen_backward
from .runtime.crew import Step, Work, chain, compiled, run, take
from .runtime.memory import Array, empty, flat
from .runtime.simd import aligned

# --- kernels --------------------------------------------------------------------------------------


def _relu(x, dy, bias, residual, out, g, counters):
    """``dy`` where ``x`` is positive; tasks of ``length`` values."""
    task = take(counters, 0)
    while task < g.tasks:
        for i in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.n))):
            d = dy[i]
            out[i] = d if x[i] > 0 else np.float32(0)
        task = take(counters, 0)
    take(counters, 1)


def _max_pool(x, dy, bias, residual, out, g, counters):
    """Each window's first largest value receives its gradient. A task is a picture.

    All channels of a window are looked at together, in vectors: which value is the largest so far,
    and where it is. With ``g.parts`` what is there already stays.
    """
    channels = np.uintp(g.c_in)
    largest, where = aligned(g.c_in), np.empty(g.c_in, np.uintp)
    task = take(counters, 0)
    while task < g.tasks:
        size = g.h * g.w * g.c_in
        if not g.parts:
            out[task * size : (task + 1) * size] = 0
        for line in range(g.h_out):
            for column in range(g.w_out):
                top, left = line * g.s_h - g.p_h, column * g.s_w - g.p_w
                first = np.uintp(((task * g.h + max(top, 0)) * g.w + max(left, 0)) * g.c_in)
                for c in range(channels):
                    largest[c], where[c] = x[first + c], first
                for y in range(max(top, 0), min(top + g.k_h, g.h)):
                    for z in range(max(left, 0), min(left + g.k_w, g.w)):
                        at = np.uintp(((task * g.h + y) * g.w + z) * g.c_in)
                        for c in range(channels):
                            value, before = x[at + c], largest[c]
                            # Not-a-number wins, as it does forward.
                            larger = (value > before) | ((value != value) & (before == before))
                            largest[c] = value if larger else before
                            where[c] = at if larger else where[c]
                source = np.uintp(((task * g.h_out + line) * g.w_out + column) * g.c_in)
                for c in range(channels):
                    out[where[c] + c] += dy[source + c]
        task = take(counters, 0)
    take(counters, 1)


def _avg_pool(x, dy, bias, residual, out, g, counters):
    """Every value of a window receives an equal share. A task is a picture.

    ``g.add`` says whether the padding counts too, ``g.parts`` whether what is there already stays.
    """
    task = take(counters, 0)
    while task < g.tasks:
        size = g.h * g.w * g.c_in
        if not g.parts:
            out[task * size : (task + 1) * size] = 0
        for line in range(g.h_out):
            for column in range(g.w_out):
                top, left = line * g.s_h - g.p_h, column * g.s_w - g.p_w
                bottom, right = min(top + g.k_h, g.h), min(left + g.k_w, g.w)
                if g.add:
                    places = (min(top + g.k_h, g.h + g.p_h) - top) * (
                        min(left + g.k_w, g.w + g.p_w) - left
                    )
                else:
                    places = (bottom - max(top, 0)) * (right - max(left, 0))
                source = ((task * g.h_out + line) * g.w_out + column) * g.c_in
                for y in range(max(top, 0), bottom):
                    for z in range(max(left, 0), right):
                        at = ((task * g.h + y) * g.w + z) * g.c_in
                        for c in range(g.c_in):
                            out[at + c] += dy[source + c] / np.float32(places)
        task = take(counters, 0)
    take(counters, 1)


@functools.cache
def _kernels() -> dict[str, Any]:
    """Compiled when they are first needed."""
    return {
        f.__name__: functools.cache(functools.partial(compiled, f))
        for f in (_relu, _max_pool, _avg_pool)
    }


def _window(x: Array, y: Array, size: Pair, stride: Pair, padding: Pair) -> dict[str, int]:
    """The numbers of a pooling."""
    n, h, w, c = x.shape
    (k_h, k_w), (s_h, s_w), (p_h, p_w) = (
        pair("size", size, 1),
        pair("stride", stride, 1),
        pair("padding", padding, 0),
    )
    numbers = {
        "n": n,
        "h": h,
        "w": w,
        "c_in": c,
        "h_out": y.shape[1],
        "w_out": y.shape[2],
        "tasks": n,
    }
    return numbers | {"k_h": k_h, "k_w": k_w, "s_h": s_h, "s_w": s_w, "p_h": p_h, "p_w": p_w}


def _bind_pool(
    kernel: str, dy: Array, x: Array, numbers: dict[str, int], out: Array | None, more: bool
) -> Callable[[], None]:
    """Prepare the gradient of a pooling; with ``more`` it is added to what ``out`` holds."""
    if out is None:
        return chain([])
    source, gradient = flat(kernel[1:], "x", x), flat(kernel[1:], "dy", dy)
    work = Work(**(dict.fromkeys(Work._fields, 0) | numbers | {"parts": int(more)}))
    return Step(_kernels()[kernel](), source, gradient, gradient, gradient, out.reshape(-1), work)


# --- public ops -----------------------------------------------------------------------------------


def relu_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """One pass."""
    source, gradient, out = (
        flat("relu_backward", "x", x),
        flat("relu_backward", "dy", dy),
        empty(x.shape),
    )
    numbers = {"n": x.size, "length": VALUES, "tasks": -(-x.size // VALUES)}
    work = Work(**(dict.fromkeys(Work._fields, 0) | numbers))
    run(_kernels()["_relu"](), source, gradient, gradient, gradient, out.reshape(-1), work)
    return (out,)


def add_backward(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Both are the gradient that comes in, itself."""
    return dz, dz


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
    """The place of the largest value is looked for again."""
    out = (empty(x.shape),)
    bind_max_pool2d_backward(
        dy, y, x, size=size, stride=stride, padding=padding, out=out, more=(False,)
    )()
    return out


def bind_max_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: tuple[Array | None],
    more: tuple[bool],
) -> Callable[[], None]:
    """The gradient goes where it is wanted at once."""
    return _bind_pool("_max_pool", dy, x, _window(x, y, size, stride, padding), out[0], more[0])


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
    """Window by window."""
    attrs = {
        "size": size,
        "stride": stride,
        "padding": padding,
        "count_include_pad": count_include_pad,
    }
    out = (empty(x.shape),)
    bind_avg_pool2d_backward(dy, y, x, **attrs, out=out, more=(False,))()
    return out


def bind_avg_pool2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: tuple[Array | None],
    more: tuple[bool],
) -> Callable[[], None]:
    """As that of the max pooling."""
    numbers = _window(x, y, size, stride, padding) | {"add": int(count_include_pad)}
    return _bind_pool("_avg_pool", dy, x, numbers, out[0], more[0])


def mean_pool_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """Every position receives its share."""
    out = (empty(x.shape),)
    bind_mean_pool_backward(dy, y, x, out=out, more=(False,))()
    return out


def bind_mean_pool_backward(
    dy: Array, y: Array, x: Array, *, out: tuple[Array | None], more: tuple[bool]
) -> Callable[[], None]:
    """An average over one window."""
    window = x.shape[1:3]
    return bind_avg_pool2d_backward(
        dy[:, None, None], y[:, None, None], x, size=window, stride=window, out=out, more=more
    )


def batch_norm_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
) -> tuple[Array, ...]:
    """The statistics are constants: the two sums, and one multiplication a value."""
    return frozen_backward(dy, x, scale, mean, var, eps)


def linear_backward(
    dy: Array, y: Array, x: Array, weight: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """The gradients of a 1x1 convolution."""
    dx, dweight, dbias = conv2d_backward(
        dy[:, None, None], y[:, None, None], x[:, None, None], weight[:, :, None, None], bias
    )
    return dx.reshape(x.shape), dweight.reshape(weight.shape), dbias


def softmax_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """As it is defined."""
    return reference.softmax_backward(dy, y, x)


def softmax_cross_entropy(
    x: Array, *, labels: Array, smoothing: float = 0.0, out: Array | None = None
) -> Array:
    """As it is defined."""
    return reference.softmax_cross_entropy(x, labels=labels, smoothing=smoothing, out=out)


def softmax_cross_entropy_backward(
    dy: Array, y: Array, x: Array, *, labels: Array, smoothing: float = 0.0
) -> tuple[Array]:
    """As it is defined."""
    return reference.softmax_cross_entropy_backward(dy, y, x, labels=labels, smoothing=smoothing)


def bound(
    backward: Callable[..., tuple[Array | None, ...]],
    *args: Any,
    out: Sequence[Any],
    more: Sequence[bool],
    **attrs: Any,
):
    """Call a gradient and put what it returns where it is wanted."""

    def back() -> None:
        for place, add, gradient in zip(out, more, backward(*args, **attrs), strict=False):
            if place is not None:
                np.copyto(place, place + gradient if add else gradient)

    return back
