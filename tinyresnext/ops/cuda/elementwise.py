"""What is done value by value: ReLU and the residual addition, their gradients, and copies.

All are bound by memory: one pass that reads every value once and writes it once, also in place. A
thread computes `EACH` values, `THREADS` apart, so that neighbouring threads use neighbouring ones,
and asks for all before it stores one. A plan fuses these ops with the convolution before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from numba import cuda

from .. import shapes
from .runtime.arrays import STORED, DeviceArray, check, empty, empty_like, same_type
from .runtime.call import Call
from .runtime.kernel import Kernel, ending, float32, floats, halves, int32, octets, pointer, uint32
from .runtime.machine import Launch
from .words import get, put, registers, shared
from .words.whole import quotient

THREADS, EACH = 256, 4
SECTOR = 16  # values that fill sectors of a GPU, in float16 too


def blocks_of(count: int) -> int:
    """Return how many blocks of a kernel of this file compute so many values."""
    return -(-count // (THREADS * EACH))


# --- kernels --------------------------------------------------------------------------------------


@cache
def relu_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of ``y = x if x > 0 else 0``; what is not a number stays so.

    In float16 minus infinity becomes what is not a number, as in `floor4_or_nan`.
    """
    NARROW = kind == halves

    def run(x, y, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        values = registers(EACH)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                values[k] = get(x, i)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                value = values[k]
                if value <= float32(0):
                    value = value - value if NARROW else float32(0)
                put(y, i, value)

    return Kernel(f"relu{ending(kind)}", run, (kind, kind, int32), THREADS)


@cache
def relu_gradient_kernel() -> Kernel:
    """Return the kernel that passes ``dy`` on where ``x`` is positive, or adds it to ``dx``."""

    def run(dy, x, dx, count, more):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        values = registers(EACH)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                gradient = dy[i]
                values[k] = gradient if x[i] > float32(0) else float32(0)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if more != int32(0) and i < count:
                values[k] = dx[i] + values[k]
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                dx[i] = values[k]

    return Kernel("relu_gradient", run, (floats, floats, floats, int32, int32), THREADS)


@cache
def add_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of ``z = x + y``."""

    def run(x, y, z, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        values = registers(EACH)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                values[k] = get(x, i) + get(y, i)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                put(z, i, values[k])

    return Kernel(f"add{ending(kind)}", run, (kind, kind, kind, int32), THREADS)


@cache
def copy_kernel(of: Any = floats, to: Any = floats) -> Kernel:
    """Return the kernel that copies ``x`` to ``y``, which may be of another type."""

    def run(x, y, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        values = registers(EACH)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                values[k] = get(x, i)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                put(y, i, values[k])

    return Kernel(f"copy{ending(of, to)}", run, (of, to, int32), THREADS)


@cache
def widen_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel that copies rows of ``narrow`` values to rows of ``wide``, with zeros.

    What a block stores comes from one run of values. They go through shared memory, so that both
    sides are whole sectors; the first threads begin before the run, at a sector.
    """
    CHUNK, WHOLE = THREADS * EACH, 2 * SECTOR if kind == octets else SECTOR

    def run(x, y, count, narrow, wide):
        s = shared(CHUNK)
        thread, first = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x * int32(CHUNK))
        last = int32(first + int32(CHUNK)) if first + int32(CHUNK) < count else int32(count)
        row, end = quotient(first, wide), quotient(last, wide)
        within, rest = int32(first - int32(row * wide)), int32(last - int32(end * wide))
        start = int32(int32(row * narrow) + (within if within < narrow else narrow))
        end = int32(int32(end * narrow) + (rest if rest < narrow else narrow))
        begins = int32(start - int32(uint32(start) % uint32(WHOLE)))
        for i in range(int32(begins + thread), end, THREADS):
            if i >= start:
                s[int32(i - start)] = get(x, int32(i))
        cuda.syncthreads()
        for i in range(int32(first + thread), last, THREADS):
            row = quotient(int32(i), wide)
            within, value = int32(int32(i) - int32(row * wide)), float32(0)
            if within < narrow:
                value = s[int32(int32(row * narrow) + within - start)]
            put(y, int32(i), value)

    return Kernel(f"widen{ending(kind)}", run, (kind, kind, *[int32] * 3), THREADS)


