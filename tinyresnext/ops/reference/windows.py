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
) -> Array:
    """Return a view of the padded image: ``[n, h_out, w_out, c, k_h, k_w]``."""
    lead, (s_h, s_w) = pair("padding", padding, 0), pair("stride", stride, 1)
    h_out, w_out = shape[1:3]
    reach = ((h_out - 1) * s_h + kernel[0], (w_out - 1) * s_w + kernel[1])
    trail = [max(0, r - p - length) for r, p, length in zip(reach, lead, x.shape[1:3], strict=True)]
    x = np.pad(x, ((0, 0), (lead[0], trail[0]), (lead[1], trail[1]), (0, 0)), constant_values=fill)
    return sliding_window_view(x, tuple(kernel), axis=(1, 2))[:, ::s_h, ::s_w][:, :h_out, :w_out]


def gather(dwindows: Array, x: Array, stride: Pair, padding: Pair) -> Array:
    """Add the gradients of all windows that see a value of ``x``: the transpose of `windows_of`."""
    (p_h, p_w), (s_h, s_w) = pair("padding", padding, 0), pair("stride", stride, 1)
    n, h, w, c = x.shape
    _, h_out, w_out, _, k_h, k_w = dwindows.shape
    dx = np.zeros(
        (n, max(p_h + h, (h_out - 1) * s_h + k_h), max(p_w + w, (w_out - 1) * s_w + k_w), c),
        dwindows.dtype,
    )
    for i, j in np.ndindex(k_h, k_w):
        dx[:, i : i + s_h * h_out : s_h, j : j + s_w * w_out : s_w] += dwindows[..., i, j]
    return dx[:, p_h : p_h + h, p_w : p_w + w]


def place(y: Array, out: Array | None) -> Array:
    """Return the result, in the caller's memory if there is any."""
    if out is None:
        return y
    np.copyto(out, y)
    return out
