"""Kernels in tasks: functions that several threads run at once, each taking task after task.

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

Each family of kernels has its own tuple of numbers: the geometry of the op first, then how the op
is cut into tasks. ``tasks`` is how many tasks there are. The function has no type annotations,
since Numba compiles it: arrays are flat float32, numbers int64. Where a step has arrays of other
types, the kernel is compiled once more for these (`Kernel.taking`).

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
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from .compiling.watch import ROOM
from .kernel import as_part, c_kernel, c_kernel_kept, part, rename
from .simd import I64, flat_array, flat_of

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

    def _replace(self, *, tasks: int) -> Any:
        """Return the same numbers with another number of tasks."""


class Kernel:
    """A function whose tasks several threads share; it is compiled when it is first needed.

    Attributes
    ----------
    function : function of arrays, numbers and counters
    numbers : type
        The NamedTuple of its numbers.
    arrays : tuple of str
        What the function calls its arrays, in order.
    key : tuple
        For a function inside a function: the values from outside that it uses. The function outside
        takes them, and returns this kernel for them.
    others : tuple of str
        The arrays that are not float32, each with its type: ``x:uint16`` for bfloat16.
    """

    def __init__(
        self,
        function: Callable[..., None],
        numbers: type[Any],
        key: tuple[int, ...] = (),
        others: tuple[str, ...] = (),
    ) -> None:
        self.function, self.numbers, self.key, self.others = function, numbers, key, others
        self.arrays = tuple(inspect.signature(function).parameters)[:-2]
        self._made: dict[tuple[str, ...], Kernel] = {}

    def taking(self, others: tuple[str, ...]) -> Kernel:
        """Return the same kernel for calls in which these arrays are not float32 (`others`)."""
        if others == self.others:
            return self
        if others not in self._made:
            self._made[others] = Kernel(self.function, self.numbers, self.key, others)
        return self._made[others]

    @property
    def place(self) -> str:
        """Where another process finds this kernel of the package, as words.

        The module inside ``ops.cpu`` and the kernel's name there, with its `others`; for a kernel
        inside a function, that function's name and the values that it is called with.
        """
        module = self.function.__module__.removeprefix(ROOM)
        name = self.function.__qualname__.partition(".<locals>")[0]
        return " ".join([module, "/".join([name, *self.others]), *map(str, self.key)])

    def kept(self) -> bool:
        """Return whether the C function is compiled already, here or on disk."""
        if "c_function" in vars(self):
            return True
        return c_kernel_kept(f"{self.function.__module__}.{self._symbol}", SIGNATURE)

    @functools.cached_property
    def c_function(self) -> Any:
        """The compiled C function; its machine code is kept on disk."""
        types_of = dict(other.split(":") for other in self.others)
        kinds = [flat_of(types_of.get(name, "float32")) for name in self.arrays]
        entrance = _entrance(_as_part(self.function), self.numbers, kinds)
        entrance.__module__ = self.function.__module__
        entrance.__qualname__ = self._symbol
        return c_kernel(SIGNATURE)(entrance)

    @property
    def _symbol(self) -> str:
        """Return the name of the C function, which no other kernel of its module has."""
        return "_".join([self.function.__qualname__, *self.others]).replace(":", "_")


@functools.cache
def _as_part(function: Callable[..., None]) -> Callable[..., None]:
    """Let entrances call a function; all types of arrays share it."""
    return part()(function)


def in_tasks(
    numbers: type[Any], key: tuple[int, ...] = ()
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a function a `Kernel` whose numbers have that type; see there for ``key``."""

    def decorate(function: Callable[..., None]) -> Kernel:
        rename(function, key)
        return Kernel(function, numbers, key)

    return decorate


def lay_out(arrays: Sequence[Array], numbers: Numbers) -> Array:
    """Return the arguments of a kernel as its C function reads them: arrays, then numbers."""
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
    """Emit an atomic load: what others wrote before they changed the counter is then visible."""

    def codegen(context, builder, signature, args):
        data = context.make_array(COUNTERS)(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(COUNTERS, types.intp), codegen


@overload(next_task, jit_options=as_part(inline=True))
def _next_task(counters):
    """Replace `next_task` in compiled code."""
    return lambda counters: change(counters, NEXT, 1)


@overload(finished, jit_options=as_part(inline=True))
def _finished(counters):
    """Replace `finished` in compiled code."""

    def compiled(counters):
        change(counters, FINISHED, 1)

    return compiled


# --- from addresses to arguments ------------------------------------------------------------------


def _entrance(body: Any, numbers: type[Any], kinds: list[Any]) -> Callable[[int, int], None]:
    """Return a function of two addresses that reads a kernel's arguments and runs the kernel.

    Numba makes the kernel's body a part of it. It cannot do so for a call with ``*arguments``,
    therefore there is one function for each number of arrays.
    """
    opened = _opened(numbers, kinds)

    def with_two(arguments, counters):
        a, b, g, own = opened(arguments, counters)
        body(a, b, g, own)

    def with_three(arguments, counters):
        a, b, c, g, own = opened(arguments, counters)
        body(a, b, c, g, own)

    def with_four(arguments, counters):
        a, b, c, d, g, own = opened(arguments, counters)
        body(a, b, c, d, g, own)

    def with_five(arguments, counters):
        a, b, c, d, e, g, own = opened(arguments, counters)
        body(a, b, c, d, e, g, own)

    return {2: with_two, 3: with_three, 4: with_four, 5: with_five}[len(kinds)]


def _opened(numbers: type[Any], kinds: list[Any]) -> Any:
    """Return an intrinsic that reads arrays, numbers and counters at two addresses.

    All are read once, before the kernel begins. The arrays are passed without reference
    counting, which the threads would have to do in turn.
    """
    fields, arrays = len(numbers._fields), len(kinds)
    family = types.NamedUniTuple(types.int64, fields, numbers)
    found = types.Tuple([*kinds, family, COUNTERS])

    @intrinsic
    def opened(typing, arguments, counters):
        def codegen(context, builder, signature, args):
            row, own = (builder.inttoptr(address, I64.as_pointer()) for address in args)
            values = [builder.load(builder.gep(row, [I64(i)])) for i in range(2 * arrays + fields)]
            lent = []
            for kind, place, size in zip(kinds, values[::2], values[1::2], strict=False):
                data = builder.inttoptr(place, context.get_data_type(kind.dtype).as_pointer())
                lent.append(flat_array(context, builder, kind, data, size))
            packed = cgutils.pack_array(builder, values[2 * arrays :])
            lent += [packed, flat_array(context, builder, COUNTERS, own, I64(LINE))]
            return context.make_tuple(builder, found, lent)

        return found(types.intp, types.intp), codegen

    return opened
