"""What poolings share: the numbers of windows, and images whose pixels are whole sectors."""

from __future__ import annotations

from ...checks import Pair, Shape, pair
from ..elementwise import narrowed, widened
from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import int32
from ..runtime.machine import Launch

THREADS = 256
SECTOR_BYTES = 32  # bytes that a GPU moves at once
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


# Windows begin at any pixel. Where a pixel's channels are no whole sectors, threads side by side
# would ask for parts of many. So there, a pooling computes on images that are filled up.


def channels_in_sectors(x: DeviceArray) -> int:
    """Return how many channels the pixels of an image have that are filled up."""
    each = SECTOR_BYTES // x.dtype.itemsize
    return -(-x.shape[-1] // each) * each


def in_sectors(x: DeviceArray) -> tuple[DeviceArray, list[Launch]]:
    """Return an image of whole sectors, and the launches that copy ``x`` to it, with zeros.

    Where its pixels are whole sectors, it is ``x`` itself.
    """
    narrow, wide = x.shape[-1], channels_in_sectors(x)
    if narrow == wide:
        return x, []
    made = scratch(x.machine, (*x.shape[:-1], wide), x.dtype)
    return made, [widened(x, made, narrow, wide)]


def out_of_sectors(out: DeviceArray, more: bool = False) -> tuple[DeviceArray, bool, list[Launch]]:
    """Return an image of whole sectors, whether to add to it, and the launches behind.

    They copy or add its first channels to ``out``.
    """
    narrow, wide = out.shape[-1], channels_in_sectors(out)
    if narrow == wide:
        return out, more, []
    made = scratch(out.machine, (*out.shape[:-1], wide), out.dtype)
    return made, False, [narrowed(made, out, narrow, wide, more)]
