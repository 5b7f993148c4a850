"""The definition of the classifier, the softmax and the training loss, and of their gradients."""

from __future__ import annotations

import numpy as np

from .. import shapes
from .windows import place

Array = np.ndarray


def linear(x: Array, weight: Array, bias: Array, *, out: Array | None = None) -> Array:
    """Compute a matrix product and add a bias; see `tinyresnext.ops.shapes.linear`."""
    shapes.linear(x, weight, bias, out=out)
    return place(x @ weight.T + bias, out)


def linear_backward(
    dy: Array, y: Array, x: Array, weight: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """Return ``dx = dy W``, ``dW = dy^T x`` and ``db``, the sum of ``dy`` over the samples."""
    return dy @ weight, dy.T @ x, dy.sum(0)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Return ``exp(x - m) / sum(exp(x - m))``, m = max(x): the same without overflow.

    Arguments and result are those of `tinyresnext.ops.shapes.softmax`.
    """
    shapes.softmax(x, out=out)
    # A difference of logits that overflows is minus infinity: the probability is zero.
    with np.errstate(over="ignore"):
        e = np.exp(x - x.max(1, keepdims=True))
    return place(e / e.sum(1, keepdims=True), out)


def softmax_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """Compute ``dx = y * (dy - <dy, y>)``: a constant added to ``dy`` changes nothing."""
    return (y * (dy - (dy * y).sum(1, keepdims=True)),)


def softmax_cross_entropy(
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``-mean(sum(target * log_p))``, ``log_p = x - m - log(sum(exp(x - m)))``, m = max(x).

    No logarithm is taken of a probability, which may be zero.

    Arguments and result are those of `tinyresnext.ops.shapes.softmax_cross_entropy`.
    """
    shapes.softmax_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=out)
    shifted = x - x.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    terms = _targets(x, labels, smoothing) * log_p
    if weights is not None:
        terms *= weights[:, None]
    return place(-terms.sum() / x.dtype.type(len(x)), out)


def softmax_cross_entropy_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
) -> tuple[Array]:
    """Compute the probability minus the target, divided by the number of samples."""
    difference = softmax(x) - _targets(x, labels, smoothing)
    if weights is not None:
        difference *= weights[:, None]
    return (dy * difference / x.dtype.type(len(x)),)


def _targets(x: Array, labels: Array, smoothing: float) -> Array:
    """Return one-hot rows, or the given distributions, smoothed."""
    labels = np.asarray(labels)
    rows = labels if labels.ndim == 2 else np.arange(x.shape[1]) == labels[:, None]
    return (rows * (1 - smoothing) + smoothing / x.shape[1]).astype(x.dtype)


def binary_cross_entropy(
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Return the mean of ``max(x, 0) - x * target + log(1 + exp(-abs(x)))``.

    No logarithm is taken of a probability, and no exponential overflows.

    Arguments and result are those of `tinyresnext.ops.shapes.binary_cross_entropy`.
    """
    shapes.binary_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=out)
    terms = np.maximum(x, 0) - x * _halfway(x, labels, smoothing) + np.log1p(np.exp(-np.abs(x)))
    if weights is not None:
        terms *= weights
    return place(terms.sum() / x.dtype.type(x.size), out)


def binary_cross_entropy_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
) -> tuple[Array]:
    """Compute the probability minus the target, divided by the number of terms."""
    small = np.exp(-np.abs(x))
    difference = np.where(x < 0, small, 1) / (1 + small) - _halfway(x, labels, smoothing)
    if weights is not None:
        difference *= weights
    return (dy * difference / x.dtype.type(x.size),)


def _halfway(x: Array, labels: Array, smoothing: float) -> Array:
    """Return labels from 0 to 1, smoothed towards one half."""
    return (np.asarray(labels) * (1 - smoothing) + smoothing / 2).astype(x.dtype)
