"""Four values at once: few instructions for the compiler, so that it unrolls long loops."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from .llvm import FLOAT, FOUR, INT32, VECTOR, floats, intrinsic, place, values, vector


@intrinsic
def add4(typingctx, sums, i, a, j, four):
    """Add ``a[j] * four`` to ``sums[i : i + 4]``, both `registers`, with one rounding a value.

    These are four multiply-adds in six instructions of LLVM's. With a loop over the four, the
    unrolled kernel would be too long for its optimiser, which then leaves arrays in memory.
    """

    def codegen(context, builder, signature, args):
        at = place(builder, args[0], args[1], VECTOR)
        value = builder.load(place(builder, args[2], args[3], FLOAT), align=4)
        each = ir.Constant(VECTOR, ir.Undefined)
        for q in range(4):
            each = builder.insert_element(each, value, INT32(q))
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.v4f32")
        made = builder.call(fma, [each, vector(builder, args[4]), builder.load(at, align=4)])
        builder.store(made, at, align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int32, floats, types.int32, FOUR), codegen


@intrinsic
def sum4(typingctx, u, v):
    """Return ``u + v``."""

    def codegen(context, builder, signature, args):
        total = builder.fadd(vector(builder, args[0]), vector(builder, args[1]))
        return values(context, builder, total)

    return FOUR(FOUR, FOUR), codegen


@intrinsic
def floor4_or_nan(typingctx, v, floor):
    """Return ``v`` as `floor4`, but not a number for what is below the floor and infinite.

    In float16 an infinite value is one that was too large. The next layer may make minus infinity
    of it, and a ReLU would make that zero, which looks like any other.
    """

    def codegen(context, builder, signature, args):
        each = [builder.extract_value(args[0], q) for q in range(4)]
        low = [builder.fadd(builder.fsub(x, x), args[1]) for x in each]
        below = [builder.fcmp_ordered("<", x, args[1]) for x in each]
        each = [builder.select(*one) for one in zip(below, low, each, strict=True)]
        return context.make_tuple(builder, FOUR, each)

    return FOUR(FOUR, types.float32), codegen


@intrinsic
def floor4(typingctx, v, floor):
    """Return ``v`` with ``floor`` in place of what is below it; what is not a number stays so."""

    def codegen(context, builder, signature, args):
        each = [builder.extract_value(args[0], q) for q in range(4)]
        each = [builder.select(builder.fcmp_ordered("<", x, args[1]), args[1], x) for x in each]
        return context.make_tuple(builder, FOUR, each)

    return FOUR(FOUR, types.float32), codegen
