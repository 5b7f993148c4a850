"""The sizes of one convolution as the kernels take them, and what they cannot count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ....errors import DeviceError
from ...checks import Pair, Shape, pair
from ..elementwise import widened
from ..runtime.arrays import DeviceArray, scratch
from ..runtime.call import MOST_VALUES as MOST
from ..runtime.machine import Launch

SECTOR = 8  # values of float32 that a GPU moves at once: 32 bytes
SHORT = 32  # filters that one instruction of a warp stores
FEW = 16  # filters, whose weights are less than half of what a product loads
RUNS = 4  # of channels in a slice of a product
BANKS = 32  # of shared memory
WIDEST = 2**15 - 1  # taps of a kernel in one direction: two numbers share 32 bits


class Windows(NamedTuple):
    """Which values of an image each position of the result is computed from.

    The position (r, s) of the result sees the lines ``r * s_h - p_h + i`` and the columns ``s * s_w
    - p_w + j`` of the image, for the taps (i, j). Padding below zero begins inside the image.
    """

    n: int
    h: int
    w: int
    c_in: int
    h_out: int
    w_out: int
    c_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    groups: int

    @property
    def positions(self) -> int:
        """Return the number of positions of the result."""
        return self.n * self.h_out * self.w_out

    @property
    def narrow(self) -> int:
        """Return the number of input channels of a group."""
        return self.c_in // self.groups

    @property
    def width(self) -> int:
        """Return the number of output channels of a group."""
        return self.c_out // self.groups

    @property
    def depth(self) -> int:
        """Return the number of values that one value of the result is a sum over."""
        return self.k_h * self.k_w * self.narrow

    @property
    def plain(self) -> bool:
        """Return whether position m of the result sees place m of the image, and nothing else."""
        return self.point and (self.h_out, self.w_out) == (self.h, self.w)

    @property
    def point(self) -> bool:
        """Return whether every position sees one place, and that inside the image."""
        return (
            self.k_h == self.k_w == 1
            and self.p_h <= 0
            and self.p_w <= 0
            and (self.h_out - 1) * self.s_h - self.p_h < self.h
            and (self.w_out - 1) * self.s_w - self.p_w < self.w
        )


def windows(
    x: Shape, y: Shape, kernel: Sequence[int], stride: Pair, padding: Pair, groups: int
) -> Windows:
    """Return the windows of a convolution.

    Parameters
    ----------
    x : (n, h, w, c_in)
    y : (n, h_out, w_out, c_out)
    kernel : (k_h, k_w)
    stride, padding : int or (int, int)
    groups : int

    Raises
    ------
    DeviceError
        The kernels cannot count that far.
    """
    (n, h, w, c_in), (_, h_out, w_out, c_out), (k_h, k_w) = x, y, kernel
    (s_h, s_w), (p_h, p_w) = pair("stride", stride, 1), pair("padding", padding, 0)
    return counted(
        Windows(n, h, w, c_in, h_out, w_out, c_out, k_h, k_w, s_h, s_w, p_h, p_w, int(groups))
    )


def counted(win: Windows) -> Windows:
    """Return the windows, or raise `DeviceError` if the kernels cannot count that far."""
    n, h, w, c_in, h_out, w_out, c_out, k_h, k_w, s_h, s_w, p_h, p_w, _ = win
    taps, padded = k_h * k_w, 16  # a matrix of weights is filled up to whole slices
    most = max(
        n * h * w * c_in,
        n * h_out * w_out * c_out,
        c_out * taps * (win.narrow + padded),
        c_in * taps * (win.width + padded),
        k_h * (w + 1) * c_in,
        k_h * (w_out + 1) * c_out,
    )
    if most > MOST or max(h + 2 * p_h + s_h, w + 2 * p_w + s_w) > MOST // 2:
        raise DeviceError(
            f"conv2d: an array of {most:,} values, or padding {p_h, p_w} and stride {s_h, s_w}, is "
            f"more than the kernels of this device count to ({MOST:,}); use a smaller mini-batch"
        )
    if max(k_h, k_w) > WIDEST:
        raise DeviceError(
            f"conv2d: a kernel of {k_h} x {k_w} is wider than this device takes ({WIDEST:,})"
        )
    return win


def rounded(count: int, run: int) -> int:
    """Return the smallest multiple of ``run`` that is not below ``count``."""
    return -(-count // run) * run


def aligned(*arrays: DeviceArray | None) -> bool:
    """Return whether 16 bytes can be loaded at once from where each array begins."""
    return all(array is None or array.address % 16 == 0 for array in arrays)


def whole(channels: int, groups: int, run: int) -> int:
    """Return how many channels a group of so many is filled up to with zeros.

    What is read of a group at a place is whole sectors then. Where few channels are the only group,
    as an image's are, places lie side by side, so 16 bytes are enough: ``run`` channels.
    """
    return rounded(channels, run if groups == 1 and channels <= run else 2 * run)


def beside(filters: int, groups: int) -> int:
    """Return how many columns a matrix of weights has for a group of so many filters.

    A product stores what they make in fours, and four rows at a time. Where rows of up to 32 are
    the only group, they lie side by side, so whole fours are enough; longer ones are whole sectors.
    Fours in groups stay as they are: filling them up takes a pass over the result, which only a
    shallow product is worth (`gemm.SHALLOW`).
    """
    fours = filters <= SHORT if groups == 1 else filters % 4 == 0
    return rounded(filters, 4 if fours else SECTOR)


def line_of(win: Windows, run: int) -> int:
    """Return to how many taps a line of the kernel is filled up with zeros in a product, or 0.

    A slice of a product has `RUNS` runs of channels. Where few channels are one run, it would have
    the last taps of one line of the kernel and the first of the next, of which it sees half of each
    sector if there is a stride. So lines are whole slices, where that makes no more of them.
    """
    line = rounded(win.k_w, RUNS)
    slices = win.k_h * line // RUNS
    few = win.groups == 1 and win.narrow <= run and win.k_h > 1 and line > win.k_w
    return line if few and slices == -(-win.k_h * win.k_w // RUNS) else 0


def sparse(win: Windows, run: int, filters: int, line: int = 0) -> bool:
    """Return whether windows would see half of too many sectors of an image.

    Pixels of up to ``run`` channels are 16 bytes (`whole`), and with a stride a warp sees every few
    of them. Lines and windows of pairs of pixels are whole sectors all the same. Where windows
    overlap, as with a stride of two, half of a sector is seen seldom, and never where a ``line`` of
    the kernel is whole slices; with more than `FEW` filters, little of what is moved is the image.
    """
    if win.groups > 1 or win.c_in > run:
        return False
    if win.s_w == 1:  # a tap of each line alone may begin inside a sector
        return win.k_w == 1 < win.k_h and (win.w | win.p_w) % 2 == 1
    pairs = (win.w | win.k_w | win.s_w | win.p_w) % 2 == 0
    return not pairs and (win.s_w > 2 or win.k_w <= 2 or (filters <= FEW and not line))


def filled(
    x: DeviceArray, groups: int, run: int, sectors: bool = False
) -> tuple[DeviceArray, list[Launch]]:
    """Return an image whose groups have `whole` channels, and the launches that make it.

    With three channels, 16 bytes would begin anywhere among the channels of a place, so there is a
    fourth channel of zeros. An image that has whole groups already, and begins at a multiple of 16
    bytes, stays as it is. With ``sectors``, 16 bytes are not enough (`sparse`).
    """
    narrow = x.shape[-1] // groups
    wide = 2 * run if sectors else whole(narrow, groups, run)
    if wide == narrow and aligned(x):
        return x, []
    made = scratch(x.machine, (*x.shape[:-1], groups * wide), x.dtype)
    return made, [widened(x, made, narrow, wide)]


def turned(channels: int, taps: int) -> tuple[int, int]:
    """Return how many taps of up to four channels a warp turns, and how far channels are apart.

    Channel by channel, and all its taps side by side, is how a weight leaves shared memory. Where
    channels follow each other there, that has no conflicts; and to store several taps of all has
    none if they lie in different banks. Eight taps, a value for each thread, are best. For many
    taps, channels that are further apart cost less than fewer taps do.
    """
    if taps % 16 == 0:  # words are left free
        return 8, taps
    further = taps + (9 - taps) % BANKS
    for some, pitch in ((8, taps), (8, further if taps > BANKS else taps), (4, taps), (2, taps)):
        words = [c * pitch + tap for c in range(channels) for tap in range(min(some, taps))]
        if len({word % BANKS for word in words}) == len(words):
            return some, pitch
    return 1, taps


def sight(win: Windows, run: int, count: int, line: int = 0) -> np.ndarray:
    """Return where each run of channels that a position sees lies, and its tap.

    Parameters
    ----------
    win : Windows
    run : int
        Channels of a run; a group has whole runs of them.
    count : int
        How many values to look at; beyond the depth there are none.
    line : int
        Taps of a line of the kernel with those that fill it up and see nothing (`line_of`).

    Returns
    -------
    [runs, 2] int32
        The distance from where the window begins, or -1 beyond the depth; and the tap's line and
        column in the upper and the lower 16 bits.
    """
    narrow = win.narrow
    k = np.arange(0, count, run)
    line = line or win.k_w
    i, j, c = k // (line * narrow), k // narrow % line, k % narrow
    offset = (i * win.w + j) * win.c_in + c
    beyond = (i >= win.k_h) | (j >= win.k_w)
    table = np.stack([np.where(beyond, -1, offset), np.where(beyond, 0, i << 16 | j)], 1)
    return table.astype(np.int32)
