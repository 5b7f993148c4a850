"""The contract: what each op is called, what it takes, the shape it returns and what it refuses.

A backend is any module that spells these same names. A function here has the op's signature, works
on anything that has a ``.shape``, computes nothing, and returns the shape of the result or raises
``ValueError``. Backends call it first, so every one of them refuses the same calls with the same
words; a plan calls it to walk a model without data.

Conventions, everywhere:

* Activations are ``[n, h, w, c]``. Convolution weights are ``[c_out, c_in / groups, k_h, k_w]``, as
  checkpoints have them.
* Arrays that carry gradients are positional; constants are keywords.
* ``stride``, ``padding`` and ``size`` are one number for both directions, or a pair ``(vertical,
  horizontal)``.
* ``out`` is where the result goes; without it, the backend makes a new array.
* Every ``op`` has an ``op_backward(dy, y, *args, **attrs)`` that takes the gradient and the value
  of the result and
  returns a tuple: one gradient for each positional argument, in order (``None`` for an optional one
  that was not given). `READ` says which of its arguments' values a gradient depends on; of the
  others only the shape matters.

Beside the ops a backend has the words a plan needs. To place its data: ``empty(shape)``,
``upload(array)``, ``download(array)`` and ``pack(weight, groups)``, which lays a weight out as that
backend's ``conv2d`` likes it. To run: ``bind(op, *args, **attrs)``, which checks and prepares a
call that is to be made many times on what the same arrays then hold (bound, an ``op_backward``
takes ``out``, where each gradient goes, with ``None`` for those that nobody wants, and ``more``,
whether each is added to what is there); ``chain(calls)``, which makes one call of many that are
bound, to be made in that order each time; and ``at_once(n)``, how many of ``n`` pictures go through
a network together best; it divides ``n``. And for the machine: ``thread_count(asked)``,
``on_threads(count)`` and ``when_compiling(tell, after)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .checks import Pair, Shape, Shaped, dimensions, pair, same, slide

OPS = (
    "conv2d",
    "batch_norm",
    "batch_norm_train",
    "relu",
    "add",
    "max_pool2d",
    "avg_pool2d",
    "mean_pool",
    "linear",
    "softmax",
    "softmax_cross_entropy",
)
# What each gradient is computed from: "dy", "y" and the positional arguments by their place.
READ: dict[str, tuple[str | int, ...]] = {
    "conv2d": ("dy", 0, 1),
    "batch_norm": ("dy", 0, 1, 3, 4),
    "batch_norm_train": ("dy", "y", 0, 1),
    "relu": ("dy", 0),
    "add": ("dy",),
    "max_pool2d": ("dy", 0),
    "avg_pool2d": ("dy",),
    "mean_pool": ("dy",),
    "linear": ("dy", 0, 1),
    "softmax": ("dy", "y"),
    "softmax_cross_entropy": ("dy", 0),
}
__all__ = ["OPS", "READ", "Pair", "Shape", "pair", *OPS]


def conv2d(
    x: Shaped,
    weight: Shaped,
    bias: Shaped | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    residual: Shaped | None = None,
    relu: bool = False,
    out: Shaped | None = None,
) -> Shape:
    """Convolve each of ``groups`` equal slices of the channels with its own filters (Equation 2 with Figure 3c).

    ``y[n, r, s, o] = bias[o] + sum over i, j, c of x[n, r*stride + i - padding, s*stride + j -
    padding, c] * weight[o, c, i, j]``, where ``c`` runs over the channels of the group that ``o``
    belongs to, and ``x`` is zero outside the picture. Then ``residual`` is added and, with
    ``relu``, what is below zero becomes zero.

    Parameters
    ----------
    x : [n, h, w, c_in]
    weight : [c_out, c_in / groups, k_h, k_w], or what the backend's ``pack`` made of it
    bias : [c_out], optional
    stride, padding : int or (int, int)
    groups : int
        Divides ``c_in`` and ``c_out``. The paper's cardinality.
    residual : like the result, optional
    relu : bool
    out : like the result, optional

    Returns
    -------
    [n, h_out, w_out, c_out] with ``h_out = (h + 2*padding - k_h) // stride + 1``

    Raises
    ------
    ValueError
        When shapes do not fit each other, or the kernel is larger than the padded picture.
    """
    n, h, w, c_in = dimensions("x", x, "n h w c")
    c_out, c_group, k_h, k_w = dimensions("weight", weight, "c_out c_in/groups k_h k_w")
    if 0 in weight.shape:
        raise ValueError(
            f"conv2d: weight has shape {tuple(weight.shape)}, and there is nothing to multiply with"
        )
    if (
        not isinstance(groups, (int, np.integer))
        or groups < 1
        or c_in != groups * c_group
        or c_out % groups
    ):
        raise ValueError(
            f"conv2d: x has {c_in} channels and weight {tuple(weight.shape)} takes {c_group} in each of {groups} groups; "
            f"c_in must be groups * {c_group} and c_out = {c_out} a multiple of groups"
        )
    if bias is not None and tuple(bias.shape) != (c_out,):
        raise ValueError(
            f"conv2d: bias has shape {tuple(bias.shape)}, expected ({c_out},): one value for each filter"
        )
    (s_h, s_w), (p_h, p_w) = pair("stride", stride, 1), pair("padding", padding, 0)
    y = (n, slide("conv2d", h, k_h, s_h, p_h), slide("conv2d", w, k_w, s_w, p_w), c_out)
    same("conv2d", "residual", residual, y)
    same("conv2d", "out", out, y)
    return y


def batch_norm(
    x: Shaped,
    scale: Shaped,
    shift: Shaped,
    mean: Shaped,
    var: Shaped,
    *,
    eps: float = 1e-5,
    out: Shaped | None = None,
) -> Shape:
    """Normalise each channel with statistics known beforehand: ``(x - mean) / sqrt(var + eps) * scale + shift``.

    Parameters
    ----------
    x : [n, h, w, c]
    scale, shift, mean, var : [c]
        A checkpoint calls them weight, bias, running_mean and running_var.
    eps : float

    Returns
    -------
    [n, h, w, c]
    """
    *_, c = dimensions("x", x, "n h w c")
    for name, a in (("scale", scale), ("shift", shift), ("mean", mean), ("var", var)):
        if tuple(a.shape) != (c,):
            raise ValueError(
                f"batch_norm: {name} has shape {tuple(a.shape)}, expected ({c},): one value for each channel"
            )
    same("batch_norm", "out", out, x.shape)
    return tuple(x.shape)


def batch_norm_train(
    x: Shaped,
    scale: Shaped,
    shift: Shaped,
    residual: Shaped | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Shaped | None = None,
    out: Shaped | None = None,
) -> Shape:
    """Normalise each channel with the mean and the (biased) variance of this batch (Ioffe and Szegedy, 2015).

    Then ``residual`` is added and, with ``relu``, what is below zero becomes zero.

    Parameters
    ----------
    x : [n, h, w, c]
    scale, shift : [c]
    residual : like x, optional
    eps : float
    relu : bool
    statistics : [2, c], optional
        Where mean and variance go, for the running averages and for the gradient. A gradient that
        is handed none computes them again.

    Returns
    -------
    [n, h, w, c]
    """
    *_, c = shape = batch_norm(
        x, scale, shift, scale, scale, eps=eps, out=out
    )  # the statistics have the shape of the scale
    if 0 in shape:
        raise ValueError(f"batch_norm_train: x has shape {shape}, and nothing has no mean")
    same("batch_norm_train", "residual", residual, shape)
    same("batch_norm_train", "statistics", statistics, (2, c))
    return shape


def relu(x: Shaped, *, out: Shaped | None = None) -> Shape:
    """``max(x, 0)``; not-a-number stays what it is.

    Parameters
    ----------
    x : any shape

    Returns
    -------
    like x
    """
    same("relu", "out", out, x.shape)
    return tuple(x.shape)


def add(x: Shaped, y: Shaped, *, out: Shaped | None = None) -> Shape:
    """``x + y``: the residual connection (He et al., 2016), and the merge of Equation 3.

    Parameters
    ----------
    x, y : the same shape

    Returns
    -------
    like x
    """
    same("add", "y", y, x.shape)
    same("add", "out", out, x.shape)
    return tuple(x.shape)


def max_pool2d(
    x: Shaped,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Shaped | None = None,
) -> Shape:
    """The largest value in each window; padding never wins.

    Parameters
    ----------
    x : [n, h, w, c]
    size, stride, padding : int or (int, int)
        ``padding`` is at most half of ``size``, so that no window lies outside the picture.
    ceil_mode : bool
        Keep a last window that starts inside the picture (or its leading padding) and ends outside.

    Returns
    -------
    [n, h_out, w_out, c]
    """
    return _pool("max_pool2d", x, size, stride, padding, ceil_mode, out)


def avg_pool2d(
    x: Shaped,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    out: Shaped | None = None,
) -> Shape:
    """The mean of each window, as PyTorch counts it.

    Parameters
    ----------
    x : [n, h, w, c]
    size, stride, padding : int or (int, int)
    ceil_mode : bool
        As in `max_pool2d`; what lies beyond the trailing padding is never counted.
    count_include_pad : bool
        Divide by the places of the window inside the padded picture; otherwise only by those inside
        the picture.

    Returns
    -------
    [n, h_out, w_out, c]
    """
    return _pool("avg_pool2d", x, size, stride, padding, ceil_mode, out)


def mean_pool(x: Shaped, *, out: Shaped | None = None) -> Shape:
    """The mean of each channel over all positions: the global average pooling of Table 1.

    Parameters
    ----------
    x : [n, h, w, c]

    Returns
    -------
    [n, c]
    """
    n, h, w, c = dimensions("x", x, "n h w c")
    if h * w == 0:
        raise ValueError(
            f"mean_pool: x has shape {tuple(x.shape)}, and the mean of no positions is not defined"
        )
    same("mean_pool", "out", out, (n, c))
    return n, c


def linear(x: Shaped, weight: Shaped, bias: Shaped, *, out: Shaped | None = None) -> Shape:
    """``x @ weight.T + bias``: the classifier.

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
            f"linear: x {tuple(x.shape)}, weight {tuple(weight.shape)} and bias {tuple(bias.shape)} do not fit; "
            "expected [n, c_in], [c_out, c_in] and [c_out]"
        )
    same("linear", "out", out, (n, c_out))
    return n, c_out


