"""How threads share the work: each takes the next task from a common counter until none is left.

With tasks handed out one by one, a thread that the operating system delays holds up the others by
one task at most. Which thread computes a task does not change its result.

**A chain of steps.** What a plan does is a table of steps, and one parallel region runs all of it:
every thread walks down the table, takes tasks of a step until none is left, waits for the threads
that still compute one, and goes on::

      step            1                 2                 3
      thread A   [task][task][task]..[task][task]......[task][task]
      thread B      [task][task]     [task][task][task]
      thread C                 (the system runs something else)     [task]

A parallel loop for each step would wait for *every* thread at every step, also for one that the
system has suspended and that holds no task. Here a step waits only for the threads that have
entered it: C comes late, finds steps whose tasks are all done, and passes.

Each step has four counters, and every change of one is atomic:

* ``NEXT``, the next task: the thread that counts it up has that task;
* ``ACTIVE``, how many threads are inside: a thread counts it up before it takes its first task, and
  down when its kernel has returned;
* ``ENTERED`` and ``FINISHED``, how many threads have entered, and how many have done all tasks they
  took: afterwards these show whether a kernel failed.

A step is done when ``NEXT`` is past the last task and, read after that, ``ACTIVE`` is zero: a
thread that has a task was counted before it took the task. A thread waits only for threads inside a
kernel, and kernels never block, so this ends in any order of events, also when a pool of
threads lets one thread make all the walks one after the other. Where a kernel found no memory,
tasks are left over: a thread that sees that leaves.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Sequence

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .....errors import OutOfMemoryError
from ..kernel import compiles, kernel, part
from ..launch import launch, threads_now
from ..simd import I64, flat_array
from ..tasks import (
    ACTIVE,
    COUNTERS,
    ENTERED,
    FINISHED,
    LINE,
    NEXT,
    SIGNATURE,
    Kernel,
    Numbers,
    change,
    lay_out,
    look,
)
from .pace import Pace

Array = np.ndarray

# Numbers of a step in the table: the addresses of its kernel and its arguments, its first task, and
# the one behind its last.
ROW = 4
# The types of arrays that kernels are compiled for; of all others they see the bytes as float32.
SEEN = ("uint16", "uint32")
PATIENCE = 200  # looks at a counter, some microseconds, before a thread offers its core to others


# --- walking --------------------------------------------------------------------------------------


@intrinsic
def _rest(typing, rounds):
    """Emit a short wait: a pause, and after ``PATIENCE`` rounds also a call of the system."""

    def codegen(context, builder, signature, args):
        triple = cpu_target.target_context.codegen().magic_tuple()[0]
        if triple.startswith(("x86_64", "i686")):
            _call_named(builder, "llvm.x86.sse2.pause", ir.VoidType())
        # Windows has no such function, and a name that is not there ends the process.
        if sys.platform != "win32":
            with builder.if_then(builder.icmp_signed(">", args[0], I64(PATIENCE))):
                _call_named(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _call_named(builder: ir.IRBuilder, name: str, result: ir.Type) -> None:
    """Emit a call without arguments."""
    function = ir.FunctionType(result, [])
    builder.call(cgutils.get_or_insert_function(builder.module, function, name), [])


@intrinsic
def _call(typing, table, counters, step):
    """Emit the call of a step's kernel with its arguments and its counters."""

    def codegen(context, builder, signature, args):
        numbers = context.make_array(COUNTERS)(context, builder, args[0]).data
        row = builder.gep(numbers, [builder.mul(args[2], I64(ROW))])
        address, arguments = [builder.load(builder.gep(row, [I64(i)])) for i in range(2)]
        counters = context.make_array(COUNTERS)(context, builder, args[1]).data
        own = builder.gep(counters, [builder.mul(args[2], I64(LINE))])
        kind = ir.FunctionType(
            context.get_value_type(types.void), [context.get_value_type(a) for a in SIGNATURE.args]
        )
        function = builder.inttoptr(address, kind.as_pointer())
        builder.call(function, [arguments, builder.ptrtoint(own, I64)])
        return context.get_dummy_value()

    return types.void(COUNTERS, COUNTERS, types.intp), codegen


@intrinsic
def _lent(typing, address, size):
    """Emit an array of int64 at an address, whose memory the caller of a kernel owns.

    To find out the type of an array that Python passes, Numba imports NumPy's masked arrays.
    """

    def codegen(context, builder, signature, args):
        data = builder.inttoptr(args[0], I64.as_pointer())
        return flat_array(context, builder, COUNTERS, data, args[1])

    return COUNTERS(types.intp, types.intp), codegen


