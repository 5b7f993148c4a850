"""An image in parts, each of which has every few of its pixels.

With a dilation of d, results of one remainder modulo d read places of one remainder only, so an
image is split into the d x d images of equal remainders. They go through the ordinary convolution
as one mini-batch, and the results are put back in their places. Where the sides are no multiple of
d, the smaller images are filled up with zeros, which are what lies outside an image anyway.

The gradient of an image by a convolution with a stride is made in such parts too (`backward`), and
is put together in one pass: what is stored for every other pixel would be half of each sector.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

from numba import cuda

from ..pool.window import SECTOR_BYTES, in_sectors, out_of_sectors
from ..runtime.arrays import DeviceArray, scratch
from ..runtime.kernel import Kernel, ending, float32, floats, int32, pointer, uint32
from ..runtime.machine import Launch
from ..words import get, load4_if, put, shared, store4
from ..words.whole import located, quotient
from .windows import SECTOR, Windows, beside, rounded, whole

THREADS = 256
CHUNK = 1024  # values of an image that a block puts together in shared memory

# --- kernels --------------------------------------------------------------------------------------


@cache
def split_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel that copies every few pixels of images to their parts."""

    def run(x, parts, count, images, h, w, c, d_h, d_w, lines, columns):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            place = quotient(i, c)
            channel = int32(i - int32(place * c))
            line = quotient(place, columns)
            part = quotient(line, lines)
            remainder = quotient(part, images)
            n, a = int32(part - int32(remainder * images)), quotient(remainder, d_w)
            b = int32(remainder - int32(a * d_w))
            row = int32(int32(line - int32(part * lines)) * d_h + a)
            column = int32(int32(place - int32(line * columns)) * d_w + b)
            value = float32(0)
            if row < h and column < w:
                at = int32(int32(int32(n * h + row) * w + column) * c + channel)
                value = get(x, at)
            put(parts, i, value)

    return Kernel(f"split{ending(kind)}", run, (kind, kind, *(int32,) * 9), THREADS)


