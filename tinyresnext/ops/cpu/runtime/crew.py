"""How threads share the work: each takes the next task from a common counter until none is left.

With tasks handed out one by one, a thread that the operating system holds up delays the others by
one task at most. Which thread computes a task changes nothing about its result.

**A chain of steps.** What a plan does is a table of steps, and one parallel region runs all of it:
every thread walks down the table, takes tasks of a step until none is left, waits for those who
still compute one, and goes on::

      step            1                 2                 3
      thread A   [task][task][task]..[task][task]......[task][task]
      thread B      [task][task]     [task][task][task]
      thread C                 (the system runs something else)     [task]

A parallel loop for each step would wait for *every* thread at every step, also for one that the
system has put aside and that holds no task. Here only those are waited for that have gone into the
step: C comes late, finds steps whose tasks are all done, and passes.

Four numbers for each step do this, and all are changed in one step that no other thread can come
between:

* ``NEXT``, the next task: whoever counts it up has that task;
* ``ACTIVE``, how many threads are inside: up by one before a thread asks for its first task, down
  when it has come back;
* ``ENTERED`` and ``FINISHED``, how many have gone in and have done all they took: for finding out
  afterwards who failed.

A step is done when ``NEXT`` is past the last task and, read after that, ``ACTIVE`` is zero: whoever
has a task went in before taking it. A thread waits only for threads inside a kernel, and kernels
wait for nobody, so this ends in any order of events, also when a pool of threads lets one thread
make all the walks one after the other. Where a kernel found no memory, tasks are left over: whoever
sees that leaves.

A kernel is compiled once, as a C function with the one signature below, and the threads call it by
its address. Numba would otherwise compile the kernel anew into each layer of the parallel loop
around it, four times in all.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, get_num_threads, prange
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from .kernel import c_kernel, kernel
from .launch import launch
from .simd import F32, FLOATS, I64

Array = np.ndarray


class Work(NamedTuple):
    """The numbers of one call: the geometry of the op, and how it is cut into tasks.

    A kernel says what ``size``, ``length``, ``blocks`` and ``parts`` are to it; there are ``tasks``
    tasks in all.
    """

    n: int
    h: int
    w: int
    c_in: int
    h_out: int
    w_out: int
    c_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    groups: int
    add: int  # 1 when there is a residual
    relu: int
    lanes: int
    half: int
    ahead: int  # positions from a thread's block to its next, about
    size: int
    length: int
    blocks: int
    parts: int
    tasks: int

    @classmethod
    def of(cls, x: Sequence[int], y: Sequence[int]) -> Work:
        """The work of an op that makes ``[n, h_out, w_out, c_out]`` of ``[n, h, w, c_in]``; all else is still zero."""
        n, h, w, c_in = x
        numbers = dict.fromkeys(cls._fields, 0)
        return cls(
            **numbers
            | {"n": n, "h": h, "w": w, "c_in": c_in, "h_out": y[1], "w_out": y[2], "c_out": y[3]}
        )


COUNTERS = types.Array(types.int64, 1, "C")
WORK = types.NamedUniTuple(types.int64, len(Work._fields), Work)
# x, weight, bias, residual, out, work, counters
SIGNATURE = types.void(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, WORK, COUNTERS)
NEXT, FINISHED, ACTIVE, ENTERED = range(4)
# counters of a step: a cache line, so that threads in different steps do not disturb each other
LINE = 8
ARRAYS = 5
ROW = (
    1 + 2 * ARRAYS + len(Work._fields)
)  # numbers of a step in the table: the kernel, addresses and sizes, the work
PATIENCE = 200  # looks at a counter, some microseconds, before the core is offered to somebody else


# --- counting -------------------------------------------------------------------------------------


def take(counters: Array, which: int) -> int:
    """Count one up, and return what it was before: in one step, so that no two threads are told the same number."""
    return change(counters, which, 1)


def change(counters: Array, which: int, by: int) -> int:
    """Add, and return what it was before: in one step."""
    before = int(counters[which])
    counters[which] = before + by
    return before


@intrinsic
def _change(typing, counters, which, by):
    """Emit an atomic addition."""

    def codegen(context, builder, signature, args):
        data = context.make_array(COUNTERS)(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(COUNTERS, types.intp, types.intp), codegen


@overload(change)
def _change_overload(counters, which, by):
    """Wherever compiled code counts."""
    return lambda counters, which, by: _change(counters, which, by)


@overload(take)
def _take_overload(counters, which):
    """Wherever compiled code takes."""
    return lambda counters, which: _change(counters, which, 1)


def look(counters: Array, which: int) -> int:
    """What it is now; and what others wrote to memory before they changed it to that, is seen from here on."""
    return int(counters[which])


@intrinsic
def _look(typing, counters, which):
    """Emit an atomic load."""

    def codegen(context, builder, signature, args):
        data = context.make_array(COUNTERS)(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "seq_cst", 8)

    return types.int64(COUNTERS, types.intp), codegen


@overload(look)
def _look_overload(counters, which):
    """Wherever compiled code looks."""
    return lambda counters, which: _look(counters, which)


@intrinsic
def _rest(typing, rounds):
    """Emit a moment of waiting: at first one that only spares the core, after ``PATIENCE`` rounds a call to the system."""

    def codegen(context, builder, signature, args):
        triple = cpu_target.target_context.codegen().magic_tuple()[0]
        if triple.startswith(("x86_64", "i686")):
            _call_named(builder, "llvm.x86.sse2.pause", ir.VoidType())
        if (
            sys.platform != "win32"
        ):  # where there is no such function, and a name that is not there ends the process
            with builder.if_then(builder.icmp_signed(">", args[0], I64(PATIENCE))):
                _call_named(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _call_named(builder: ir.IRBuilder, name: str, result: ir.Type) -> None:
    """Emit a call without arguments."""
    builder.call(
        cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, []), name), []
    )


# --- walking --------------------------------------------------------------------------------------


@intrinsic
def _call(typing, table, counters, step):
    """Emit the call of a step's kernel: its address, arrays and work come from the table, its counters from their line.

    The arrays are lent without an owner, so that threads do not count references to them in turn.
    """

    def codegen(context, builder, signature, args):
        numbers = context.make_array(COUNTERS)(context, builder, args[0]).data
        row = builder.gep(numbers, [builder.mul(args[2], I64(ROW))])
        address, *rest = [builder.load(builder.gep(row, [I64(i)])) for i in range(ROW)]
        floats = F32.as_pointer()
        arrays = [
            _array(
                context, builder, FLOATS, builder.inttoptr(rest[2 * i], floats), rest[2 * i + 1], 4
            )
            for i in range(ARRAYS)
        ]
        work = cgutils.pack_array(builder, rest[2 * ARRAYS :])
        own = context.make_array(COUNTERS)(context, builder, args[1]).data
        own = _array(
            context,
            builder,
            COUNTERS,
            builder.gep(own, [builder.mul(args[2], I64(LINE))]),
            I64(LINE),
            8,
        )
        kind = ir.FunctionType(
            context.get_value_type(types.void), [context.get_value_type(a) for a in SIGNATURE.args]
        )
        builder.call(builder.inttoptr(address, kind.as_pointer()), [*arrays, work, own])
        return context.get_dummy_value()

    return types.void(COUNTERS, COUNTERS, types.intp), codegen


def _array(
    context: Any, builder: ir.IRBuilder, kind: Any, data: ir.Value, size: ir.Value, itemsize: int
) -> ir.Value:
    """What Numba takes for a flat array, around memory that somebody else owns."""
    made = context.make_array(kind)(context, builder)
    made.meminfo = made.parent = ir.Constant(ir.IntType(8).as_pointer(), None)
    made.data, made.nitems, made.itemsize = data, size, I64(itemsize)
    made.shape, made.strides = (
        cgutils.pack_array(builder, [size]),
        cgutils.pack_array(builder, [I64(itemsize)]),
    )
    return made._getvalue()


@kernel()
def _walk(table, counters, steps):
    """One thread's way through all the steps."""
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
            return  # nobody is inside, and there are tasks: the kernel has failed


