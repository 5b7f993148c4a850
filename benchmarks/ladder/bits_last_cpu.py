"""int8 in the package: the rungs before in one kernel, for any kernel and groups.

The same words, with rows found by a table, and an epilogue in registers
(`tinyresnext.ops.cpu.conv.integer`). It runs on one thread here, as the other rungs from float32 to
int8. Its result is float32 here, and not rounded to 8 bits again, so that it can be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bits_5_int8_pairs import rounded, scale_of

from tinyresnext.network.plan.quantised import split
from tinyresnext.ops import cpu

__all__ = ["conv2d", "pack", "prepare", "rounded"]


def prepare(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return the input as the layer before stores it: integers, and their scale."""
    scale = scale_of(x)
    return np.rint(x / scale).astype(np.int8), scale


def pack(weight: np.ndarray, groups: int) -> tuple[Any, np.ndarray]:
    """Pack the weight, as a plan does once."""
    filters, scales = split(weight)
    return cpu.pack_int8(filters, groups), scales


def conv2d(
    x: tuple[np.ndarray, np.float32],
    packed: tuple[Any, np.ndarray],
    bias: np.ndarray,
    stride: int,
    groups: int,
    out: np.ndarray,
) -> None:
    """Compute the convolution with bias and ReLU."""
    (integers, scale), (weight, scales) = x, packed
    given = {"stride": stride, "groups": groups, "relu": True, "out": out}
    with cpu.on_threads(1):
        cpu.conv2d_int8(integers, weight, scales * scale, bias, **given)
