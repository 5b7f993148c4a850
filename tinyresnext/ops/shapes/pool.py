"""The shapes of the poolings."""

from __future__ import annotations

from ..checks import Pair, Shape, Shaped, dimensions, pair, same, slide


def max_pool2d(
    x: Shaped,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair = 0,
    ceil_mode: bool = False,
    out: Shaped | None = None,
) -> Shape:
    """Return the shape of a max pooling.

    It takes the largest value of each window; padding is never the largest.

    Parameters
    ----------
    x : [n, h, w, c]
    size, stride, padding : int or (int, int)
        ``padding`` is at most half of ``size``, so that no window lies outside the image.
    ceil_mode : bool
        Keep a last window that starts inside the image (or its leading padding) and ends outside.

    Returns
    -------
    [n, h_out, w_out, c]

    Raises
    ------
    ValueError
        The padding is more than half of the window, the window is larger than the padded image
        (with ``ceil_mode``: by the stride or more), or ``out`` has another shape.
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
    """Return the shape of an average pooling.

    It takes the mean of each window, as PyTorch counts it.

    Parameters
    ----------
    x : [n, h, w, c]
    size, stride, padding : int or (int, int)
    ceil_mode : bool
        As in `max_pool2d`; what lies beyond the trailing padding is never counted.
    count_include_pad : bool
        Divide by the number of places of the window inside the padded image; otherwise by the
        number of those inside the image.

    Returns
    -------
    [n, h_out, w_out, c]

    Raises
    ------
    ValueError
        The padding is more than half of the window, the window is larger than the padded image
        (with ``ceil_mode``: by the stride or more), or ``out`` has another shape.
    """
    return _pool("avg_pool2d", x, size, stride, padding, ceil_mode, out)


def mean_pool(x: Shaped, *, keepdims: bool = False, out: Shaped | None = None) -> Shape:
    """Return the shape of a global average pooling, that of Table 1.

    It takes the mean of each channel over all positions.

    Parameters
    ----------
    x : [n, h, w, c]
    keepdims : bool
        Return an image of one position, for convolutions that follow.

    Returns
    -------
    [n, c], or [n, 1, 1, c]

    Raises
    ------
    ValueError
        ``x`` has no positions, or ``out`` has another shape.
    """
    n, h, w, c = dimensions("x", x, "n h w c")
    if h * w == 0:
        raise ValueError(
            f"mean_pool: x has shape {tuple(x.shape)}, and the mean of no positions is not defined"
        )
    y = (n, 1, 1, c) if keepdims else (n, c)
    same("mean_pool", "out", out, y)
    return y


def blur_pool(x: Shaped, *, stride: int = 2, out: Shaped | None = None) -> Shape:
    """Return the shape of a blur pooling (Zhang 2019).

    Each channel is convolved with the fixed filter ``[1 2 1] x [1 2 1] / 16``, which removes what a
    stride would alias, and only then subsampled. One line and one column of padding repeat what
    lies on the other side of the edge: the line before the first is the second one.

    Parameters
    ----------
    x : [n, h, w, c]
        With at least two lines and two columns.
    stride : int

    Returns
    -------
    [n, h_out, w_out, c] with ``h_out = (h - 1) // stride + 1``

    Raises
    ------
    ValueError
        There are no two lines or columns, or ``out`` has another shape.
    """
    n, h, w, c = dimensions("x", x, "n h w c")
    if not isinstance(stride, int) or stride < 1:
        raise ValueError(f"blur_pool: stride is {stride!r}, expected a whole number of at least 1")
    if min(h, w) < 2:
        raise ValueError(
            f"blur_pool: x has shape {tuple(x.shape)}, and an edge is reflected, which takes at "
            "least two lines and two columns; use a larger image"
        )
    y = (n, (h - 1) // stride + 1, (w - 1) // stride + 1, c)
    same("blur_pool", "out", out, y)
    return y


def _pool(
    op: str, x: Shaped, size: Pair, stride: Pair, padding: Pair, ceil_mode: bool, out: Shaped | None
) -> Shape:
    """Return the shape of the result of a pooling over windows."""
    n, h, w, c = dimensions("x", x, "n h w c")
    (k_h, k_w), (s_h, s_w) = pair("size", size, 1), pair("stride", stride, 1)
    p_h, p_w = pair("padding", padding, 0)
    if 2 * p_h > k_h or 2 * p_w > k_w:
        raise ValueError(
            f"{op}: padding {padding} is more than half of size {size}, "
            "so a window could lie outside the image"
        )
    y = (n, slide(op, h, k_h, s_h, p_h, ceil_mode), slide(op, w, k_w, s_w, p_w, ceil_mode), c)
    same(op, "out", out, y)
    return y
