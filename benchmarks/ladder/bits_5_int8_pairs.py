"""int8 between layers, two of 16 bits in a lane: ``pmaddwd``, which every x86-64 has.

An integer ``q`` of 8 bits stands for the real number ``scale * q``. Bytes become 16 bits when rows
are copied, as bfloat16 became float32 two rungs before, and weights when they are packed. The
instruction multiplies both pairs of a lane and adds the products in 32 bits, exactly. A second
instruction adds that to the sum, so one register more is in use.

Expect 1.5 times the speed of float32: twice the products in an instruction, but two instructions.
Other processors have no such instruction; LLVM makes multiplications of vectors of it there.
"""

from __future__ import annotations

import lanes as v
import numpy as np
from numba import njit

from tinyresnext.network.plan.quantised import split
from tinyresnext.ops.cpu.conv.integer import words

__all__ = ["conv2d", "missing", "pack", "prepare", "rounded", "scale_of"]

# `words.dot` of pairs: ``pmaddwd`` and an addition.
PAIRS = words.Words(2, words.words().instruction if words.words().ways == 2 else "pmaddwd")


def dot(e, word, row, sums):
    """Emit the sum of two products, and an addition."""
    word, row = (e.builder.bitcast(value, v.WHOLE) for value in (word, row))
    return words.dot(e, sums, word, row, PAIRS)


multiply = v.product(v.rows_of(others=4), dot, v.scaled, whole=True)


@njit
def widen(source, target):
    """Make 16 bits of each byte."""
    for i in range(len(source)):
        target[i] = source[i]


def missing() -> str:
    """Return what the processor lacks, or nothing."""
    return "" if PAIRS.instruction != "none" else "this processor has no pmaddwd for its vectors"


def scale_of(x: np.ndarray) -> np.float32:
    """Return the scale with which the largest number is the last integer."""
    return np.float32(np.abs(x).max() / 127)


def prepare(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Return the input as the layer before stores it: integers, and their scale."""
    scale = scale_of(x)
    return v.pixels_of(np.rint(x / scale), np.int8, 4), scale


def rounded(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the input and the weight that this rung computes with."""
    integers, scale = prepare(x)
    filters, scales = split(weight)
    exact = integers[..., : x.shape[3]].astype(np.float64) * scale
    return exact, filters.astype(np.float64) * scales[:, None, None, None]


def pack(weight: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return panels of pairs, the scale of each filter, and zeros."""
    filters, scales = split(weight)
    filled = np.zeros((*filters.shape[:1], -(-filters.shape[1] // 4) * 4, 1, 1), np.int16)
    filled[:, : filters.shape[1]] = filters
    return v.panels_of(filled, np.int16, 2), scales, v.zeros(weight)


def conv2d(
    x: tuple[np.ndarray, np.float32],
    packed: tuple[np.ndarray, np.ndarray, np.ndarray],
    bias: np.ndarray,
    stride: int,
    groups: int,
    out: np.ndarray,
) -> None:
    """Compute the convolution with bias and ReLU."""
    (integers, scale), (panels, scales, none) = x, packed
    source = v.rows_at(integers, stride).reshape(-1)
    left = np.empty(len(source), np.int16)
    widen(source, left)
    made = out.reshape(-1, out.shape[-1])
    multiply(left.view(np.float32), panels, none, scales * scale, bias, made)
