"""Strips and panels of bfloat16 for the gradient of a weight: words of two positions (see `outer`).

The depth of that product are the positions, so a word (`simd.bfloat16`) has what one tap and one
channel see at two neighbouring positions of a line. With a stride of s, these are a pixel and the
one s further, whatever the tap: so a line of the image, padding included, becomes a line of words
once, and tiles find what they need in it as they find float32 in a strip::

      pixels    [ x0 ][ x1 ][ x2 ][ x3 ] ...           a pixel: the channels of some groups
      words     [ x1 x0 ][ x2 x1 ][ x3 x2 ] ...        s = 1; tap j of positions 2p, 2p + 1: 2p + j

Where a line has an odd number of positions, the last has no neighbour. Its pixels come once more
behind the line, with zeros in their upper halves: what is beside them belongs to no position, and
might be no number.
"""

from __future__ import annotations

from ...runtime.kernel import part
from ...runtime.simd import copy, interleave
from .strips import cut_strip, distances


def sizes(w_out: int, s_w: int, k_w: int) -> tuple[int, int]:
    """Return how many pairs of positions a line has, and how many words for each channel."""
    whole, odd = divmod(w_out, 2)
    return whole + odd, (2 * (whole - 1) * s_w + k_w if whole else 0) + odd * k_w


@part()
def pair_places(g, strips, lines, columns, pixel, channels, rows, steps):
    """Fill the tables as `strips.places` does, with a row for each pair of positions."""
    r, deep, whole = 0, (lines - 1) * g.s_h + g.k_h, columns - g.w_out % 2 * g.k_w
    for s in range(strips):
        for y in range(lines):
            for p in range(g.along):
                place = 2 * p * g.s_w if p < g.w_out // 2 else whole
                rows[r] = ((s * deep + y * g.s_h) * columns + place) * pixel
                r += 1
    rows[r:] = 0
    distances(g, columns, pixel, channels, steps)


@part()
def cut_words(x, g, n, top, lines, c0, count, pixel, strip, spare):
    """Make words of ``count`` channels from ``c0`` of ``lines`` lines from ``top`` on.

    ``spare`` has room for a line, and for a pixel of zeros behind it.
    """
    columns = (g.w_out - 1) * g.s_w + g.k_w
    none, whole = columns * pixel, g.columns - g.w_out % 2 * g.k_w
    spare[none : none + count] = 0
    for line in range(lines):
        cut_strip(x, g, n, top + line, 1, columns, c0, count, pixel, spare)
        at = line * g.columns * pixel
        for q in range(whole):
            interleave(spare, q * pixel, (q + g.s_w) * pixel, strip, at, count)
            at += pixel
        for j in range(g.columns - whole):
            interleave(spare, (columns - g.k_w + j) * pixel, none, strip, at, count)
            at += pixel


@part()
def cut_panel(dy, g, first, lines, f0, filters, size, spare, right):
    """Make words of ``filters`` filters from ``f0`` of ``lines`` lines from line ``first`` on.

    ``spare`` has room for two rows.
    """
    at, odd = 0, g.w_out % 2
    for line in range(first, first + lines):
        source = line * g.w_out * g.c_out + f0
        for p in range(g.along):
            alone = odd == 1 and p == g.along - 1
            if alone or source + g.c_out + size > len(dy):  # whole vectors are read
                copy(dy, source, spare, 0, filters)
                if alone:
                    spare[size : 2 * size] = 0
                else:
                    copy(dy, source + g.c_out, spare, size, filters)
                interleave(spare, 0, size, right, at, size)
            else:
                interleave(dy, source, source + g.c_out, right, at, size)
            source += 2 * g.c_out
            at += size