@kernel(parallel=True)
def _together(table, counters, steps, threads):
    """Every thread walks."""
    for _ in prange(threads):
        _walk(table, counters, steps)


@kernel(nogil=True)
def _alone(table, counters, steps):
    """One thread walks, without waking the others. Python's other threads go on meanwhile, as they do in `_together`."""
    _walk(table, counters, steps)


# --- from Python ----------------------------------------------------------------------------------


def compiled(function: Callable[..., None], *key: int) -> Any:
    """What `run` takes: a function compiled for the one signature, or itself where compiling is switched off.

    ``key`` are the constants of a function that a factory made.
    """
    return c_kernel(SIGNATURE, key=key)(function)


@dataclass(frozen=True, eq=False)
class Step:
    """A call that is ready to be made, as often as one likes, on what its arrays then hold.

    Attributes
    ----------
    kernel : what `compiled` returned
    x, weight, bias, residual, out : flat float32 arrays
        What the kernel has no use for may be any of the others.
    work : Work
    """

    kernel: Any
    x: Array
    weight: Array
    bias: Array
    residual: Array
    out: Array
    work: Work

    def __call__(self) -> None:
        """Let all threads work through the tasks."""
        walk([self])

    @functools.cached_property
    def row(self) -> Array:
        """The step as the threads read it; the arrays have to stay alive as long as it is used."""
        arrays = (self.x, self.weight, self.bias, self.residual, self.out)
        numbers = [number for array in arrays for number in (array.ctypes.data, array.size)]
        return np.array([self.kernel.address, *numbers, *self.work], np.int64)


