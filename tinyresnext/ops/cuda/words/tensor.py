"""Tensor cores: a warp multiplies two small matrices of 16 bits and adds to one of float32.

The 32 threads hold the three matrices together, each a few values of each (PTX ISA, "Matrix
Fragments for mma.m16n8k16"). With ``g = lane // 4`` and ``t = lane % 4``, thread ``(g, t)`` holds

=======  ==========================================  =============================================
matrix   its values                                  in
=======  ==========================================  =============================================
left     rows g and g + 8, depths 2t, 2t + 1         ``a0 a1``, a pair of values each
         rows g and g + 8, depths 2t + 8, 2t + 9     ``a2 a3``
right    depths 2t, 2t + 1 of column g               ``b0``
         depths 2t + 8, 2t + 9 of column g           ``b1``
sums     row g, columns 2t, 2t + 1                   ``sums[i], sums[i + 1]``
         row g + 8, columns 2t, 2t + 1               ``sums[i + 2], sums[i + 3]``
=======  ==========================================  =============================================
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .llvm import FLOAT, INT32, KINDS, bfloats, floats, intrinsic
from .target import capability

DEEP = (8, 0)  # from here on one instruction multiplies 16 deep, before that 8, and float16 only


@intrinsic
def load_pair(typingctx, s, i, d):
    """Return the bits of a pair of 16 bits each that lies where ``s[i + d]`` would."""

    def codegen(context, builder, signature, args):
        at = builder.gep(builder.gep(args[0], [args[1]]), [args[2]])
        return builder.load(builder.bitcast(at, INT32.as_pointer()))

    return types.int32(floats, types.int32, types.int64), codegen


@intrinsic
def multiply(typingctx, sums, i, a0, a1, a2, a3, b0, b1, which):
    """Add a product of 16 rows, 8 columns and 16 depths to a tile of sums.

    Parameters
    ----------
    sums : `registers`
        Four of them from ``i`` on are this thread's.
    a0, a1, a2, a3, b0, b1 : int32
        Pairs of values of the left and of the right matrix.
    which : int, a constant
        Their type: the place of `halves` or `bfloats` in `llvm.KINDS`.
    """
    if not isinstance(which, types.IntegerLiteral):
        return None
    kind = "bf16" if KINDS[which.literal_value] == bfloats else "f16"

    def codegen(context, builder, signature, args):
        sums, i, a0, a1, a2, a3, b0, b1, _ = args
        first = builder.gep(sums, [i])
        places = [builder.gep(first, [INT32(q)]) for q in range(4)]
        made = [builder.load(at) for at in places]
        if capability() >= DEEP:
            made = _mma(builder, kind, 16, [a0, a1, a2, a3], [b0, b1], made)
        else:
            made = _mma(builder, kind, 8, [a0, a1], [b0], made)
            made = _mma(builder, kind, 8, [a2, a3], [b1], made)
        for at, value in zip(places, made, strict=True):
            builder.store(value, at)
        return context.get_dummy_value()

    return types.void(floats, *[types.int32] * 7, which), codegen


def _mma(builder, kind, depth, left, right, sums):
    """Return four sums after one instruction."""
    result = ir.LiteralStructType([FLOAT] * 4)
    function = ir.FunctionType(result, [INT32] * len(left + right) + [FLOAT] * 4)
    numbers = iter(range(4 + len(left + right) + 4))

    def braces(count):
        return "{" + ", ".join(f"${next(numbers)}" for _ in range(count)) + "}"

    operands = ", ".join(braces(count) for count in (4, len(left), len(right), 4))
    text = f"mma.sync.aligned.m16n8k{depth}.row.col.f32.{kind}.{kind}.f32 {operands};"
    constraints = ",".join(["=f"] * 4 + ["r"] * len(left + right) + ["f"] * 4)
    made = builder.asm(function, text, constraints, [*left, *right, *sums], True)
    return [builder.extract_value(made, q) for q in range(4)]
