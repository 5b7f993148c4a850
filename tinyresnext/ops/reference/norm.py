"""The definition of batch normalisation, also in training, and of its gradients."""

from __future__ import annotations

import numpy as np

from .. import shapes
from ..together import Reduce, means_of_all, moments_of_all
from .windows import place

Array = np.ndarray


def batch_norm(
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """Return ``(x - mean) * (scale / sqrt(var + eps)) + shift``; the statistics are constants.

    Arguments and result are those of `tinyresnext.ops.shapes.batch_norm`.
    """
    shapes.batch_norm(x, scale, shift, mean, var, eps=eps, out=out)
    return place((x - mean) * (scale / np.sqrt(var + x.dtype.type(eps))) + shift, out)


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
    """Differentiate ``y = (x - mean) * rstd * scale + shift`` by each argument."""
    rstd = 1 / np.sqrt(var + x.dtype.type(eps))
    dshift = dy.sum((0, 1, 2))
    centred = (dy * (x - mean)).sum((0, 1, 2))
    return (
        dy * (scale * rstd),
        centred * rstd,
        dshift,
        -dshift * scale * rstd,
        -centred * scale * rstd**3 / 2,
    )


def batch_norm_train(
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    reduce: Reduce | None = None,
    out: Array | None = None,
) -> Array:
    """Compute `batch_norm` with the statistics of the mini-batch itself.

    Arguments and result are those of `tinyresnext.ops.shapes.batch_norm_train`.
    """
    shapes.batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, out=out
    )
    mean, var = _moments(x, reduce)
    if statistics is not None:
        statistics[:] = mean, var
    y = batch_norm(x, scale, shift, mean, var, eps=eps)
    if residual is not None:
        y = y + residual
    return place(np.maximum(y, 0) if relu else y, out)


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
    reduce: Reduce | None = None,
) -> tuple[Array | None, ...]:
    """Return ``dx = scale * rstd * (dy - mean(dy) - n * mean(dy * n))``, and the other gradients.

    ``n`` is ``x`` normalised; ``dscale`` is the sum of ``dy * n``, ``dshift`` that of ``dy``. The
    two means are there because the statistics depend on every value (Ioffe and Szegedy 2015,
    section 3).
    """
    if relu:
        dy = dy * (y > 0)
    mean, var = _moments(x, reduce)
    rstd = 1 / np.sqrt(var + x.dtype.type(eps))
    normalised = (x - mean) * rstd
    dshift, dscale = dy.sum((0, 1, 2)), (dy * normalised).sum((0, 1, 2))
    means = means_of_all(dshift, dscale, x.size // x.shape[-1], reduce)
    of_dy, of_product = (mean.astype(x.dtype) for mean in means)
    dx = scale * rstd * (dy - of_dy - normalised * of_product)
    return dx, dscale, dshift, None if residual is None else dy


def _moments(x: Array, reduce: Reduce | None) -> tuple[Array, Array]:
    """Return mean and biased variance of each channel, in the precision of ``x``."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    mean, var = moments_of_all(mean, var, x.size // x.shape[-1], reduce)
    return mean.astype(x.dtype), var.astype(x.dtype)
