"""Threads: blocks of positions times panels are independent tasks.

Expect as many times the speed as there are cores, minus the wait for the slowest. There should be
many more tasks than threads, so that this wait is short.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from pointwise_4_pack import PANEL, POSITIONS
from pointwise_5_rows import block, pack

__all__ = ["conv2d", "pack"]


@njit(parallel=True)
def _all(x, weight, bias, out):
    positions, c_out = out.shape
    panels = (c_out + PANEL - 1) // PANEL
    for task in prange((positions + POSITIONS - 1) // POSITIONS * panels):
        start, f = np.int64(task) // panels * POSITIONS, np.int64(task) % panels * PANEL
        block(x, weight, bias, out, start, min(start + POSITIONS, positions), f)


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, x.shape[-1])
    _all(rows, weight, bias, out.reshape(-1, out.shape[-1]))