def softmax(x: Shaped, *, out: Shaped | None = None) -> Shape:
    """``exp(x) / sum(exp(x))`` along the last axis, safe for any finite logits.

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
            f"softmax: x has shape {tuple(x.shape)}, and there is no distribution over no classes"
        )
    same("softmax", "out", out, (n, classes))
    return n, classes


def softmax_cross_entropy(
    x: Shaped, *, labels: Any, smoothing: float = 0.0, out: Shaped | None = None
) -> Shape:
    """The mean over the batch of ``-sum(target * log(softmax(x)))``: the training loss.

    Parameters
    ----------
    x : [n, classes]
        Logits.
    labels : [n] integers, or [n, classes] floats
        The class of each row; or a distribution over the classes, as mixup makes them (Zhang et
        al., 2018).
    smoothing : float in [0, 1]
        The target is ``1 - smoothing`` of the label plus ``smoothing / classes`` everywhere
        (Szegedy et al., 2016).

    Returns
    -------
    a scalar, ``()``
    """
    n, classes = dimensions("x", x, "n classes")
    labels = np.asarray(labels)
    distribution = labels.shape == (n, classes) and labels.dtype.kind == "f"
    if (
        not (distribution or (labels.shape == (n,) and labels.dtype.kind in "iu"))
        or n * classes == 0
    ):
        raise ValueError(
            f"softmax_cross_entropy: labels are {labels.dtype} {labels.shape}, expected {n} integers, and at least one, or "
            f"a distribution over {classes} classes for each"
        )
    if not distribution and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"softmax_cross_entropy: labels reach from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}"
        )
    if not 0 <= smoothing <= 1:
        raise ValueError(
            f"softmax_cross_entropy: smoothing is {smoothing}, expected a number from 0 to 1"
        )
    same("softmax_cross_entropy", "out", out, ())
    return ()


def _pool(
    op: str, x: Shaped, size: Pair, stride: Pair, padding: Pair, ceil_mode: bool, out: Shaped | None
) -> Shape:
    """The shape rule that both poolings share."""
    n, h, w, c = dimensions("x", x, "n h w c")
    (k_h, k_w), (s_h, s_w), (p_h, p_w) = (
        pair("size", size, 1),
        pair("stride", stride, 1),
        pair("padding", padding, 0),
    )
    if 2 * p_h > k_h or 2 * p_w > k_w:
        raise ValueError(
            f"{op}: padding {padding} is more than half of size {size}, so a window could miss the picture"
        )
    y = (n, slide(op, h, k_h, s_h, p_h, ceil_mode), slide(op, w, k_w, s_w, p_w, ceil_mode), c)
    same(op, "out", out, y)
    return y
