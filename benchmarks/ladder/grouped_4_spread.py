"""Spread once, use nine times: copy each value to the channels that need it before multiplying.

A pixel of the input is used by nine taps, and was gathered again for each of them. Here each line
of the image is spread once into ``[columns, c_in/groups, c_out]``, and from then on everything is
vectors times vectors, side by side. Sums are made for 64 channels at a time, which the compiler can
keep in registers. It pays most where groups are narrow: a line grows by the width.
"""

from __future__ import annotations

import numpy as np
from grouped_3_channels import pack
from numba import njit

__all__ = ["conv2d", "line_of_result", "pack"]
SOME = 64


@njit
def _spread(line, c_group, first, out):
    """Spread one line of the image: the value that each output channel needs, by column."""
    for q in range(line.shape[0]):
        for c in range(c_group):
            row = out[q, c]
            for o in range(len(first)):
                row[o] = line[q, first[o] + c]


@njit(fastmath={"contract"})
def line_of_result(x, b, y, weight, bias, stride, first, spread, held, out):
    """Compute line ``y``; ``spread`` holds the lines ``held`` of the image, one a kernel row."""
    k_h, k_w, c_group, c_out = weight.shape
    for i in range(k_h):
        line = y * stride + i - k_h // 2
        if 0 <= line < x.shape[1] and held[line % k_h] != line:
            _spread(x[b, line], c_group, first, spread[line % k_h])
            held[line % k_h] = line
    values, filters = spread.reshape(-1), weight.reshape(-1)
    sums = np.empty(SOME, np.float32)
    for z in range(out.shape[2]):
        for f in range(0, c_out, SOME):
            count = min(SOME, c_out - f)
            for o in range(count):
                sums[o] = bias[f + o]
            for i in range(k_h):
                line = y * stride + i - k_h // 2
                for j in range(k_w):
                    column = z * stride + j - k_w // 2
                    if 0 <= line < x.shape[1] and 0 <= column < x.shape[2]:
                        at = ((line % k_h) * x.shape[2] + column) * c_group * c_out + f
                        w_at = (i * k_w + j) * c_group * c_out + f
                        for c in range(c_group):
                            v, w = values[at + c * c_out :], filters[w_at + c * c_out :]
                            # A constant count is unrolled, without a loop for the rest.
                            if count == SOME:
                                for o in range(SOME):
                                    sums[o] += v[o] * w[o]
                            else:
                                for o in range(count):
                                    sums[o] += v[o] * w[o]
            for o in range(count):
                out[b, y, z, f + o] = max(sums[o], np.float32(0))


@njit
def _lines(x, weight, bias, stride, first, out):
    k_h, _, c_group, c_out = weight.shape
    spread = np.empty((k_h, x.shape[2], c_group, c_out), np.float32)
    for b in range(out.shape[0]):
        held = np.full(k_h, -1)
        for y in range(out.shape[1]):
            line_of_result(x, b, y, weight, bias, stride, first, spread, held, out)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    c_out, c_group = weight.shape[3], weight.shape[2]
    _lines(x, weight, bias, stride, np.arange(c_out) // (c_out // groups) * c_group, out)
