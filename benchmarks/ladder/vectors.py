"""Functions that emit LLVM's vector code from Numba, for the two rungs in vector instructions.

The number of lanes is that of AVX-512. LLVM splits each vector into two of eight or four of four
where the processor has only shorter ones: the result is correct everywhere, and fast where there
are 32 long registers. `tinyresnext.ops.cpu` chooses the length by the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types

LANES = 16
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)
FLAT = types.Array(types.float32, 1, "C")


def address(context: Any, builder: ir.IRBuilder, array: ir.Value, at: ir.Value) -> ir.Value:
    """Return the address of value ``at`` of a flat array."""
    return builder.gep(context.make_array(FLAT)(context, builder, array).data, [at])


def load(builder: ir.IRBuilder, pointer: ir.Value, at: int = 0) -> ir.Value:
    """Load a vector from ``pointer``, ``at`` values further; it need not be aligned."""
    found = builder.load(builder.bitcast(builder.gep(pointer, [I64(at)]), VECTOR.as_pointer()))
    found.align = 4
    return found


def store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, at: int = 0) -> None:
    """Store a vector at ``pointer``, ``at`` values further."""
    builder.store(
        value, builder.bitcast(builder.gep(pointer, [I64(at)]), VECTOR.as_pointer())
    ).align = 4


def permute(builder: ir.IRBuilder, vector: ir.Value, lanes: list[int]) -> ir.Value:
    """Return the lanes of a vector in another order, which may repeat some of them."""
    return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, LANES), lanes))


def broadcast(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Return a vector with one value in all lanes."""
    return permute(
        builder,
        builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, I32(0)),
        [0] * LANES,
    )


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """Compute ``a * b + c``, in one instruction where there is one."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c]
    )


def repeat(
    builder: ir.IRBuilder, count: ir.Value, carried: list[ir.Value], body: Any
) -> list[ir.Value]:
    """Repeat ``carried = body(carried)`` ``count`` times, at least once, in registers."""
    before, again, done = (
        builder.block,
        builder.append_basic_block("again"),
        builder.append_basic_block("done"),
    )
    builder.branch(again)
    builder.position_at_end(again)
    left, *values = [builder.phi(value.type) for value in (count, *carried)]
    results = body(values)
    rest = builder.sub(left, I64(1))
    for value, first, later in zip(
        [left, *values], [count, *carried], [rest, *results], strict=True
    ):
        value.add_incoming(first, before)
        value.add_incoming(later, again)
    builder.cbranch(builder.icmp_signed(">", rest, I64(0)), again, done)
    builder.position_at_end(done)
    return results


@njit
def finish(sums: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """Add the bias, apply the ReLU, and store as many values as ``out`` has."""
    for j in range(len(out)):
        out[j] = max(sums[j] + bias[j], np.float32(0))
