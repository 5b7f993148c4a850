"""What each output position sees of the padded image: convolutions and poolings share it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .. import shapes
from ..checks import Pair, pair

Array = np.ndarray


def windows_of(
    x: Array,
    shape: shapes.Shape,
    kernel: Sequence[int],
    stride: Pair,
    padding: Pair,
    fill: float = 0.0,
    dilation: Pair = 1,
) -> Array:
    """Return a view of the padded image: ``[n, h_out, w_out, c, k_h, k_w]``."""
    lead, (s_h, s_w) = pair("padding", padding, 0), pair("stride", stride, 1)
    (d_h, d_w), (h_out, w_out) = pair("dilation", dilation, 1), shape[1:3]
    seen = (d_h * (kernel[0] - 1) + 1, d_w * (kernel[1] - 1) + 1)
    reach = ((h_out - 1) * s_h + seen[0], (w_out - 1) * s_w + seen[1])
    trail = [max(0, r - p - length) for r, p, length in zip(reach, lead, x.shape[1:3], strict=True)]
    x = np.pad(x, ((0, 0), (lead[0], trail[0]), (lead[1], trail[1]), (0, 0)), constant_values=fill)
    views = sliding_window_view(x, seen, axis=(1, 2))[..., ::d_h, ::d_w]
    return views[:, ::s_h, ::s_w][:, :h_out, :w_out]


def gather(dwindows: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair = 1) -> Array:
    """Add the gradients of all windows that see a value of ``x``: the transpose of `windows_of`."""
    (p_h, p_w), (s_h, s_w) = pair("padding", padding, 0), pair("stride", stride, 1)
    (d_h, d_w), (n, h, w, c) = pair("dilation", dilation, 1), x.shape
    _, h_out, w_out, _, k_h, k_w = dwindows.shape
    high = (h_out - 1) * s_h + d_h * (k_h - 1) + 1
    wide = (w_out - 1) * s_w + d_w * (k_w - 1) + 1
    dx = np.zeros((n, max(p_h + h, high), max(p_w + w, wide), c), dwindows.dtype)
    for i, j in np.ndindex(k_h, k_w):
        top, left = i * d_h, j * d_w
        dx[:, top : top + s_h * h_out : s_h, left : left + s_w * w_out : s_w] += dwindows[..., i, j]
    return dx[:, p_h : p_h + h, p_w : p_w + w]


def place(y: Array, out: Array | None) -> Array:
    """Return the result, in the caller's memory if there is any."""
    if out is None:
        return y
    np.copyto(out, y)
    return out
