"""The weight of a convolution of integers, in words of four neighbouring channels.

A model's weights are packed once, when it is loaded, and that is done in NumPy. The two layouts are
those of `conv.pack`, with words for values: `product` reads a matrix for each group, and `grouped`
reads one word for each of 128 filters at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...conv.pack import BK, SLAB
from ...conv.windows import rounded, whole
from ...runtime.arrays import DeviceArray, upload
from ...runtime.machine import Machine

Array = np.ndarray
RUN = 4  # words that are copied at once: 16 channels


class Words(NamedTuple):
    """For each group a matrix of words ``[deep, wide]``, filled up with zeros."""

    data: DeviceArray
    deep: int
    wide: int


class Turns(NamedTuple):
    """``[slab of 128 filters, turn, tap, filter of the slab]``: a filter's word in each turn.

    Filter o of its group sees word ``(turn + o // 4) % words`` of the group's, so what the threads
    of a warp read at one time lies side by side.
    """

    data: DeviceArray
    apart: int  # words from a turn to the next


def matrices(machine: Machine, weight: Array, groups: int) -> Words:
    """Lay a weight ``[c_out, c_in / groups, k_h, k_w]`` out for `product`."""
    c_out, channels, *kernel = weight.shape
    width, taps, filled = c_out // groups, int(np.prod(kernel)), whole(channels, groups, 4 * RUN)
    each = np.zeros((groups, width, filled, taps), np.int8)
    each[:, :, :channels] = weight.reshape(groups, width, channels, taps)
    fours = each.reshape(groups, width, filled // 4, 4, taps).transpose(0, 4, 2, 1, 3)
    words = in_words(fours).reshape(groups, taps * filled // 4, width)
    deep, wide = rounded(words.shape[1], BK), rounded(width, 8)
    made = np.zeros((groups, deep, wide), np.int32)
    made[:, : words.shape[1], :width] = words
    return Words(upload(machine, made), deep, wide)


def turns(machine: Machine, weight: Array, groups: int) -> Turns:
    """Lay a weight out for `grouped`; groups have whole words."""
    c_out, channels, *kernel = weight.shape
    width, taps, count = c_out // groups, int(np.prod(kernel)), channels // 4
    words = in_words(weight.reshape(c_out, count, 4, taps).transpose(0, 1, 3, 2))
    filters = np.arange(c_out)
    seen = (np.arange(count) + filters[:, None] % width // 4) % count
    made = np.zeros((rounded(c_out, SLAB), count, taps), np.int32)
    made[:c_out] = words[filters[:, None], seen]
    made = made.reshape(-1, SLAB, count, taps).transpose(0, 2, 3, 1)
    return Turns(upload(machine, np.ascontiguousarray(made)), taps * SLAB)


def in_words(fours: Array) -> Array:
    """Return ``[..., 4]`` bytes as ``[...]`` words; the first byte is the lowest."""
    return np.ascontiguousarray(fours, np.int8).view("<i4")[..., 0]
