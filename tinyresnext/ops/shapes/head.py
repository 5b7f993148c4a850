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
    x: Shaped, *, labels: Any, smoothing: float = 0.0, out: Shaped | None = None
) -> Shape:
    """Return the shape of the training loss.

    It is the mean over the mini-batch of ``-sum(target * log(softmax(x)))``.

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
    if not 0 <= smoothing <= 1:
        raise ValueError(
            f"softmax_cross_entropy: smoothing is {smoothing}, expected a number from 0 to 1"
        )
    same("softmax_cross_entropy", "out", out, ())
    return ()
