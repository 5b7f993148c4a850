"""A dilated convolution as one without dilation, of images that each have every few pixels.

With a dilation of d, results of one remainder modulo d read places of one remainder only, so an
image is split into the d x d images of equal remainders. They go through the ordinary convolution
as one mini-batch, and the results are put back in their places. Where the sides are no multiple of
d, the smaller images are filled up with zeros, which are what lies outside an image anyway.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda

from ..runtime.arrays import DeviceArray
from ..runtime.kernel import Kernel, ending, float32, floats, int32, pointer
from ..runtime.machine import Launch
from ..words import get, put
from ..words.whole import quotient

THREADS = 256

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
    """Return the kernel that copies or adds the pixels of all parts to their places."""

    def run(parts, out, count, images, h, w, c, d_h, d_w, lines, columns, more):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            place = quotient(i, c)
            channel = int32(i - int32(place * c))
            row = quotient(place, w)
            n, column = quotient(row, h), int32(place - int32(row * w))
            row = int32(row - int32(n * h))
            line, across = quotient(row, d_h), quotient(column, d_w)
            a, b = int32(row - int32(line * d_h)), int32(column - int32(across * d_w))
            part = int32(int32(int32(a * d_w) + b) * images + n)
            at = int32(int32(int32(part * lines) + line) * columns + across)
            value = get(parts, int32(at * c + channel))
            if more != int32(0):
                value += get(out, i)
            put(out, i, value)

    return Kernel(f"join{ending(kind)}", run, (kind, kind, *(int32,) * 10), THREADS)


# --- launches -------------------------------------------------------------------------------------


def split(x: DeviceArray, dilation: tuple[int, int], parts: DeviceArray) -> Launch:
    """Return the launch that splits images into their parts."""
    numbers = _numbers(parts, x, parts, dilation)
    return Launch(split_kernel(pointer(x)), -(-parts.size // THREADS), (x, parts, *numbers))


def join(parts: DeviceArray, dilation: tuple[int, int], out: DeviceArray, more: bool) -> Launch:
    """Return the launch that puts parts in the places of images; ``more`` adds to these."""
    numbers = _numbers(out, out, parts, dilation)
    return Launch(
        join_kernel(pointer(out)), -(-out.size // THREADS), (parts, out, *numbers, int(more))
    )


def _numbers(
    result: DeviceArray, whole: DeviceArray, parts: DeviceArray, dilation: tuple[int, int]
) -> list[int]:
    """Return the numbers of both kernels."""
    return [result.size, *whole.shape, *dilation, *parts.shape[1:3]]