@part()
def _walk(table_at, counters_at, steps):
    """Walk through all the steps, as one thread; the arrays are at these addresses."""
    table, counters = _lent(table_at, steps * ROW), _lent(counters_at, steps * LINE)
    for step in range(steps):
        at, tasks = step * LINE, table[(step + 1) * ROW - 1]
        if look(counters, at + NEXT) < tasks:
            change(counters, at + ENTERED, 1)
            change(counters, at + ACTIVE, 1)
            _call(table, counters, step)
            change(counters, at + ACTIVE, -1)
        rounds = 0
        while look(counters, at + ACTIVE) > 0:
            _rest(rounds)
            rounds += 1
        if look(counters, at + NEXT) < tasks:
            return  # no thread is inside, and tasks are left: the kernel has failed


@kernel(parallel=True)
def _together(table_at, counters_at, steps, threads):
    """Run `_walk` on every thread."""
    for _ in prange(threads):
        _walk(table_at, counters_at, steps)


@kernel(nogil=True)
def _alone(table_at, counters_at, steps):
    """Let one thread walk, without waking the others; other threads of Python go on meanwhile."""
    _walk(table_at, counters_at, steps)


# --- from Python ----------------------------------------------------------------------------------


class Step:
    """A prepared call, which can be made many times, on what its arrays then hold.

    Parameters
    ----------
    kernel : Kernel
    numbers : NamedTuple
        Of the kernel's type.
    pace : Pace, optional
        How its tasks go through the samples of a mini-batch, if they take one after the other.
    arrays : flat arrays, nearly all float32
        One for each array of the kernel, by the name that the kernel has for it; the step keeps
        them alive.
    """

    def __init__(
        self, kernel: Kernel, numbers: Numbers, pace: Pace | None = None, /, **arrays: Array
    ) -> None:
        dtypes = {name: str(arrays[name].dtype) for name in kernel.arrays}
        others = tuple(f"{name}:{of}" for name, of in dtypes.items() if of in SEEN)
        self.kernel, self.numbers, self.out = kernel.taking(others), numbers, arrays["out"]
        self.arrays = [arrays[name] for name in kernel.arrays]
        self.pace, self.first = pace, 0
        if len(arrays) != len(self.arrays) or type(numbers) is not kernel.numbers:
            raise TypeError(f"{kernel.function.__name__} takes {kernel.arrays}, {kernel.numbers}")
        if compiles():
            self.arguments = lay_out(self.arrays, numbers)

    @functools.cached_property
    def row(self) -> Array:
        """The step's row in a table; the kernel is compiled when this is first needed."""
        places = self.kernel.c_function.address, self.arguments.ctypes.data
        return np.array([*places, self.first, self.numbers.tasks], np.int64)

    def some(self, first: int, last: int) -> Step:
        """Return a step that does the tasks from ``first`` to the one before ``last``."""
        made = copy.copy(self)
        vars(made).pop("row", None)
        made.first, made.numbers = first, self.numbers._replace(tasks=last)
        if compiles():
            made.arguments = lay_out(made.arrays, made.numbers)
        return made

    def __call__(self) -> None:
        """Let all threads work through the tasks; errors are those of `walk`."""
        walk([self])


def walk(steps: Sequence[Step], table: Array | None = None) -> None:
    """Let all threads work through the tasks of some steps, one step after the other.

    Parameters
    ----------
    steps : sequence of Step
    table : [len(steps) * ROW] int64, optional
        The rows of the steps one after the other, where the caller has them.

    Raises
    ------
    MemoryError
        A thread found no working memory. A C function cannot raise it; it ends before it has
        counted itself as finished.
    """
    counters = np.zeros(len(steps) * LINE, np.int64)
    counts = counters.reshape(-1, LINE)
    if not compiles():
        for s, own in zip(steps, counts, strict=True):
            own[NEXT] = s.first
            s.kernel.function(*s.arrays, s.numbers, own)
        return
    if table is None:
        table = np.concatenate([step.row for step in steps])
    first, last = table.reshape(-1, ROW)[:, -2:].T
    counts[:, NEXT] = first
    threads = min(threads_now(), int((last - first).max()))
    places = table.ctypes.data, counters.ctypes.data
    if threads > 1:
        launch(_together, *places, len(steps), threads)
    else:
        _alone(*places, len(steps))
    failed = (counts[:, FINISHED] != counts[:, ENTERED]) | (counts[:, NEXT] < last)
    if failed.any():
        raise OutOfMemoryError(
            f"a kernel for a result of {steps[failed.argmax()].out.size} values found no working "
            "memory; use a smaller mini-batch"
        )
