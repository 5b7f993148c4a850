"""What comes behind the sums of a convolution of integers, and results of any width.

A kernel ends its sums itself where results are whole sectors. Else it stores the sums as they are,
and one pass ends each by itself (`ended`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda

from ....shapes.integer import inverse_of
from ...conv.windows import SECTOR
from ...elementwise import widened
from ...runtime.arrays import DeviceArray, scratch
from ...runtime.kernel import Kernel, float32, floats, int32, ints, octets, uint32
from ...runtime.machine import Launch
from ...words import get, put, shared
from ...words.integer import added, byte, multiplied
from ...words.whole import quotient

THREADS = 256
SUMS, REAL, BYTES = range(3)  # what a kernel stores: its sums, float32, or bytes
STORED = ("sums", "real", "bytes")  # the same, in names of kernels


class End(NamedTuple):
    """What becomes of sums, as kernels take it.

    Attributes
    ----------
    kind : REAL or BYTES
    factor, bias : [c_out] float32
    residual : bytes like the result, or None
    scale : float
        Of the residual.
    floor : float
        Zero with a ReLU, else minus infinity.
    inverse, low, high : float
        For bytes.
    """

    kind: int
    factor: DeviceArray
    bias: DeviceArray
    residual: DeviceArray | None
    scale: float
    floor: float
    inverse: float
    low: float
    high: float

    @property
    def numbers(self) -> tuple[int | float, ...]:
        """Return the last arguments of a kernel: whether there is a residual, its sign, ..."""
        signed = self.residual is not None and self.residual.dtype == np.int8
        flags = int(self.residual is not None), 128 if signed else 0
        return (*flags, self.scale, self.floor, self.inverse, self.low, self.high)


NUMBERS = (int32, int32, *[float32] * 5)  # the types of `End.numbers`


def end_of(
    factor: DeviceArray,
    bias: DeviceArray,
    residual: DeviceArray | None,
    residual_scale: float,
    relu: bool,
    scale: float | None,
) -> End:
    """Return the end of a call of ``conv2d_int8``."""
    low, high = (0.0, 255.0) if relu else (-127.0, 127.0)
    inverse = 1.0 if scale is None else float(inverse_of(scale))
    kind, floor = REAL if scale is None else BYTES, 0.0 if relu else -np.inf
    again = float(np.float32(residual_scale))
    return End(kind, factor, bias, residual, again, floor, inverse, low, high)


# --- kernel ---------------------------------------------------------------------------------------


@cache
def ended_kernel(END: int) -> Kernel:
    """Return the kernel that ends sums ``[positions, groups, wide]``: a thread for each result.

    A block brings `THREADS` results together in shared memory, as `conv.fold.rows_kernel` does. It
    loads from a whole sector on, also what only fills up; factors and biases lie as the ``across``
    sums of a position do.
    """

    def run(
        sums, factor, bias, residual, y, count, width, wide, across,
        add, sign, scale, floor, inverse, low, high,
    ):  # fmt: skip
        s = shared(THREADS)
        thread, first = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x * int32(THREADS))
        last = int32(first + int32(THREADS)) if first + int32(THREADS) < count else int32(count)
        filling = int32(wide - width)
        start = int32(first + int32(quotient(first, width) * filling))
        end = int32(last + int32(quotient(last, width) * filling))
        begins = int32(start & int32(-SECTOR))
        for i in range(int32(begins + thread), end, THREADS):
            row, o = quotient(int32(i), wide), int32(uint32(i) % uint32(across))
            total = added(multiplied(float32(sums[int32(i)]), factor[o]), bias[o])
            within, into = int32(int32(i) - int32(row * wide)), int32(int32(i) - first)
            into = int32(into - int32(row * filling))
            if within < width and into >= int32(0):
                s[into] = total
        cuda.syncthreads()
        at = int32(first + thread)
        if at < last:
            total = s[thread]
            if add != 0:
                more = get(residual, at)
                if more >= float32(128) and sign != 0:
                    more = more - float32(256)
                total = added(total, multiplied(more, scale))
            if total < floor:
                total = float32(floor)
            if END == BYTES:
                total = byte(total, inverse, low, high)
            put(y, at, total)

    name, to = ("end_bytes", octets) if END == BYTES else ("end_real", floats)
    kinds = (ints, floats, floats, octets, to, *[int32] * 4, *NUMBERS)
    return Kernel(name, run, kinds, THREADS)


# --- launcher -------------------------------------------------------------------------------------


def ended(sums: DeviceArray, end: End, out: DeviceArray, groups: int) -> list[Launch]:
    """Return the launches that end ``sums [positions, filters]`` of groups that are filled up."""
    across, width, launches = sums.shape[-1], out.shape[-1] // groups, []
    each, wide = [end.factor, end.bias], across // groups
    if width < wide:
        for k, narrow in enumerate(each):
            each[k] = scratch(out.machine, (across,))
            launches.append(widened(narrow, each[k], width, wide))
    arrays, blocks = (sums, *each, end.residual, out), -(-out.size // THREADS)
    numbers = (out.size, width, wide, across, *end.numbers)
    return [*launches, Launch(ended_kernel(end.kind), blocks, (*arrays, *numbers))]
