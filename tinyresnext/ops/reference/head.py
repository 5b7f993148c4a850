"""The definition of the classifier, the softmax and the training loss, and of their gradients."""

from __future__ import annotations

import numpy as np

from .. import shapes
from .windows import place

Array = np.ndarray


def linear(x: Array, weight: Array, bias: Array, *, out: Array | None = None) -> Array:
    """A matrix product and a bias."""
    shapes.linear(x, weight, bias, out=out)
    return place(x @ weight.T + bias, out)


def linear_backward(
    dy: Array, y: Array, x: Array, weight: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """The product transposed both ways."""
    return dy @ weight, dy.T @ x, dy.sum(0)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Shifting by the largest logit changes nothing but keeps ``exp`` from overflowing."""
    shapes.softmax(x, out=out)
    with np.errstate(
        over="ignore"
    ):  # a logit that is further below than float can say has probability zero
        e = np.exp(x - x.max(1, keepdims=True))
    return place(e / e.sum(1, keepdims=True), out)


def softmax_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """``dx = y * (dy - <dy, y>)``: only what changes the proportions counts."""
    return (y * (dy - (dy * y).sum(1, keepdims=True)),)


def softmax_cross_entropy(
    x: Array, *, labels: Array, smoothing: float = 0.0, out: Array | None = None
) -> Array:
    """Logarithms are taken of the sum of exponentials, never of a probability that may be zero."""
    shapes.softmax_cross_entropy(x, labels=labels, smoothing=smoothing, out=out)
    shifted = x - x.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return place(-(_targets(x, labels, smoothing) * log_p).sum() / x.dtype.type(len(x)), out)


def softmax_cross_entropy_backward(
    dy: Array, y: Array, x: Array, *, labels: Array, smoothing: float = 0.0
) -> tuple[Array]:
    """Probability minus target, shared over the batch."""
    return (dy * (softmax(x) - _targets(x, labels, smoothing)) / x.dtype.type(len(x)),)


def _targets(x: Array, labels: Array, smoothing: float) -> Array:
    """One-hot rows, or the distributions that were given, smoothed."""
    labels = np.asarray(labels)
    rows = labels if labels.ndim == 2 else np.arange(x.shape[1]) == labels[:, None]
    return (rows * (1 - smoothing) + smoothing / x.shape[1]).astype(x.dtype)
