"""What both kernels of integers share: how they cut their work, and how strips are filled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ..geometry import Geometry
from ..wide import strips as wide
from .words import OFFSET, widen

BYTES_OF_LINE = 64  # of the cache
TASKS = 8  # for each thread, about


class Values(NamedTuple):
    """What a call's values are; the numbers of both kernels have these.

    Attributes
    ----------
    apart : int
        Values of a row of the terms.
    sign, other : int
        128 if the input is signed, or the residual; else 0.
    wide : int
        1 if the result is float32.
    """

    apart: int
    sign: int
    other: int
    wide: int


def cut_bytes(geo: Geometry, units: int, filters: int) -> tuple[int, int, int]:
    """Cut a result of bytes: return the lines of a strip, the strips of an image, and the shares.

    Threads that write into one line of the cache wait for each other, so a share has whole lines
    where that can be. What tasks are then missing are more strips.

    Parameters
    ----------
    geo : Geometry
        With words for channels.
    units : int
        Panels, or vectors of groups, that are shared out.
    filters : int
        Of a unit.
    """
    numbers = wide.cut(geo, False, False)
    whole = max(1, min(units, units * filters // BYTES_OF_LINE))
    shares = next(n for n in range(min(numbers.shares, whole), whole + 1) if whole % n == 0)
    wanted = -(-TASKS * threads_now() // max(1, geo.n * shares))
    few = min(geo.h_out, -(-wide.POSITIONS // geo.w_out))
    strips = min(max(numbers.strips, wanted), -(-geo.h_out // few))
    lines = -(-geo.h_out // strips)
    return lines, -(-geo.h_out // lines), shares


@functools.cache
def cut_strip_of(ways: int) -> Callable[..., None]:
    """Make the function that fills a strip with words of so many values."""
    short, empty_word = (np.int16, 0) if ways == 2 else (np.uint8, 0x01010101)
    zero_of_signed = OFFSET if ways == 4 else 0

    @part()
    def cut_strip(x, g, n, top, lines, columns, g0, count, pixel, strip):
        """Copy ``count`` groups from ``g0`` on, of ``lines`` lines from ``top`` on, into a strip.

        Pixels outside the image are zero. Values that fill up a word are arbitrary: their weights
        are zero.
        """
        c_group, offset = g.c_in // g.groups, zero_of_signed if g.sign else 0
        values, all_words = strip.view(short), strip.view(np.int32)
        # Where no word is filled up, the channels of all groups are one run.
        runs, run = count, c_group
        if c_group == g.deep * ways:
            runs, run = 1, count * c_group
        none = np.int32(empty_word * offset - ((empty_word * offset >> 31) << 32))
        for line in range(lines):
            at, inside = line * columns, 0 <= top + line < g.h
            left = min(g.p_w, columns) if inside else columns
            right = min(left + g.w, columns)
            all_words[at * pixel : (at + left) * pixel] = none
            all_words[(at + right) * pixel : (at + columns) * pixel] = none
            source = (n * g.h + top + line) * g.w * g.c_in + g0 * c_group
            for q in range(left, right):
                for one in range(runs):
                    to = ((at + q) * pixel + one * g.deep) * ways
                    widen(x, source + one * c_group, values, to, run, g.sign, offset)
                source += g.c_in

    return cut_strip
