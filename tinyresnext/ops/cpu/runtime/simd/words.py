"""Operands of bfloat16 as words, in NumPy: to lay weights out, and in plain functions of tiles.

A word never has channels of two groups. Where a group has an odd number of channels, as an image of
three channels has, a copy of the input gives each group one channel more, which is zero
(`elementwise.in_words`), and so does the weight.
"""

from __future__ import annotations

import numpy as np

from ....bfloat16 import rounded, widened

Array = np.ndarray


def paired(weight: Array) -> Array:
    """Round a weight and put every two channels of a group into a word.

    Parameters
    ----------
    weight : [c_out, c_group, k_h, k_w]

    Returns
    -------
    [c_out, ceil(c_group / 2), k_h, k_w] words, as float32: layouts move them as such
    """
    c_out, c_group, *kernel = weight.shape
    made = np.zeros((c_out, -(-c_group // 2), *kernel, 2), np.uint16)
    made[..., 0] = rounded(weight[:, ::2])
    made[:, : c_group // 2, ..., 1] = rounded(weight[:, 1::2])
    return made.view(np.float32)[..., 0]


def halves_of(words: Array) -> Array:
    """Return the two numbers of each word, as float32 in a last axis of two."""
    return widened(np.ascontiguousarray(words).view(np.uint16)).reshape(*words.shape, 2)


def operands(left: Array, right: Array) -> tuple[Array, Array]:
    """Return the factors of a product of matrices; those of words are twice as deep.

    Parameters
    ----------
    left : [rows, depth]
    right : [depth, columns]
    """
    if right.dtype != np.uint32:
        return left, right
    deep = halves_of(right).swapaxes(1, 2).reshape(-1, right.shape[1])
    return halves_of(left).reshape(len(left), -1), deep


def multiplied(a: Array, b: Array) -> Array:
    """Return the products of two vectors, or of words the sums of both products."""
    return (halves_of(a) * halves_of(b)).sum(-1) if b.dtype == np.uint32 else a * b


def ended(sums: Array, residual: Array, out: Array, at: int, add: int, floor: float) -> None:
    """Compute the epilogue of a row of a tile, and store it at ``at``, as the array has it."""
    place = slice(at, at + len(sums))
    halves = out.dtype == np.uint16
    if add:
        sums = sums + (widened(residual[place]) if halves else residual[place])
    floored = np.where(sums < floor, floor, sums)
    out[place] = rounded(floored) if halves else floored
