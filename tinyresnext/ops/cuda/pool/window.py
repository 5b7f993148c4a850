"""The numbers that all poolings over windows share."""

from __future__ import annotations

from ...checks import Pair, Shape, pair
from ..runtime.kernel import int32

THREADS = 256
NUMBERS = (int32,) * 11  # the types of what `numbers` returns


def numbers(
    x: Shape, y: Shape, size: Pair, stride: Pair, padding: Pair
) -> tuple[int, int, int, int, int, int, int, int, int, int, int]:
    """Return ``h, w, c, h_out, w_out``, and size, stride and padding, each down and across."""
    (_, h, w, c), (_, h_out, w_out, _) = x, y
    k_h, k_w = pair("size", size, 1)
    s_h, s_w = pair("stride", stride, 1)
    p_h, p_w = pair("padding", padding, 0)
    return h, w, c, h_out, w_out, k_h, k_w, s_h, s_w, p_h, p_w


def blocks_of(count: int) -> int:
    """Return how many blocks have a thread for each of so many values."""
    return -(-count // THREADS)
