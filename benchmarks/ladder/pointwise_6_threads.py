"""Threads: blocks of positions times panels are tasks that need nothing from each other.

Expect as many times the speed as there are cores, less what the slowest is late. Tasks should be
many more than threads, so that the last one to finish is late by little.
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
    """Bias and ReLU included."""
    rows = np.ascontiguousarray(x[:, ::stride, ::stride]).reshape(-1, x.shape[-1])
    _all(rows, weight, bias, out.reshape(-1, out.shape[-1]))
