"""Vectors: how many the processor has and how long they are, and the few instructions on them.

Numba turns Python loops into machine code through LLVM, and LLVM usually finds out by itself which
loops can be computed in vectors. It does not find the arrangement that a matrix product needs, in
which two dozen sums stay in registers all the time. So the innermost loops of this backend
(`gemm.tile`, `wide.tile` and `narrow.tile`, and for gradients `outer_tile` and `narrow.outer`) are
not written as loops but as LLVM instructions on vectors, which `Emit` writes one after the other.
LLVM still chooses registers and the order of instructions, and the same text becomes AVX-512, AVX2,
SSE or NEON, depending only on how long a vector is.

Each function that is emitted stands beside a plain function of nearly the same name and the same
arguments. That one shows the meaning, and it runs when compiling is switched off
(``NUMBA_DISABLE_JIT=1``); ``overload`` replaces it by the emitted one in compiled code. Neither
checks bounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from .kernel import as_part, part

Array = np.ndarray
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
POINTER = ir.IntType(8).as_pointer()
FLOATS = types.Array(types.float32, 1, "C")  # every array of a kernel: flat, float32, contiguous


class Machine(NamedTuple):
    """The sizes of the processor that decide the shape of the register tiles.

    Attributes
    ----------
    lanes : int
        float32 values in one vector.
    registers : int
        Vector registers.
    half : int
        Rows of the lower of the two register tiles; the other has twice as many. See `gemm`.
    """

    lanes: int
    registers: int
    half: int


@functools.cache
def machine() -> Machine:
    """Return the sizes of the processor that Numba compiles for (see ``NUMBA_CPU_FEATURES``)."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    if "+avx512f" in features.split(","):
        return Machine(16, 32, 7)
    if "+avx" in features.split(","):
        return Machine(8, 16, 3)
    # SSE and NEON have vectors of four; AArch64, POWER and RISC-V have 32 of them, x86 and 32-bit
    # ARM have 16.
    return (
        Machine(4, 32, 7)
        if triple.startswith(("aarch64", "arm64", "ppc", "riscv64"))
        else Machine(4, 16, 3)
    )


class Emit:
    """Writes vector instructions at the position of ``builder``."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self.context, self.builder, self.lanes = context, builder, machine().lanes
        self.vector = ir.VectorType(F32, self.lanes)

    def address(self, array: ir.Value, at: ir.Value, kind: Any = FLOATS) -> ir.Value:
        """Return the address of value ``at`` of a flat array of that type."""
        data = self.context.make_array(kind)(self.context, self.builder, array).data
        return self.builder.gep(data, [at])

    def after(self, pointer: ir.Value, count: int | ir.Value) -> ir.Value:
        """Return the address ``count`` values further."""
        return self.builder.gep(pointer, [count if isinstance(count, ir.Value) else I64(count)])

    def load(self, pointer: ir.Value) -> ir.Value:
        """Load a vector of neighbouring values at any address."""
        value = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        value.align = 4
        return value

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """Store a vector at ``pointer``."""
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer())).align = 4

    def prefetch(self, pointer: ir.Value, write: bool, cache: int = 1) -> None:
        """Ask for a line to be in the first or second cache soon; any address is allowed."""
        data = self.builder.bitcast(pointer, POINTER)
        kind = ir.FunctionType(ir.VoidType(), [data.type, I32, I32, I32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        self.builder.call(function, [data, I32(int(write)), I32(4 - cache), I32(1)])

    def permute(self, vector: ir.Value, lanes: list[int]) -> ir.Value:
        """Return the lanes of a vector in another order, or some of them several times."""
        return self.builder.shuffle_vector(
            vector, vector, ir.Constant(ir.VectorType(I32, self.lanes), lanes)
        )

    def broadcast(self, value: ir.Value) -> ir.Value:
        """Return a vector with one value in all lanes."""
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, I32(0))
        return self.permute(first, [0] * self.lanes)

    def zero(self) -> ir.Value:
        """Return a vector of zeros."""
        return ir.Constant(self.vector, [ir.Constant(F32, 0.0)] * self.lanes)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Compute ``a * b + c``: with one rounding where the processor has such an instruction."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f32"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c]
        )

    def loop(
        self,
        count: ir.Value,
        carried: list[ir.Value],
        body: Callable[[list[ir.Value]], list[ir.Value]],
    ) -> list:
        """Repeat ``carried = body(carried)`` ``count`` times, at least once; return the last one.

        A value that changes from round to round is a *phi*: it comes from before the loop the first
        time, and from the end of the body every other time. What is carried stays in registers as
        long as there are enough of them.
        """
        b = self.builder
        before, again, done = b.block, b.append_basic_block("again"), b.append_basic_block("done")
        b.branch(again)
        b.position_at_end(again)
        values = [b.phi(value.type) for value in [count, *carried]]
        left, *results = b.sub(values[0], I64(1)), *body(values[1:])
        for value, first, later in zip(values, [count, *carried], [left, *results], strict=True):
            value.add_incoming(first, before)
            value.add_incoming(later, b.block)
        b.cbranch(b.icmp_signed(">", left, I64(0)), again, done)
        b.position_at_end(done)
        return results

    def finish(
        self,
        sums: list[ir.Value],
        vectors: int,
        result: ir.Value,
        residual: ir.Value,
        rest: list[ir.Value],
    ) -> None:
        """Compute the epilogue of a tile, ``max(sums + residual, floor)``, and store it row by row.

        ``rest`` is the distance between rows, whether to add, and the floor: 0 for a ReLU, minus
        infinity for none. It is compared so that not-a-number, which is not below the floor, stays.
        """
        b, (pitch, add, floor) = self.builder, rest
        rows = [b.mul(pitch, I64(r)) for r in range(len(sums) // vectors)]
        places = [b.add(row, I64(j * self.lanes)) for row in rows for j in range(vectors)]
        floors = self.broadcast(floor)
        before, plus, store = b.block, b.append_basic_block("plus"), b.append_basic_block("store")
        b.cbranch(b.icmp_signed("!=", add, I64(0)), plus, store)
        b.position_at_end(plus)
        added = [
            b.fadd(value, self.load(self.after(residual, place)))
            for value, place in zip(sums, places, strict=True)
        ]
        b.branch(store)
        b.position_at_end(store)
        values = [b.phi(self.vector) for _ in sums]
        for value, alone, more in zip(values, sums, added, strict=True):
            value.add_incoming(alone, before)
            value.add_incoming(more, plus)
        for value, place in zip(values, places, strict=True):
            self.store(
                b.select(b.fcmp_ordered(">", floors, value), floors, value),
                self.after(result, place),
            )


# --- copying --------------------------------------------------------------------------------------


@intrinsic
def _move(typing, source, s, target, t):
    """Emit a load and a store."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder)
        e.store(e.load(e.address(args[0], args[1])), e.address(args[2], args[3]))
        return context.get_dummy_value()

    return types.void(FLOATS, types.intp, FLOATS, types.intp), codegen