@cache
def join_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel that copies or adds the pixels of all parts to their places.

    Line r belongs to part ``(r + e_h) % d_h``, of which the first ``k_h`` are there; columns
    likewise. A pixel of a part that is not there becomes zero, or stays as it is.
    """

    def run(
        parts, out, count, h, w, c, d_h, d_w, e_h, e_w, k_h, k_w, apart, lines, columns, more
    ):  # fmt: skip
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            n, row, column, channel = located(i, h, w, c)
            line, across = quotient(row, d_h), quotient(column, d_w)
            a, b = int32(row - int32(line * d_h) + e_h), int32(column - int32(across * d_w) + e_w)
            a, b = int32(a - d_h) if a >= d_h else a, int32(b - d_w) if b >= d_w else b
            there = a < k_h and b < k_w
            if there or more == int32(0):
                value = float32(0)
                if there:
                    at = int32(int32(int32(n * lines + line) * columns + across) * c + channel)
                    value = get(parts, int32(int32(int32(a * k_w + b) * apart) + at))
                if more != int32(0):
                    value += get(out, i)
                put(out, i, value)

    return Kernel(f"join{ending(kind)}", run, (kind, kind, *(int32,) * 14), THREADS)


@cache
def join_few_kernel(EACH: int) -> Kernel:
    """Return the kernel of `join_kernel` for pixels that are filled up, or no whole sectors.

    Pixels of parts are groups of ``wide`` channels, of which ``narrow`` count. A block loads those
    that it stores, from a whole sector on, and brings them together in shared memory. It takes
    ``EACH`` channels at once: four where they are stored to shared memory at once too, or are few;
    else its banks would be asked four times.
    """

    def run(
        parts, out, count, h, w, narrow, wide, groups, d_h, d_w, e_h, e_w, k_h, k_w,
        apart, lines, columns, more,
    ):  # fmt: skip
        s = shared(CHUNK)
        thread, first = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x * int32(CHUNK))
        here = int32(count - first) if count - first < int32(CHUNK) else int32(CHUNK)
        filling, across = int32(wide - narrow), int32(groups * wide)
        last = int32(first + here)
        start = int32(first + int32(quotient(first, narrow) * filling))
        end = int32(last + int32(quotient(last, narrow) * filling))
        begins = int32(start - int32(uint32(start) % uint32(SECTOR)))
        for i in range(int32(begins + thread * EACH), end, THREADS * EACH):
            group = quotient(int32(i), wide)
            pixel = quotient(group, groups)
            n, row, column, _ = located(pixel, h, w, int32(1))
            line, place = quotient(row, d_h), quotient(column, d_w)
            a, b = int32(row - int32(line * d_h) + e_h), int32(column - int32(place * d_w) + e_w)
            a, b = int32(a - d_h) if a >= d_h else a, int32(b - d_w) if b >= d_w else b
            at = int32(int32(int32(n * lines + line) * columns + place) * across)
            at = int32(at + int32(int32(i) - int32(pixel * across)))
            at = int32(int32(int32(a * k_w + b) * apart) + at)
            there = a < k_h and b < k_w
            left = int32(narrow - int32(int32(i) - int32(group * wide)))
            to = int32(int32(int32(i) - int32(group * filling)) - first)
            if EACH == 1:
                value = float32(0)
                if there:
                    value = parts[at]
                if left > 0 and to >= 0 and to < here:
                    s[to] = value
            else:
                u = load4_if(parts, at, there, 16)
                if narrow % int32(4) == int32(0):
                    if left > 0 and to >= 0 and to < here:
                        store4(s, to, u, 16)
                else:
                    if left > 0 and to >= 0 and to < here:
                        s[to] = u[0]
                    if left > 1 and to >= -1 and to + 1 < here:
                        s[int32(to + 1)] = u[1]
                    if left > 2 and to >= -2 and to + 2 < here:
                        s[int32(to + 2)] = u[2]
        cuda.syncthreads()
        for i in range(thread, here, THREADS):
            at, value = int32(first + int32(i)), s[int32(i)]
            out[at] = out[at] + value if more != int32(0) else value

    return Kernel(f"join_few_{EACH}", run, (floats, floats, *(int32,) * 16), THREADS)


# --- launches -------------------------------------------------------------------------------------


def split(x: DeviceArray, dilation: tuple[int, int], parts: DeviceArray) -> list[Launch]:
    """Return the launches that split images into their parts, as pixels of whole sectors."""
    (x, first), (parts, _, last) = in_sectors(x), out_of_sectors(parts)
    numbers = (parts.size, *x.shape, *dilation, *parts.shape[1:3])
    launch = Launch(split_kernel(pointer(x)), -(-parts.size // THREADS), (x, parts, *numbers))
    return [*first, launch, *last]


def gathered(x: DeviceArray, win: Windows) -> tuple[DeviceArray, Windows, list[Launch]]:
    """Return the pixels that a 1x1 with a stride sees, its windows on these, and the launches.

    Only where channels are the only group and half a sector at most: products fill them up to 16
    bytes, of which every few would be read. All else stays as it is.
    """
    few_bytes = win.groups == 1 and win.c_in * x.dtype.itemsize <= SECTOR_BYTES // 2
    if not few_bytes or not win.point or win.plain or win.p_h or win.p_w:
        return x, win, []
    made = scratch(x.machine, (win.n, win.h_out, win.w_out, win.c_in), x.dtype)
    side_by_side = win._replace(h=win.h_out, w=win.w_out, s_h=1, s_w=1)
    return made, side_by_side, split(x, (win.s_h, win.s_w), made)


def few(win: Windows, direct: bool) -> int:
    """Return how many channels a group of the image has, filled up, in the parts that are joined.

    Where pixels are whole sectors it stays as it is. But a product, which makes the parts if they
    are not ``direct``, stores each group by itself; with a stride of three or more, or one column
    of taps, only few pixels of a part are side by side in what a warp joins; and two channels of
    four would lie in every other bank. There, groups are whole sectors.
    """
    channels, groups = win.narrow, win.groups
    if not direct and (groups > 1 or channels == 2 or win.s_w > min(2, win.k_w)):
        return rounded(channels, SECTOR)
    if win.c_in % SECTOR == 0:
        return channels
    return beside(channels, groups) if channels % 4 == 0 else whole(channels, groups, 4)


def join(
    parts: DeviceArray,
    steps: tuple[int, int],
    out: DeviceArray,
    more: bool,
    ahead: tuple[int, int] = (0, 0),
    there: tuple[int, int] | None = None,
    groups: tuple[int, int] = (1, 0),
) -> list[Launch]:
    """Return the launches that put parts in the places of images, as pixels of whole sectors.

    Parameters
    ----------
    parts : array
        Those that are there, one after the other and equally far apart.
    steps : (int, int)
        How far two lines, and two columns, of a part are apart in an image.
    out : [n, h, w, c]
    more : bool
        Whether they are added to what is there.
    ahead, there : (int, int)
        The part of the first line and of the first column, and how many parts there are in each
        direction: all if it is None.
    groups : (int, int)
        Of channels in the parts, and what each is filled up to (`few`); 0 if that is nothing.
    """
    there, (_, h, w, c), (many, wide) = there or steps, out.shape, groups
    ways, lines = (*steps, *ahead, *there), (-(-h // steps[0]), -(-w // steps[1]))
    if wide and (c % SECTOR != 0 or many * wide > c):
        narrow, apart = c // many, parts.size // prod(there)
        numbers = (out.size, h, w, narrow, wide, many, *ways, apart, *lines, int(more))
        kernel = join_few_kernel(4 if narrow % 4 == 0 or wide == 4 else 1)
        return [Launch(kernel, -(-out.size // CHUNK), (parts, out, *numbers))]
    (parts, first), (out, more, last) = in_sectors(parts), out_of_sectors(out, more)
    apart = parts.size // prod(there)
    given = (parts, out, out.size, h, w, out.shape[-1], *ways, apart, *lines, int(more))
    launch = Launch(join_kernel(pointer(out)), -(-out.size // THREADS), given)
    return [*first, launch, *last]
