"""The instructions on vectors that register tiles are made of, written one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from .bfloat16 import dot, narrowed, widened
from .sizes import F32, FLOATS, HALVES, I16, I32, I64, WORDS, machine


class Emit:
    """Writes vector instructions at the position of ``builder``.

    Parameters
    ----------
    context, builder
        Numba's and LLVM's.
    out : Numba type
        Of the array that a tile is for, and of its residual: `FLOATS`, or `HALVES` for bfloat16.
    operands : Numba type
        Of its operands: `FLOATS`, or `WORDS` of two bfloat16.
    parts : 1 or 2
        Whole vectors, or halves of them.
    """

    def __init__(
        self,
        context: Any,
        builder: ir.IRBuilder,
        out: Any = FLOATS,
        operands: Any = FLOATS,
        parts: int = 1,
    ) -> None:
        self.context, self.builder, self.out, self.operands = context, builder, out, operands
        self.lanes = machine().lanes // parts
        self.vector = ir.VectorType(F32, self.lanes)

    def address(self, array: ir.Value, at: ir.Value, kind: Any = FLOATS) -> ir.Value:
        """Return the address of value ``at`` of a flat array of that type; words are as float32."""
        data = self.context.make_array(kind)(self.context, self.builder, array).data
        if kind == WORDS:
            data = self.builder.bitcast(data, F32.as_pointer())
        return self.builder.gep(data, [at])

    def after(self, pointer: ir.Value, count: int | ir.Value) -> ir.Value:
        """Return the address ``count`` values further."""
        return self.builder.gep(pointer, [count if isinstance(count, ir.Value) else I64(count)])

    def load(self, pointer: ir.Value, kind: ir.Type | None = None) -> ir.Value:
        """Load a vector of neighbouring values at any address; by default, of float32."""
        place = (self.vector if kind is None else kind).as_pointer()
        value = self.builder.load(self.builder.bitcast(pointer, place))
        value.align = 2
        return value

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        """Store a vector at ``pointer``."""
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer())).align = 2

    def prefetch(self, pointer: ir.Value, write: bool, cache: int = 1) -> None:
        """Ask for a line to be in the first or second cache soon; any address is allowed."""
        data = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
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

    def product(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Compute ``a * b + c``, or for words of two numbers the sum of both products and ``c``."""
        return dot(self, a, b, c) if self.operands == WORDS else self.multiply_add(a, b, c)

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

        def store(adds: bool) -> None:
            # Each value is stored before the next one is loaded: LLVM would load all of a residual
            # in bfloat16 first, for which there are not enough registers.
            for value, place in zip(sums, places, strict=True):
                if adds:
                    value = b.fadd(value, self._from_memory(self.after(residual, place)))
                floored = b.select(b.fcmp_ordered(">", floors, value), floors, value)
                self._to_memory(floored, self.after(result, place))

        with b.if_else(b.icmp_signed("!=", add, I64(0))) as (then, otherwise):
            with then:
                store(True)
            with otherwise:
                store(False)

    def _from_memory(self, pointer: ir.Value) -> ir.Value:
        """Load a vector of what the array of a tile has, as float32."""
        if self.out != HALVES:
            return self.load(pointer)
        return widened(self.builder, self.load(pointer, ir.VectorType(I16, self.lanes)))

    def _to_memory(self, value: ir.Value, pointer: ir.Value) -> None:
        """Store a vector of float32 as the array of a tile has it."""
        self.store(narrowed(self.builder, value) if self.out == HALVES else value, pointer)
