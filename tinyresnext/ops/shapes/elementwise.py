"""The shapes of ReLU, the residual addition and the scaling by squeeze and excitation."""

from __future__ import annotations

from ..checks import Shape, Shaped, dimensions, same


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

    It is the residual connection (He et al. 2015, "Deep Residual Learning"), the sum of Equation 3.

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


def excite(
    x: Shaped,
    s: Shaped,
    residual: Shaped | None = None,
    *,
    relu: bool = False,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of ``x * sigmoid(s)``, one scale for each sample and channel.

    It is the last step of squeeze and excitation (Hu et al. 2018, Equation 4). Then ``residual`` is
    added and, with ``relu``, what is below zero becomes zero.

    Parameters
    ----------
    x : [n, h, w, c]
    s : [n, 1, 1, c]
    residual : like x, optional
    relu : bool

    Returns
    -------
    [n, h, w, c]

    Raises
    ------
    ValueError
        The shapes do not fit each other.
    """
    n, _, _, c = shape = dimensions("x", x, "n h w c")
    same("excite", "s", s, (n, 1, 1, c))
    same("excite", "residual", residual, shape)
    same("excite", "out", out, shape)
    return shape
