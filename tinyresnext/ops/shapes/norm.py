"""The shapes of batch normalisation, with known statistics and in training."""

from __future__ import annotations

from ..checks import Shape, Shaped, dimensions, same
from ..together import Reduce


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
    """Return the shape of a batch norm.

    It normalises each channel with statistics known beforehand:
    ``y = (x - mean) / sqrt(var + eps) * scale + shift``.

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
                f"batch_norm: {name} has shape {tuple(a.shape)}, expected ({c},): "
                "one value for each channel"
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
    reduce: Reduce | None = None,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of a batch norm in training.

    It normalises each channel with the mean and the biased variance of the mini-batch (Ioffe and
    Szegedy 2015). Then ``residual`` is added and, with ``relu``, what is below zero becomes zero.

    Parameters
    ----------
    x : [n, h, w, c]
    scale, shift : [c]
    residual : like x, optional
    eps : float
    relu : bool
    statistics : [2, c], optional
        Memory for mean and variance, for the running averages and for the gradient. Without it the
        gradient computes them again.
    reduce : callable, optional
        Where several processes share the mini-batch: replaces a float64 NumPy array by its sum over
        all of them. Then the statistics are those of all their images, and so are the two means in
        the gradient of ``x``. The gradients of ``scale`` and ``shift`` stay sums over this
        process's images.

    Returns
    -------
    [n, h, w, c]
    """
    # The statistics have the shape of the scale.
    *_, c = shape = batch_norm(x, scale, shift, scale, scale, eps=eps, out=out)
    if 0 in shape:
        raise ValueError(f"batch_norm_train: x has shape {shape}, expected no axis of length 0")
    same("batch_norm_train", "residual", residual, shape)
    same("batch_norm_train", "statistics", statistics, (2, c))
    return shape
