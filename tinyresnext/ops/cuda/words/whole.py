"""Whole numbers in 32 bits: Numba divides in 64, which takes a GPU five times as long."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .llvm import intrinsic


@intrinsic
def quotient(typingctx, a, b):
    """Return ``a // b`` of two numbers that are not negative; ``b`` is not zero."""

    def codegen(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int32(types.int32, types.int32), codegen


@intrinsic
def located(typingctx, i, h, w, c):
    """Return image, line, column and channel of value ``i`` of images ``[n, h, w, c]``."""

    def codegen(context, builder, signature, args):
        i, h, w, c = args
        place = builder.udiv(i, c)
        line = builder.udiv(place, w)
        image = builder.udiv(line, h)
        within = ((line, image, h), (place, line, w), (i, place, c))
        rest = [builder.sub(a, builder.mul(b, size)) for a, b, size in within]
        return context.make_tuple(builder, signature.return_type, [image, *rest])

    return types.UniTuple(types.int32, 4)(*[types.int32] * 4), codegen


@intrinsic
def reaching(typingctx, place, size, stride, count):
    """Return the first and the last of ``count`` windows in a direction that have a place.

    Window u has the places ``u * stride`` to ``u * stride + size - 1``.
    """

    def codegen(context, builder, signature, args):
        place, size, stride, count = args
        one = ir.Constant(place.type, 1)
        after = builder.add(builder.udiv(builder.sub(place, size), stride), one)
        early = builder.icmp_signed("<", place, size)
        first = builder.select(early, ir.Constant(place.type, 0), after)
        last, end = builder.udiv(place, stride), builder.sub(count, one)
        last = builder.select(builder.icmp_signed("<", end, last), end, last)
        return context.make_tuple(builder, signature.return_type, [first, last])

    return types.UniTuple(types.int32, 2)(*[types.int32] * 4), codegen
