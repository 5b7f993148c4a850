"""Four integers of 8 bits in a lane: ``vpdpbusd`` of AVX-512 VNNI and AVX-VNNI.

One instruction multiplies four pairs of a lane and adds the products to the sum, in 32 bits. Bytes
stay bytes. Expect up to four times the speed of float32.

The left of the instruction has no sign. So 128 is added to each value of the input, and the sums
begin with ``-128 * (sum of the filter's weights)``, which is known when the weight is packed.

Where the processor has no such instruction, LLVM makes multiplications of vectors of it. Then only
the result is checked, and nothing is timed.
"""

from __future__ import annotations

import lanes as v
import numpy as np
from bits_5_int8_pairs import rounded, scale_of

from tinyresnext.network.plan.quantised import split
from tinyresnext.ops.cpu.conv.integer import words

__all__ = ["conv2d", "missing", "pack", "prepare", "rounded"]

FOURS = words.Words(4, "vpdpbusd" if words.words().instruction == "vpdpbusd" else "none")


def dot(e, word, row, sums):
    """Emit the sum of four products and of what was there."""
    word, row = (e.builder.bitcast(value, v.WHOLE) for value in (word, row))
    return words.dot(e, sums, word, row, FOURS)


multiply = v.product(v.rows_of(others=3), dot, v.scaled, whole=True)


def missing() -> str:
    """Return what the processor lacks, or nothing."""
    return "" if FOURS.instruction == "vpdpbusd" else "this processor has no VNNI"


def prepare(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return the input as the layer before may store it: integers with 128 added."""
    scale = scale_of(x)
    return v.pixels_of(np.rint(x / scale) + 128, np.uint8, 4), scale


def pack(weight: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return panels of words, the scale of each filter, and what each sum begins with."""
    filters, scales = split(weight)
    begin = v.zeros(weight)
    begin.view(np.int32)[: len(weight)] = -128 * filters.sum((1, 2, 3), np.int32)
    return v.panels_of(filters, np.int8, 4), scales, begin


def conv2d(
    x: tuple[np.ndarray, np.float32],
    packed: tuple[np.ndarray, np.ndarray, np.ndarray],
    bias: np.ndarray,
    stride: int,
    groups: int,
    out: np.ndarray,
) -> None:
    """Compute the convolution with bias and ReLU."""
    (integers, scale), (panels, scales, begin) = x, packed
    left = v.rows_at(integers, stride).view(np.float32).reshape(-1)
    multiply(left, panels, begin, scales * scale, bias, out.reshape(-1, out.shape[-1]))
