"""The kernels of `tinyresnext.ops.cpu`; comments there explain the remaining ideas."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyresnext.ops import cpu


def pack(weight: np.ndarray, groups: int) -> Any:
    """Pack the weight, as a plan does once."""
    return cpu.pack(weight, groups)


def conv2d(
    x: np.ndarray, weight: Any, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    cpu.conv2d(
        x,
        weight,
        bias,
        stride=stride,
        padding=weight.shape[2] // 2,
        groups=groups,
        relu=True,
        out=out,
    )
