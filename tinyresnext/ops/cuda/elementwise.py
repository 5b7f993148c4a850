"""ReLU, in one pass over memory: one thread for each value."""

from __future__ import annotations

from functools import cache

from numba import cuda

from ..shapes import relu as check_relu
from .runtime.arrays import DeviceArray, empty
from .runtime.call import Call
from .runtime.kernel import Kernel, float32, floats, int32
from .runtime.machine import Launch

THREADS = 256


@cache
def relu_kernel() -> Kernel:
    """Return the kernel of ``y = x if x > 0 else 0``; what is not a number stays so."""

    def run(x, y, count):
        i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
        if i < count:
            y[i] = float32(0) if x[i] <= float32(0) else x[i]

    return Kernel("relu", run, (floats, floats, int32), THREADS)


def bind_relu(x: DeviceArray, *, out: DeviceArray) -> Call:
    """Bind the call of `relu`."""
    check_relu(x)
    blocks = -(-x.size // THREADS)
    return Call(x.machine, [Launch(relu_kernel(), blocks, (x, out, x.size))], out)


def relu(x: DeviceArray, *, out: DeviceArray | None = None) -> DeviceArray:
    """Compute ``max(x, 0)``."""
    result = empty(x.machine, x.shape) if out is None else out
    bind_relu(x, out=result)()
    return result
