"""How threads share the work of an op: each takes the next task from a common counter until none is left.

With tasks handed out one by one, a thread that the operating system holds up delays the others by one task at most.
Which thread computes a task changes nothing about its result.

A kernel is compiled once, as a C function with the one signature below, and the threads call it by its address. Numba
would otherwise compile the kernel anew into each layer of the parallel loop around it, four times in all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, get_num_threads, prange
from numba.core import types
from numba.extending import intrinsic, overload

from .kernel import c_kernel, kernel
from .launch import launch
from .simd import FLOATS

Array = np.ndarray


class Work(NamedTuple):
    """The numbers of one call: the geometry of the op, and how it is cut into tasks.

    A kernel says what ``size``, ``length``, ``blocks`` and ``parts`` are to it; there are ``tasks`` tasks in all.
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
    size: int
    length: int
    blocks: int
    parts: int
    tasks: int


COUNTERS = types.Array(types.int64, 1, "C")
WORK = types.NamedUniTuple(types.int64, len(Work._fields), Work)
# x, weight, bias, residual, out, work, counters
SIGNATURE = types.void(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS, WORK, COUNTERS)


def take(counters: Array, which: int) -> int:
    """Count one up, and return what it was before: in one step, so that no two threads are told the same number."""
    counters[which] += 1
    return int(counters[which] - 1)


@intrinsic
def _take(typing, counters, which):
    """Emit an atomic addition."""

    def codegen(context, builder, signature, args):
        data = context.make_array(COUNTERS)(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), ir.IntType(64)(1), "seq_cst")

    return types.int64(COUNTERS, types.intp), codegen


@overload(take)
def _take_overload(counters, which):
    """Wherever compiled code takes."""
    return lambda counters, which: _take(counters, which)


def call(kernel: Callable[..., None], x, weight, bias, residual, out, work, counters) -> None:
    """Call a compiled kernel by its address; without compiling, the kernel itself."""
    kernel(x, weight, bias, residual, out, work, counters)


@intrinsic
def _call(typing, kernel, x, weight, bias, residual, out, work, counters):
    """Emit the call. The arrays are lent without their owner, so that threads do not count references to them in turn."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(context.get_value_type(types.void), [context.get_value_type(a) for a in SIGNATURE.args])
        kernel, *arrays, work, counters = args
        lent = [builder.insert_value(a, ir.Constant(a.type.elements[0], None), 0) for a in arrays]
        builder.call(builder.inttoptr(kernel, kind.as_pointer()), [*lent, work, counters])
        return context.get_dummy_value()

    return types.void(types.intp, *SIGNATURE.args), codegen


@overload(call)
def _call_overload(kernel, x, weight, bias, residual, out, work, counters):
    """Wherever compiled code calls."""
    return lambda kernel, x, weight, bias, residual, out, work, counters: _call(
        kernel, x, weight, bias, residual, out, work, counters
    )


@kernel(parallel=True)
def _share(kernel, x, weight, bias, residual, out, work, counters, threads):
    """Every thread runs the kernel once."""
    for _ in prange(threads):
        call(kernel, x, weight, bias, residual, out, work, counters)


@kernel()
def _alone(kernel, x, weight, bias, residual, out, work, counters):
    """One thread runs the kernel, without waking the others."""
    call(kernel, x, weight, bias, residual, out, work, counters)


def compiled(function: Callable[..., None], *key: int) -> Any:
    """What `run` takes: a function compiled for the one signature, or itself where compiling is switched off.

    ``key`` are the constants of a function that a factory made.
    """
    return c_kernel(SIGNATURE, key=key)(function)


def run(kernel: Any, x: Array, weight: Array, bias: Array, residual: Array, out: Array, work: Work) -> None:
    """Let all threads work through the tasks of one call.

    Parameters
    ----------
    kernel : what `compiled` returned
    x, weight, bias, residual, out : flat float32 arrays
        What the kernel has no use for may be any of the others.
    work : Work

    Raises
    ------
    MemoryError
        When a thread found no working memory. A C function cannot raise it; it stops before it has counted itself.
    """
    counters, threads = np.zeros(2, np.int64), min(get_num_threads(), work.tasks)
    target = kernel if config.DISABLE_JIT else kernel.address
    if threads > 1:
        launch(_share, target, x, weight, bias, residual, out, work, counters, threads)
    elif work.tasks:
        _alone(target, x, weight, bias, residual, out, work, counters)
    if counters[1] != threads:
        raise MemoryError(f"a kernel for a result of {out.size} values found no working memory; use a smaller batch")