@cache
def narrow_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel that copies, or adds, the first ``narrow`` of each ``wide`` values."""
    CHUNK = THREADS * EACH

    def run(x, y, size, count, narrow, wide, more):
        s = shared(CHUNK)
        thread, first = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x * int32(CHUNK))
        last = int32(first + int32(CHUNK)) if first + int32(CHUNK) < count else int32(count)
        row, end = quotient(first, narrow), quotient(last, narrow)
        start = int32(first + int32(row * int32(wide - narrow)))
        end = int32(last + int32(end * int32(wide - narrow)))
        begins = int32(start - int32(uint32(start) % uint32(SECTOR)))
        for i in range(int32(begins + thread), end, THREADS):
            row, value = quotient(int32(i), wide), float32(0)
            at = int32(int32(i) - int32(row * int32(wide - narrow)))
            if i < size:  # also what only fills up: sectors are moved whole
                value = get(x, int32(i))
            if at >= first and int32(i) - int32(row * wide) < narrow:
                s[int32(at - first)] = value
        cuda.syncthreads()
        for i in range(int32(first + thread), last, THREADS):
            value = s[int32(int32(i) - first)]
            put(y, int32(i), value + get(y, int32(i)) if more else value)

    return Kernel(f"narrow{ending(kind)}", run, (kind, kind, *[int32] * 5), THREADS)


def narrowed(x: DeviceArray, y: DeviceArray, narrow: int, wide: int, more: bool = False) -> Launch:
    """Return the launch that copies, or adds, the first ``narrow`` of each ``wide`` values."""
    numbers = x.size, y.size, narrow, wide, int(more)
    return Launch(narrow_kernel(pointer(x)), blocks_of(y.size), (x, y, *numbers))


@cache
def zero_kernel() -> Kernel:
    """Return the kernel that sets every value to zero."""

    def run(x, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                x[i] = float32(0)

    return Kernel("zero", run, (floats, int32), THREADS)


def widened(x: DeviceArray, y: DeviceArray, narrow: int, wide: int) -> Launch:
    """Return the launch that copies rows of ``narrow`` values to rows of ``wide`` values."""
    return Launch(widen_kernel(pointer(x)), blocks_of(y.size), (x, y, y.size, narrow, wide))


def copied(of: DeviceArray, to: DeviceArray) -> Launch:
    """Return the launch that copies values to memory of another type."""
    return Launch(copy_kernel(pointer(of), pointer(to)), blocks_of(of.size), (of, to, of.size))


def accumulate(place: DeviceArray, gradient: DeviceArray, more: bool) -> Launch:
    """Return the launch that copies a gradient to its place, or adds it to what is there."""
    kernel = add_kernel() if more else copy_kernel()
    given = (place, gradient, place) if more else (gradient, place)
    return Launch(kernel, blocks_of(place.size), (*given, place.size))


# --- public ops -----------------------------------------------------------------------------------


def relu(x: DeviceArray, *, out: DeviceArray | None = None) -> DeviceArray:
    """Make one pass over the values."""
    y = empty(check("relu", STORED, x=x), x.shape, x.dtype) if out is None else out
    bind_relu(x, out=y)()
    return y


def bind_relu(x: DeviceArray, *, out: DeviceArray) -> Call:
    """Bind one launch."""
    shapes.relu(x, out=out)
    machine = check("relu", STORED, x=x, out=out)
    same_type("relu", x=x, out=out)
    launch = Launch(relu_kernel(pointer(x)), blocks_of(x.size), (x, out, x.size))
    return Call(machine, [launch], out)


def relu_backward(
    dy: DeviceArray, y: DeviceArray, x: DeviceArray
) -> tuple[DeviceArray | None, ...]:
    """Make one pass over the values."""
    out = empty_like(x)
    bind_relu_backward(dy, y, x, out=out, more=(False,))()
    return out


def bind_relu_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    *,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind one launch."""
    machine, dx = check("relu_backward", dy=dy, x=x, out=out[0]), out[0]
    arguments = (dy, x, dx, x.size, int(more[0]))
    blocks = 0 if dx is None else blocks_of(x.size)
    return Call(machine, [Launch(relu_gradient_kernel(), blocks, arguments)])


def add(x: DeviceArray, y: DeviceArray, *, out: DeviceArray | None = None) -> DeviceArray:
    """Make one pass over the values."""
    z = empty(check("add", STORED, x=x, y=y), x.shape, x.dtype) if out is None else out
    bind_add(x, y, out=z)()
    return z


def bind_add(x: DeviceArray, y: DeviceArray, *, out: DeviceArray) -> Call:
    """Bind one launch."""
    shapes.add(x, y, out=out)
    machine = check("add", STORED, x=x, y=y, out=out)
    same_type("add", x=x, y=y, out=out)
    launch = Launch(add_kernel(pointer(x)), blocks_of(x.size), (x, y, out, x.size))
    return Call(machine, [launch], out)


def add_backward(
    dz: DeviceArray, z: DeviceArray, x: DeviceArray, y: DeviceArray
) -> tuple[DeviceArray, DeviceArray]:
    """Return the gradient that comes in, itself, for both: nothing is computed."""
    return dz, dz


def bind_add_backward(
    dz: DeviceArray,
    z: DeviceArray,
    x: DeviceArray,
    y: DeviceArray,
    *,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Callable[[], object]:
    """Bind a copy for each gradient that is wanted."""
    machine = check("add_backward", dz=dz, dx=out[0], dy=out[1])
    wanted = [(place, add) for place, add in zip(out, more, strict=True) if place is not None]
    return Call(machine, [accumulate(place, dz, add) for place, add in wanted])
