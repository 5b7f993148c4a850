"""What is done value by value: ReLU and the residual addition, and their gradients.

All are bound by memory, not by arithmetic: they read every value once, write it once, and may write
in place. A plan fuses them with the convolution before them. For bfloat16 there are conversions,
and the copy that gives every group of channels an even number of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numba import prange

from .. import shapes
from .runtime.crew import Chain, Step
from .runtime.kernel import kernel
from .runtime.launch import launch
from .runtime.memory import HALF, WORD, Array, accumulate, empty, empty_like, flat, result
from .runtime.simd import stored, value
from .runtime.tasks import Kernel, finished, in_tasks, next_task

LENGTH = 32 * 1024  # values of a task
PIXELS = 2048  # of a task that copies them


class Values(NamedTuple):
    """The numbers of a pass over values."""

    values: int
    add: int  # 1 where the gradient is added to what is there
    length: int  # values of a task
    tasks: int


class Evened(NamedTuple):
    """The numbers of a copy whose groups have an even number of channels."""

    pixels: int
    groups: int
    length: int  # pixels of a task
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@kernel(parallel=True)
def _relu(x, out):
    """Replace what is below zero by zero; not-a-number is not below zero, and stays."""
    for i in prange(len(x)):
        v = value(x[i])
        out[i] = stored(np.float32(0) if v < 0 else v, out)


@kernel(parallel=True)
def _add(x, y, out):
    """Add value by value."""
    for i in prange(len(x)):
        out[i] = stored(value(x[i]) + value(y[i]), out)


@in_tasks(Values)
def _convert(x, out, g, counters):
    """Round to bfloat16, or widen it: whatever the types of the arrays are."""
    task = next_task(counters)
    while task < g.tasks:
        for i in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.values))):
            out[i] = stored(value(x[i]), out)
        task = next_task(counters)
    finished(counters)


@functools.cache
def _even(c: int) -> Kernel:
    """Make the kernel for groups of ``c`` channels: so few are copied without a loop."""

    @in_tasks(Evened, key=(c,))
    def even(x, out, g, counters):
        """Copy the channels of each group, and add one that is zero."""
        task = next_task(counters)
        while task < g.tasks:
            first, last = task * g.length, min((task + 1) * g.length, g.pixels)
            # Unsigned, since such indices cannot be negative: so the loop becomes vectors.
            for run in range(np.uintp(first * g.groups), np.uintp(last * g.groups)):
                for k in range(c):
                    out[run * np.uintp(c + 1) + np.uintp(k)] = x[run * np.uintp(c) + np.uintp(k)]
                out[run * np.uintp(c + 1) + np.uintp(c)] = 0
            task = next_task(counters)
        finished(counters)

    return even


@in_tasks(Values)
def _relu_gradient(x, dy, out, g, counters):
    """Pass ``dy`` on where ``x`` is positive."""
    task = next_task(counters)
    while task < g.tasks:
        for i in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.values))):
            d = value(dy[i])
            gradient = d if value(x[i]) > 0 else np.float32(0)
            out[i] = stored(value(out[i]) + gradient if g.add else gradient, out)
        task = next_task(counters)
    finished(counters)


# --- public ops -----------------------------------------------------------------------------------


def relu(x: Array, *, out: Array | None = None) -> Array:
    """Make one pass over the values; see `tinyresnext.ops.shapes.relu`."""
    y = result("relu", shapes.relu(x, out=out), out)
    bind_relu(x, out=y)()
    return y


def bind_relu(x: Array, *, out: Array) -> Callable[[], None]:
    """Prepare a call."""
    target = result("relu", shapes.relu(x, out=out), out, halves=True).reshape(-1)
    source = flat("relu", "x", x, out)
    return lambda: launch(_relu, source, target)


def bind_convert(x: Array, out: Array) -> Step:
    """Prepare the rounding of float32 to bfloat16, or the widening of bfloat16."""
    g = Values(values=x.size, add=0, length=LENGTH, tasks=-(-x.size // LENGTH))
    return Step(_convert, g, x=x.reshape(-1), out=out.reshape(-1))


def in_words(x: Array, groups: int) -> tuple[list[Step], Array]:
    """Return an input as words ``[n, h, w, words]``, and the steps that copy it if it is copied.

    Parameters
    ----------
    x : [n, h, w, c_in] bfloat16
    groups : int
    """
    *pixels, c_in = x.shape
    c, count = c_in // groups, int(np.prod(pixels))
    if c % 2 == 0:
        return [], x.view(WORD)
    even = empty((*pixels, c_in + groups), HALF)
    g = Evened(count, groups, PIXELS, -(-count // PIXELS))
    return [Step(_even(c), g, x=x.reshape(-1), out=even.reshape(-1))], even.view(WORD)


def relu_backward(dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]:
    """Make one pass over the values."""
    out = empty_like(x)
    bind_relu_backward(dy, y, x, out=out, more=(False,))()
    return out


def bind_relu_backward(
    dy: Array, y: Array, x: Array, *, out: Sequence[Array | None], more: Sequence[bool]
) -> Callable[[], None]:
    """Prepare a step."""
    if out[0] is None:
        return Chain([])
    source, gradient = flat("relu_backward", "x", x, x), flat("relu_backward", "dy", dy, dy)
    g = Values(values=x.size, add=int(more[0]), length=LENGTH, tasks=-(-x.size // LENGTH))
    return Step(_relu_gradient, g, x=source, dy=gradient, out=out[0].reshape(-1))


def add(x: Array, y: Array, *, out: Array | None = None) -> Array:
    """Make one pass over the values; see `tinyresnext.ops.shapes.add`."""
    z = result("add", shapes.add(x, y, out=out), out)
    bind_add(x, y, out=z)()
    return z


def bind_add(x: Array, y: Array, *, out: Array) -> Callable[[], None]:
    """Prepare a call."""
    target = result("add", shapes.add(x, y, out=out), out, halves=True).reshape(-1)
    first, second = flat("add", "x", x, out), flat("add", "y", y, out)
    return lambda: launch(_add, first, second, target)


def add_backward(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the gradient that comes in, itself, for both: nothing is computed."""
    return dz, dz


def bind_add_backward(
    dz: Array,
    z: Array,
    x: Array,
    y: Array,
    *,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a copy for each gradient that is wanted."""

    def back() -> None:
        for place, more_of_it in zip(out, more, strict=True):
            accumulate(place, dz, more_of_it)

    return back
