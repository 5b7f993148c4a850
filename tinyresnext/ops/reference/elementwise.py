"""The definition of ReLU, the residual addition and the scaling, and of their gradients."""

from __future__ import annotations

import numpy as np

from .. import shapes
from .windows import place

Array = np.ndarray


def relu(x: Array, *, out: Array | None = None) -> Array:
    """Return the larger of the value and zero; see `tinyresnext.ops.shapes.relu`."""
    shapes.relu(x, out=out)
    return place(np.maximum(x, 0), out)


def relu_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """Pass ``dy`` on where the input was positive; at zero the gradient is zero, as in PyTorch."""
    return (np.where(x > 0, dy, dy.dtype.type(0)),)


def add(x: Array, y: Array, *, out: Array | None = None) -> Array:
    """Add value by value; see `tinyresnext.ops.shapes.add`."""
    shapes.add(x, y, out=out)
    return place(x + y, out)


def add_backward(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return ``dz`` for both summands."""
    return dz, dz


def excite(
    x: Array,
    s: Array,
    residual: Array | None = None,
    *,
    relu: bool = False,
    out: Array | None = None,
) -> Array:
    """Multiply each channel of each sample by the sigmoid of its ``s``.

    Arguments and result are those of `tinyresnext.ops.shapes.excite`.
    """
    shapes.excite(x, s, residual, relu=relu, out=out)
    y = x * sigmoid(s)
    if residual is not None:
        y = y + residual
    return place(np.maximum(y, 0) if relu else y, out)


def excite_backward(
    dy: Array,
    y: Array,
    x: Array,
    s: Array,
    residual: Array | None = None,
    *,
    relu: bool = False,
) -> tuple[Array | None, ...]:
    """Return ``dx = dy a``, ``ds = a (1 - a) sum(dy x)`` and ``dy``, with ``a = sigmoid(s)``.

    The sum is over the positions, in float64 at least; where a ReLU made ``y`` zero, so is ``dy``.
    """
    if relu:
        dy = dy * (y > 0)
    a = sigmoid(s)
    total = (dy * x).sum((1, 2), np.promote_types(x.dtype, np.float64), keepdims=True)
    return dy * a, a * (1 - a) * total.astype(x.dtype), None if residual is None else dy


def sigmoid(s: Array) -> Array:
    """Return ``1 / (1 + exp(-s))``; no exponential overflows."""
    small = np.exp(-np.abs(s))
    return (np.where(s < 0, small, 1) / (1 + small)).astype(s.dtype)
