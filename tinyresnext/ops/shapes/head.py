"""The shapes of the classifier, the softmax and the training loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import Shape, Shaped, dimensions, same


def linear(x: Shaped, weight: Shaped, bias: Shaped, *, out: Shaped | None = None) -> Shape:
    """Return the shape of ``x @ weight.T + bias``: the classifier.

    Parameters
    ----------
    x : [n, c_in]
    weight : [c_out, c_in]
    bias : [c_out]

    Returns
    -------
    [n, c_out]
    """
    n, c_in = dimensions("x", x, "n c_in")
    c_out, expected = dimensions("weight", weight, "c_out c_in")
    if c_in != expected or tuple(bias.shape) != (c_out,):
        raise ValueError(
            f"linear: x {tuple(x.shape)}, weight {tuple(weight.shape)} and bias "
            f"{tuple(bias.shape)} do not fit; expected [n, c_in], [c_out, c_in] and [c_out]"
        )
    same("linear", "out", out, (n, c_out))
    return n, c_out


def softmax(x: Shaped, *, out: Shaped | None = None) -> Shape:
    """Return the shape of ``exp(x) / sum(exp(x))`` along the last axis.

    Finite logits do not overflow.

    Parameters
    ----------
    x : [n, classes]

    Returns
    -------
    [n, classes]
    """
    n, classes = dimensions("x", x, "n classes")
    if classes == 0:
        raise ValueError(
            f"softmax: x has shape {tuple(x.shape)}, "
            "and a distribution over no classes is not defined"
        )
    same("softmax", "out", out, (n, classes))
    return n, classes


def softmax_cross_entropy(
    x: Shaped,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Shaped | None = None,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of the training loss where each sample is of one class.

    It is the mean over the mini-batch of ``-weight * sum(target * log(softmax(x)))``.

    Parameters
    ----------
    x : [n, classes]
        Logits.
    labels : [n] integers, or [n, classes] floats
        The class of each sample; or a distribution over the classes, as in mixup (Zhang et al.
        2018).
    smoothing : float in [0, 1]
        The target is ``1 - smoothing`` of the label plus ``smoothing / classes`` everywhere
        (Szegedy et al. 2016).
    weights : [n], optional
        How much the loss of each sample weighs; 1 by default.

    Returns
    -------
    a scalar, ``()``
    """
    n, classes = dimensions("x", x, "n classes")
    labels = np.asarray(labels)
    numbered = labels.shape == (n,) and labels.dtype.kind in "iu"
    distribution = labels.shape == (n, classes) and labels.dtype.kind == "f"
    if not (numbered or distribution) or n * classes == 0:
        raise ValueError(
            f"softmax_cross_entropy: labels are {labels.dtype} {labels.shape}, expected {n} "
            f"integers, and at least one, or a distribution over {classes} classes for each"
        )
    if not distribution and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"softmax_cross_entropy: labels reach from {labels.min()} to {labels.max()}, "
            f"expected 0 to {classes - 1}"
        )
    _check_smoothing("softmax_cross_entropy", smoothing)
    same("softmax_cross_entropy", "weights", weights, (n,))
    same("softmax_cross_entropy", "out", out, ())
    return ()


def binary_cross_entropy(
    x: Shaped,
    *,
    labels: Any,
    smoothing: float = 0.0,
    weights: Shaped | None = None,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of the training loss where each output has a probability of its own.

    It is the mean, over samples and outputs, of ``-weight * (target * log(p) + (1 - target) *
    log(1 - p))`` with ``p = 1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : [n, classes]
        Logits.
    labels : [n, classes] floats
        From 0 to 1: whether each sample has each label; between the two for mixtures.
    smoothing : float in [0, 1]
        The target is ``1 - smoothing`` of the label plus ``smoothing / 2``.
    weights : [n, classes], optional
        How much each term weighs; 1 by default.

    Returns
    -------
    a scalar, ``()``
    """
    n, classes = dimensions("x", x, "n classes")
    labels = np.asarray(labels)
    if labels.shape != (n, classes) or labels.dtype.kind != "f" or n * classes == 0:
        raise ValueError(
            f"binary_cross_entropy: labels are {labels.dtype} {labels.shape}, expected floats "
            f"{(n, classes)}, and at least one"
        )
    _check_smoothing("binary_cross_entropy", smoothing)
    same("binary_cross_entropy", "weights", weights, (n, classes))
    same("binary_cross_entropy", "out", out, ())
    return ()


def _check_smoothing(op: str, smoothing: float) -> None:
    """Raise `ValueError` if the label smoothing is out of range."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{op}: smoothing is {smoothing}, expected a number from 0 to 1")
