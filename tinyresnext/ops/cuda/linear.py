"""The classifier and its gradients.

With few samples every weight is used a few times only, so it runs as fast as the weights arrive
from memory: a warp computes one logit, as one long dot product. With more samples it is a 1x1
convolution of images of one pixel, and so are its gradients always.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from numba import cuda

from .. import shapes
from .conv.backward import bind_conv2d_backward
from .conv.forward import bind_conv2d
from .conv.windows import aligned, filled
from .runtime.arrays import STORED, DeviceArray, check, empty, empty_like, view
from .runtime.call import Call
from .runtime.kernel import Kernel, ending, float32, floats, int32, pointer, uint32
from .runtime.machine import Launch
from .words import load4, warp_sum

WARPS = 4  # logits of a block
FEW = 8  # samples: with more, the weights are copied to shared memory and used again from there


# --- kernel ---------------------------------------------------------------------------------------


@cache
def dots_kernel(of: Any = floats, by: Any = floats) -> Kernel:
    """Return the kernel of ``y[n, o] = bias[o] + sum over k of x[n, k] * weight[o, k]``.

    Rows are whole 16 bytes; ``of`` and ``by`` are the types of ``x`` and ``weight``.
    """

    def run(x, weight, bias, y, c_in, c_out, across):
        block = uint32(cuda.blockIdx.x)
        lane, warp = int32(cuda.threadIdx.x % 32), int32(cuda.threadIdx.x // 32)
        n, o = int32(block // uint32(across)), int32(block % uint32(across)) * WARPS + warp
        total = float32(0)
        if o < c_out:
            left, right = int32(n * c_in), int32(o * c_in)
            k = int32(lane * 4)
            while k < c_in:
                u, v = load4(x, left + k, 0, 16), load4(weight, right + k, 0, 16)
                total += u[0] * v[0]
                total += u[1] * v[1]
                total += u[2] * v[2]
                total += u[3] * v[3]
                k = int32(k + 128)
        total = warp_sum(total)
        if o < c_out and lane == 0:
            y[int32(n * c_out + o)] = total + bias[o]

    parameters = (of, by, floats, floats, *[int32] * 3)
    return Kernel(f"dots{ending(of, by)}", run, parameters, 32 * WARPS)


# --- public ops -----------------------------------------------------------------------------------


def bind_linear(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, *, out: DeviceArray
) -> Call:
    """Bind the call of `linear`."""
    n, c_out = shapes.linear(x, weight, bias, out=out)
    check("linear", bias=bias, out=out)
    check("linear", STORED, x=x, weight=weight, bias=bias)
    c_in = x.shape[1]
    if out.size == 0:
        return Call(x.machine, [], out)
    if n > FEW and c_in > 0:
        pixels = view(out, (n, 1, 1, c_out))
        call = bind_conv2d(_pixels(x), view(weight, (c_out, c_in, 1, 1)), bias, out=pixels)
        return Call(x.machine, call.launches, out)
    launches: list[Launch] = []
    fours = all(c_in * array.dtype.itemsize % 16 == 0 for array in (x, weight))
    if not (fours and aligned(x, weight)):
        (x, first), (weight, second) = filled(_pixels(x), 1, 4), filled(_pixels(weight), 1, 4)
        launches += [*first, *second]
    c_in, across = x.shape[-1], -(-c_out // WARPS)
    kernel = dots_kernel(pointer(x), pointer(weight))
    arrays = (x, weight, bias, out)
    launches.append(Launch(kernel, n * across, (*arrays, c_in, c_out, across)))
    return Call(x.machine, launches, out)


def linear(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, *, out: DeviceArray | None = None
) -> DeviceArray:
    """Compute a dot product for each sample and class."""
    shape, machine = shapes.linear(x, weight, bias, out=out), check("linear", STORED, x=x)
    y = empty(machine, shape) if out is None else out
    bind_linear(x, weight, bias, out=y)()
    return y


def linear_backward(
    dy: DeviceArray, y: DeviceArray, x: DeviceArray, weight: DeviceArray, bias: DeviceArray
) -> tuple[DeviceArray | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, weight, bias)
    bind_linear_backward(dy, y, x, weight, bias, out=out, more=(False,) * 3)()
    return out


def bind_linear_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    weight: DeviceArray,
    bias: DeviceArray,
    *,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind the gradients of a 1x1 convolution."""
    dx, dweight, dbias = out
    filters = (*weight.shape, 1, 1)
    wanted = (
        None if dx is None else _pixels(dx),
        None if dweight is None else view(dweight, filters),
        dbias,
    )
    args = _pixels(dy), _pixels(y), _pixels(x), view(weight, filters), bias
    return bind_conv2d_backward(*args, out=wanted, more=more)


def _pixels(rows: DeviceArray) -> DeviceArray:
    """Return each row as an image of one pixel."""
    n, c = rows.shape
    return view(rows, (n, 1, 1, c))
