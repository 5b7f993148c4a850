"""Copies from global to shared memory that a thread starts and does not wait for.

From compute capability 8.0 on, `cp.async` copies past the registers while the thread computes; the
older processors copy at once. So a kernel is written once: start the copies of the next slice,
compute with the slice before, then `copies_done` and a barrier.
"""

from __future__ import annotations

from functools import partial

from llvmlite import ir
from numba.core import types

from .llvm import FLOAT, GLOBAL, INT32, INT64, SHARED, VECTOR, floats, intrinsic, place
from .target import capability

ASYNCHRONOUS = (8, 0)


def _copy(context, builder, signature, args, size, way):
    """Copy ``size`` bytes, or zeros; the second kind of copy loads and stores."""
    to, i, of, j, inside = args
    word = VECTOR if size == 16 else FLOAT
    to = builder.addrspacecast(place(builder, to, i, word), word.as_pointer(SHARED))
    of = builder.addrspacecast(place(builder, of, j, word), word.as_pointer(GLOBAL))
    if capability() >= ASYNCHRONOUS:
        to, of = builder.ptrtoint(to, INT32), builder.ptrtoint(of, INT64)
        taken = builder.select(inside, INT32(size), INT32(0))  # the rest of the bytes become zero
        kind = ir.FunctionType(ir.VoidType(), [INT32, INT64, INT32])
        text = f"cp.async.{way}.shared.global [$0], [$1], {size}, $2;"
        builder.asm(kind, text, "r,l,r", [to, of, taken], True)
        return context.get_dummy_value()
    with builder.if_else(inside) as (then, otherwise):
        with then:
            builder.store(builder.load(of, align=size), to, align=size)
        with otherwise:
            builder.store(ir.Constant(word, 0.0 if size == 4 else [0.0] * 4), to, align=size)
    return context.get_dummy_value()


@intrinsic
def copy4(typingctx, to, i, of, j, inside):
    """Start ``to[i : i + 4] = of[j : j + 4]``, or zeros and without an access if not ``inside``.

    ``to`` is shared memory, ``of`` is not; both addresses are multiples of 16 bytes.
    """
    signature = types.void(floats, types.int32, floats, types.int32, types.boolean)
    return signature, partial(_copy, size=16, way="cg")


@intrinsic
def copy1(typingctx, to, i, of, j, inside):
    """Start ``to[i] = of[j]``, or zero and without an access if not ``inside``."""
    signature = types.void(floats, types.int32, floats, types.int32, types.boolean)
    return signature, partial(_copy, size=4, way="ca")


@intrinsic
def copies_done(typingctx):
    """Wait for the copies that this thread has started.

    Those of the other threads of the block have arrived after the next barrier.
    """

    def codegen(context, builder, signature, args):
        if capability() >= ASYNCHRONOUS:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.asm(kind, "cp.async.wait_all;", "~{memory}", [], True)
        return context.get_dummy_value()

    return types.void(), codegen