def run(
    kernel: Any, x: Array, weight: Array, bias: Array, residual: Array, out: Array, work: Work
) -> None:
    """Let all threads work through the tasks of one call; the arguments are those of `Step`.

    Raises
    ------
    MemoryError
        When a thread found no working memory. A C function cannot raise it; it stops before it has
        counted itself.
    """
    walk([Step(kernel, x, weight, bias, residual, out, work)])


def walk(steps: Sequence[Step], table: Array | None = None) -> None:
    """Let all threads work through the tasks of some calls, one call after the other; errors are those of `run`."""
    counters = np.zeros(len(steps) * LINE, np.int64)
    if config.DISABLE_JIT:
        for s, own in zip(steps, counters.reshape(-1, LINE), strict=True):
            s.kernel(s.x, s.weight, s.bias, s.residual, s.out, s.work, own)
        return
    if table is None:
        table = np.concatenate([step.row for step in steps])
    threads = min(get_num_threads(), max(step.work.tasks for step in steps))
    if threads > 1:
        launch(_together, table, counters, len(steps), threads)
    else:
        _alone(table, counters, len(steps))
    counts = counters.reshape(-1, LINE)
    for step, own in zip(steps, counts, strict=True):
        if own[FINISHED] != own[ENTERED] or own[NEXT] < step.work.tasks:
            raise MemoryError(
                f"a kernel for a result of {step.out.size} values found no working memory; use a smaller batch"
            )


def chain(calls: Sequence[Callable[[], Any]]) -> Callable[[], None]:
    """Steps that follow each other become one parallel region; what is not a `Step` is called between these."""
    parts: list[Callable[[], Any]] = []
    for ours, some in groupby(calls, lambda call: isinstance(call, Step)):
        together = list(some)
        parts += [_region(together)] if ours else together

    def run_all() -> None:
        for part in parts:
            part()

    return run_all


def _region(steps: list[Step]) -> Callable[[], None]:
    """One parallel region, whose table is made once."""
    table = None if config.DISABLE_JIT else np.concatenate([step.row for step in steps])
    return lambda: walk(steps, table)
