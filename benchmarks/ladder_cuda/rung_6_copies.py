"""Copies that nobody waits for, and 8 x 16 results a thread: the kernel of the package.

`tinyresnext.ops.cuda.conv.gemm` copies the next slice to shared memory, past the registers, while
it multiplies the one before (`cp.async`). With 8 x 16 results a thread, 512 multiply-adds need 24
loads of shared memory: fewer than a processor can serve beside them.
"""

from __future__ import annotations

from tinyresnext.ops.cuda.conv import gemm
from tinyresnext.ops.cuda.conv.pack import BK, Columns
from tinyresnext.ops.cuda.conv.windows import Windows
from tinyresnext.ops.cuda.runtime.arrays import DeviceArray
from tinyresnext.ops.cuda.runtime.machine import Launch


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    """Return the launches of a 1x1 convolution; ``k`` must be a multiple of 16 here."""
    (m, k), n = x.shape, bias.size
    assert k % BK == 0, "the package packs weights, which fills them up to whole slices"
    win = Windows(m, 1, 1, k, 1, 1, n, 1, 1, 1, 1, 0, 0, 1)
    return gemm.product(x, Columns(weight, k, n), bias, None, out, win, relu=True)
