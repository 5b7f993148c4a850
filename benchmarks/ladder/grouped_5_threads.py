"""Threads: each computes neighbouring lines, so that the next line uses the same spread lines.

Expect a little less than as many times the speed as there are cores: the first lines of each part
are spread twice.
"""

from __future__ import annotations

import numpy as np
from grouped_3_channels import pack
from grouped_4_spread import line_of_result
from numba import njit, prange

__all__ = ["conv2d", "pack"]
LINES = 4


@njit(parallel=True)
def _lines(x, weight, bias, stride, first, out):
    k_h, _, c_group, c_out = weight.shape
    parts = (out.shape[1] + LINES - 1) // LINES
    for task in prange(out.shape[0] * parts):
        b, part = np.int64(task) // parts, np.int64(task) % parts
        spread, held = np.empty((k_h, x.shape[2], c_group, c_out), np.float32), np.full(k_h, -1)
        for y in range(part * LINES, min((part + 1) * LINES, out.shape[1])):
            line_of_result(x, b, y, weight, bias, stride, first, spread, held, out)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    c_out, c_group = weight.shape[3], weight.shape[2]
    _lines(x, weight, bias, stride, np.arange(c_out) // (c_out // groups) * c_group, out)
