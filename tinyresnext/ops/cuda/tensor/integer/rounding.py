"""From float32 to 8 bits and back, value by value (`quantise`, `dequantise`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import cuda

from .... import shapes
from ....shapes.integer import inverse_of
from ...elementwise import EACH, THREADS, blocks_of
from ...runtime.arrays import DeviceArray, check, empty
from ...runtime.call import Call
from ...runtime.kernel import Kernel, float32, floats, int32, octets
from ...runtime.machine import Launch
from ...words import get, put
from ...words.integer import byte, multiplied

EIGHT = (np.int8, np.uint8)


# --- kernels --------------------------------------------------------------------------------------


@cache
def quantise_kernel() -> Kernel:
    """Return the kernel that rounds values to bytes."""

    def run(x, y, count, inverse, low, high):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                put(y, i, byte(x[i], inverse, low, high))

    return Kernel("quantise", run, (floats, octets, int32, *[float32] * 3), THREADS)


@cache
def dequantise_kernel() -> Kernel:
    """Return the kernel that multiplies bytes by their scale; ``sign`` is whether they have one."""

    def run(x, y, count, sign, scale):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                value = get(x, i)
                if value >= float32(128) and sign != 0:
                    value = value - float32(256)
                y[i] = multiplied(value, scale)

    return Kernel("dequantise", run, (octets, floats, int32, int32, float32), THREADS)


# --- public ops -----------------------------------------------------------------------------------


def quantise(
    x: DeviceArray, *, scale: float, signed: bool = False, out: DeviceArray | None = None
) -> DeviceArray:
    """Make one pass over the values."""
    y = empty(check("quantise", x=x), x.shape, EIGHT[not signed]) if out is None else out
    bind_quantise(x, scale=scale, signed=signed, out=y)()
    return y


def bind_quantise(x: DeviceArray, *, scale: float, signed: bool = False, out: DeviceArray) -> Call:
    """Bind one launch."""
    shapes.quantise(x, scale=scale, signed=signed, out=out)
    check("quantise", x=x)
    machine = check("quantise", (np.float32, EIGHT[not signed]), x=x, out=out)
    if out.dtype == np.float32:
        raise TypeError(f"quantise: out is float32, expected {np.dtype(EIGHT[not signed])}")
    ends = (-127.0, 127.0) if signed else (0.0, 255.0)
    arguments = (x, out, x.size, float(inverse_of(scale)), *ends)
    return Call(machine, [Launch(quantise_kernel(), blocks_of(x.size), arguments)], out)


def dequantise(x: DeviceArray, *, scale: float, out: DeviceArray | None = None) -> DeviceArray:
    """Make one pass over the values."""
    y = empty(check("dequantise", EIGHT, x=x), x.shape) if out is None else out
    bind_dequantise(x, scale=scale, out=y)()
    return y


def bind_dequantise(x: DeviceArray, *, scale: float, out: DeviceArray) -> Call:
    """Bind one launch."""
    shapes.dequantise(x, scale=scale, out=out)
    check("dequantise", EIGHT, x=x)
    check("dequantise", out=out)
    machine = check("dequantise", (np.float32, *EIGHT), x=x, out=out)
    arguments = (x, out, x.size, int(x.dtype == np.int8), float(np.float32(scale)))
    return Call(machine, [Launch(dequantise_kernel(), blocks_of(x.size), arguments)], out)