def copy(source: Array, s: int, target: Array, t: int, count: int) -> None:
    """Copy ``source[s:s + count]`` to ``target[t:t + count]``, without making slices."""
    target[t : t + count] = source[s : s + count]


@overload(copy, jit_options=as_part(inline=True))
def _copy(source, s, target, t, count):
    """Copy vector by vector, where the last overlaps the one before; a short run by values."""
    lanes = machine().lanes

    def emitted(source, s, target, t, count):
        if count < lanes:
            for q in range(count):
                target[t + q] = source[s + q]
        else:
            for q in range(0, count - lanes, lanes):
                _move(source, s + q, target, t + q)
            _move(source, s + count - lanes, target, t + count - lanes)

    return emitted


# --- working memory -------------------------------------------------------------------------------


def flat_array(
    context: Any,
    builder: ir.IRBuilder,
    kind: Any,
    data: ir.Value,
    size: ir.Value,
    meminfo: ir.Value | None = None,
) -> ir.Value:
    """Emit a flat array, as Numba represents it, around memory that ``meminfo`` or nobody owns."""
    itemsize = I64(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    made, none = context.make_array(kind)(context, builder), ir.Constant(POINTER, None)
    made.meminfo, made.parent = none if meminfo is None else meminfo, none
    made.data, made.nitems, made.itemsize = data, size, itemsize
    made.shape, made.strides = (
        cgutils.pack_array(builder, [size]),
        cgutils.pack_array(builder, [itemsize]),
    )
    return made._getvalue()


def working(size, dtype):
    """Return working memory that begins at a cache line, so that no vector crosses two lines."""
    raw = np.empty(size + 64, dtype)
    skip = -raw.ctypes.data % 64 // raw.itemsize
    return raw[skip : skip + size]


@intrinsic
def _allocated(typing, size, dtype):
    """Emit `working`.

    Code that calls NumPy's ``empty`` makes every process that loads it import a twentieth of Numba.
    """
    kind = types.Array(dtype.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        item = context.get_data_type(kind.dtype)
        count = builder.mul(args[0], I64(context.get_abi_sizeof(item)))
        meminfo = context.nrt.meminfo_alloc_aligned(builder, count, 64)
        data = builder.bitcast(context.nrt.meminfo_data(builder, meminfo), item.as_pointer())
        return flat_array(context, builder, kind, data, args[0], meminfo)

    return kind(types.intp, dtype), codegen


@overload(working, jit_options=as_part(inline=True))
def _working(size, dtype):
    """Replace `working` in compiled code."""
    return lambda size, dtype: _allocated(size, dtype)


@part()
def aligned(size):
    """Return `working` memory for float32."""
    return working(size, np.float32)
