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
        The padding is more than half of the window, the window is larger than the padded image, or
        ``out`` has another shape.
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
        The padding is more than half of the window, the window is larger than the padded image, or
        ``out`` has another shape.
    """
    return _pool("avg_pool2d", x, size, stride, padding, ceil_mode, out)


def mean_pool(x: Shaped, *, out: Shaped | None = None) -> Shape:
    """Return the shape of a global average pooling, that of Table 1.

    It takes the mean of each channel over all positions.

    Parameters
    ----------
    x : [n, h, w, c]

    Returns
    -------
    [n, c]

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
    same("mean_pool", "out", out, (n, c))
    return n, c


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
