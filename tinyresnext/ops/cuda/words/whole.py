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


@intrinsic
def repeated(typingctx, i, first, per_sample, c):
    """Return where value ``i`` of images finds its channel's number in ``[n, c]``, and a distance.

    So far before it is a value that has the same number, among those of the same image from
    ``first`` on. Threads of a warp look equally far back, and so at what lies side by side. The
    last result is whether it is one of the ``c + 31`` values that others so find.
    """

    def codegen(context, builder, signature, args):
        i, first, per_sample, c = args
        image, place = builder.udiv(i, per_sample), builder.udiv(i, c)
        at = builder.add(builder.mul(image, c), builder.sub(i, builder.mul(place, c)))
        start, warp = builder.mul(image, per_sample), builder.and_(i, i.type(-32))
        start = builder.select(builder.icmp_unsigned("<", start, first), first, start)
        warp = builder.select(builder.icmp_unsigned("<", warp, start), start, warp)
        apart = builder.mul(builder.udiv(builder.sub(warp, start), c), c)
        found = builder.icmp_unsigned("<", builder.sub(i, start), builder.add(c, i.type(31)))
        return context.make_tuple(builder, signature.return_type, [at, apart, found])

    results = types.Tuple([types.int32, types.int32, types.boolean])
    return results(*[types.int32] * 4), codegen
