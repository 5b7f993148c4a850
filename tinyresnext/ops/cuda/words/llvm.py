"""What the words are made of: how an intrinsic is declared, addresses, four values as a vector."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic as any_intrinsic

intrinsic = any_intrinsic(target="cuda", prefer_literal=True)

floats = types.CPointer(types.float32)
FOUR = types.UniTuple(types.float32, 4)
FLOAT, VECTOR = ir.FloatType(), ir.VectorType(ir.FloatType(), 4)
INT32, INT64 = ir.IntType(32), ir.IntType(64)

SHARED, GLOBAL = 3, 1  # numbers of address spaces


def place(builder, pointer, index, pointee, further=None):
    """Return the address of ``pointer[index + further]`` as a pointer to ``pointee``.

    ``further`` is added last: where it is a constant, it becomes part of the instruction.
    """
    at = builder.gep(pointer, [index])
    if further is not None:
        at = builder.gep(at, [further])
    return builder.bitcast(at, pointee.as_pointer())


def vector(builder, four):
    """Return four values of a tuple as one vector."""
    made = ir.Constant(VECTOR, ir.Undefined)
    for q in range(4):
        made = builder.insert_element(made, builder.extract_value(four, q), INT32(q))
    return made


def values(context, builder, made):
    """Return the four values of a vector as a tuple."""
    each = [builder.extract_element(made, INT32(q)) for q in range(4)]
    return context.make_tuple(builder, FOUR, each)
