"""Whole numbers in 32 bits: Numba divides in 64, which takes a GPU five times as long."""

from __future__ import annotations

from numba.core import types

from .llvm import intrinsic


@intrinsic
def quotient(typingctx, a, b):
    """Return ``a // b`` of two numbers that are not negative; ``b`` is not zero."""

    def codegen(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int32(types.int32, types.int32), codegen
