"""What comes behind the sums of a convolution of integers, and results of any width.

A kernel ends its sums itself where the filters of a group are whole words. Else it stores them as
they are, and one pass ends each by itself (`ended`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import cuda

from ....shapes.integer import inverse_of
from ...runtime.arrays import DeviceArray
from ...runtime.kernel import Kernel, float32, floats, int32, ints, octets, uint32
from ...runtime.machine import Launch
from ...words import get, put
from ...words.integer import added, byte, multiplied

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

    So threads side by side store bytes side by side, and whole sectors.
    """

    def run(
        sums, factor, bias, residual, y, size, c_out, width, wide, across,
        add, sign, scale, floor, inverse, low, high,
    ):  # fmt: skip
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if i < size:
            m, o = int32(uint32(i) // uint32(c_out)), uint32(i) % uint32(c_out)
            group, within = int32(o // uint32(width)), int32(o % uint32(width))
            at, o = int32(m * across + group * wide + within), int32(o)
            total = added(multiplied(float32(sums[at]), factor[o]), bias[o])
            if add != 0:
                more = get(residual, i)
                if more >= float32(128) and sign != 0:
                    more = more - float32(256)
                total = added(total, multiplied(more, scale))
            if total < floor:
                total = float32(floor)
            if END == BYTES:
                total = byte(total, inverse, low, high)
            put(y, i, total)

    name, to = ("end_bytes", octets) if END == BYTES else ("end_real", floats)
    kinds = (ints, floats, floats, octets, to, *[int32] * 5, *NUMBERS)
    return Kernel(name, run, kinds, THREADS)


# --- launcher -------------------------------------------------------------------------------------


def ended(sums: DeviceArray, end: End, out: DeviceArray, groups: int) -> Launch:
    """Return the launch that ends ``sums [positions, filters]`` of groups that are filled up."""
    across, c_out = sums.shape[-1], out.shape[-1]
    arrays = (sums, end.factor, end.bias, end.residual, out)
    sizes = (out.size, c_out, c_out // groups, across // groups, across)
    blocks = -(-out.size // THREADS)
    return Launch(ended_kernel(end.kind), blocks, (*arrays, *sizes, *end.numbers))
