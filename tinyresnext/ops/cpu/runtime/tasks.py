"""Kernels in tasks: a function that several threads run at once, each taking one task after another.

A kernel is written as a plain function of flat arrays, its numbers and its counters::

    class Scaling(NamedTuple):
        values: int
        length: int  # values of a task
        tasks: int

    @in_tasks(Scaling)
    def double(x, out, g, counters):
        task = next_task(counters)
        while task < g.tasks:
            for i in range(task * g.length, min((task + 1) * g.length, g.values)):
                out[i] = 2 * x[i]
            task = next_task(counters)
        finished(counters)

Each family of kernels has its own tuple of numbers: the geometry of the op first, then how the op is
cut into tasks. ``tasks`` is how many tasks there are. What Numba compiles has no type annotations:
the types are those of the arrays and numbers that arrive.

A kernel is compiled once, as a C function of two addresses: that of its arguments (`lay_out`) and
that of its counters. Threads call it by its own address (`crew`). Numba would otherwise compile the
kernel anew into each layer of the parallel loop around it, four times in all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from .kernel import c_kernel, rename
from .simd import F32, FLOATS, I64

Array = np.ndarray

# The counters of a step: the next task, how many threads have finished, how many are inside, and
# how many have entered.
NEXT, FINISHED, ACTIVE, ENTERED = range(4)
LINE = 8  # a step's counters fill a cache line: threads in different steps do not slow each other
COUNTERS = types.Array(types.int64, 1, "C")
SIGNATURE = types.void(types.intp, types.intp)  # the addresses of the arguments and the counters


class Numbers(Protocol):
    """The numbers of a kernel: a NamedTuple of integers."""

    @property
    def tasks(self) -> int:
        """Return how many tasks there are."""

    def __iter__(self) -> Iterator[int]:
        """Iterate over all numbers, in the order of the fields."""


class Kernel:
    """A function whose tasks several threads share; it is compiled when its address is first needed.

    Attributes
    ----------
    function : function of arrays, numbers and counters
    numbers : type
        The NamedTuple of its numbers.
    arrays : tuple of str
        What the function calls its arrays, in order.
    key : tuple
        For a function inside a function: the values from outside that it uses.
    """

    def __init__(
        self, function: Callable[..., None], numbers: type, key: tuple[int, ...] = ()
    ) -> None:
        rename(function, key)
        self.function, self.numbers = function, numbers
        self.arrays = tuple(inspect.signature(function).parameters)[:-2]

    @functools.cached_property
    def c_function(self) -> Any:
        """The compiled C function; its machine code is kept on disk."""
        call_kernel = _caller(self.function, len(self.arrays), self.numbers)

        def entered(arguments, counters):
            call_kernel(arguments, counters)

        entered.__module__ = self.function.__module__
        entered.__qualname__ = self.function.__qualname__
        return c_kernel(SIGNATURE)(entered)


def in_tasks(
    numbers: type, key: tuple[int, ...] = ()
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a function a `Kernel` whose numbers are a tuple of that type; see `Kernel` for ``key``."""
    return lambda function: Kernel(function, numbers, key)


def lay_out(arrays: Sequence[Array], numbers: Numbers) -> Array:
    """Return the arguments of a kernel as its C function reads them: addresses and sizes, numbers."""
    places = [number for array in arrays for number in (array.ctypes.data, array.size)]
    return np.array([*places, *numbers], np.int64)


# --- counting -------------------------------------------------------------------------------------


def next_task(counters: Array) -> int:
    """Take the next task: no two threads receive the same one."""
    task = int(counters[NEXT])
    counters[NEXT] = task + 1
    return task


def finished(counters: Array) -> None:
    """Report that this thread has done all tasks that it took."""
    counters[FINISHED] += 1


@intrinsic
def change(typing, counters, which, by):
    """Emit an atomic addition; it returns the value before."""

    def codegen(context, builder, signature, args):
        data = context.make_array(COUNTERS)(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(COUNTERS, types.intp, types.intp), codegen


@intrinsic
def look(typing, counters, which):
    """Emit an atomic load: what others wrote before they changed this counter is visible after it."""

    def codegen(context, builder, signature, args):
        data = context.make_array(COUNTERS)(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(COUNTERS, types.intp), codegen


@overload(next_task)
def _next_task(counters):
    """Replace `next_task` in compiled code."""
    return lambda counters: change(counters, NEXT, 1)


@overload(finished)
def _finished(counters):
    """Replace `finished` in compiled code."""

    def compiled(counters):
        change(counters, FINISHED, 1)

    return compiled


# --- from addresses to arguments ------------------------------------------------------------------


def _caller(function: Callable[..., None], arrays: int, numbers: type) -> Any:
    """Return an intrinsic that reads a kernel's arguments from memory and calls the kernel.

    All arguments are read once, before the kernel begins. The arrays are lent without an owner, so
    that threads do not count references to them in turn.
    """
    fields = len(numbers._fields)  # type: ignore[attr-defined]  # of a NamedTuple
    family = types.NamedUniTuple(types.int64, fields, numbers)
    kernel_signature = types.void(*[FLOATS] * arrays, family, COUNTERS)

    @intrinsic
    def call_kernel(typing, arguments, counters):
        def codegen(context, builder, signature, args):
            integers = I64.as_pointer()
            row = builder.inttoptr(args[0], integers)
            values = [
                builder.load(builder.gep(row, [I64(i)])) for i in range(2 * arrays + fields)
            ]
            lent = [
                _array(context, builder, FLOATS, builder.inttoptr(place, F32.as_pointer()), size, 4)
                for place, size in zip(
                    values[: 2 * arrays : 2], values[1 : 2 * arrays : 2], strict=True
                )
            ]
            own = _array(
                context, builder, COUNTERS, builder.inttoptr(args[1], integers), I64(LINE), 8
            )
            packed = cgutils.pack_array(builder, values[2 * arrays :])
            context.compile_internal(builder, function, kernel_signature, [*lent, packed, own])
            return context.get_dummy_value()

        return SIGNATURE, codegen

    return call_kernel


def _array(
    context: Any, builder: ir.IRBuilder, kind: Any, data: ir.Value, size: ir.Value, itemsize: int
) -> ir.Value:
    """Emit a flat array, as Numba represents it, around memory that somebody else owns."""
    made = context.make_array(kind)(context, builder)
    made.meminfo = made.parent = ir.Constant(ir.IntType(8).as_pointer(), None)
    made.data, made.nitems, made.itemsize = data, size, I64(itemsize)
    made.shape, made.strides = (
        cgutils.pack_array(builder, [size]),
        cgutils.pack_array(builder, [I64(itemsize)]),
    )
    return made._getvalue()
