"""The shapes of ReLU and the residual addition."""

from __future__ import annotations

from ..checks import Shape, Shaped, same


def relu(x: Shaped, *, out: Shaped | None = None) -> Shape:
    """Return the shape of ``max(x, 0)``; not-a-number stays not-a-number.

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
    """Return the shape of ``x + y``.

    It is the residual connection (He et al. 2016), the sum of Equation 3.

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
