"""Values of the other 31 threads of a warp, without shared memory and without a barrier.

All threads of the warp have to take part.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from .llvm import FLOAT, INT32, intrinsic

EVERY, BUTTERFLY, LAST = -1, 3, 31  # which threads; the kind of exchange; the largest lane


def _exchange(builder, value, mask):
    """Return the value of the thread whose lane differs in the bits of ``mask``."""
    result = ir.LiteralStructType((INT32, ir.IntType(1)))
    kind = ir.FunctionType(result, [INT32] * 5)
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.nvvm.shfl.sync.i32")
    bits = builder.bitcast(value, INT32)
    made = builder.call(shuffle, [INT32(EVERY), INT32(BUTTERFLY), bits, mask, INT32(LAST)])
    return builder.bitcast(builder.extract_value(made, 0), FLOAT)


@intrinsic
def warp_sum(typingctx, value):
    """Return the sum over the warp, added in the same order in every run, to every thread."""

    def codegen(context, builder, signature, args):
        (total,) = args
        for mask in (16, 8, 4, 2, 1):
            total = builder.fadd(total, _exchange(builder, total, INT32(mask)))
        return total

    return types.float32(types.float32), codegen


@intrinsic
def warp_larger(typingctx, value):
    """Return the largest value of the warp to every thread; one that is not a number wins."""

    def codegen(context, builder, signature, args):
        (most,) = args
        for mask in (16, 8, 4, 2, 1):
            other = _exchange(builder, most, INT32(mask))
            larger = builder.fcmp_ordered(">", most, other)
            number = builder.fcmp_ordered("==", most, most)
            most = builder.select(builder.or_(larger, builder.not_(number)), most, other)
        return most

    return types.float32(types.float32), codegen
