"""Shared memory, arrays in registers, and 16 bytes at once."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from .llvm import FLOAT, FOUR, SHARED, VECTOR, floats, intrinsic, place, values, vector

ALIGNED = 16  # bytes; what one instruction loads or stores at most


@intrinsic
def shared(typingctx, count):
    """Return ``count`` floats that the threads of a block share; they begin at 16 bytes."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        kind = ir.ArrayType(FLOAT, count.literal_value)
        name = builder.module.get_unique_name("shared").replace(".", "_")  # for NVVM
        memory = cgutils.add_global_variable(builder.module, kind, name, SHARED)
        memory.align, memory.initializer = ALIGNED, ir.Constant(kind, ir.Undefined)
        anywhere = builder.addrspacecast(memory, kind.as_pointer(), "generic")
        return builder.bitcast(anywhere, FLOAT.as_pointer())

    return floats(count), codegen


@intrinsic
def registers(typingctx, count):
    """Return ``count`` floats of this thread alone.

    They are registers where every index is known when the kernel is compiled: constants, and
    loops of constant length, which are unrolled. Anywhere else they are slow memory; the
    assembler then reports a stack frame.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        memory = cgutils.alloca_once(builder, ir.ArrayType(FLOAT, count.literal_value))
        memory.align = ALIGNED
        return builder.bitcast(memory, FLOAT.as_pointer())

    return floats(count), codegen


@intrinsic
def keep4(typingctx, a, i, four):
    """Set ``a[i : i + 4]`` of `registers`."""

    def codegen(context, builder, signature, args):
        at = place(builder, args[0], args[1], VECTOR)
        builder.store(vector(builder, args[2]), at, align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int32, FOUR), codegen


@intrinsic
def take4(typingctx, a, i):
    """Return ``a[i : i + 4]`` of `registers`."""

    def codegen(context, builder, signature, args):
        loaded = builder.load(place(builder, args[0], args[1], VECTOR), align=4)
        return values(context, builder, loaded)

    return FOUR(floats, types.int32), codegen


@intrinsic
def load4(typingctx, a, i, d, align):
    """Return ``a[i + d : i + d + 4]``.

    Parameters
    ----------
    a : pointer
    i : int32
    d : int64
        Best a constant: it becomes part of the instruction.
    align : 16 or 4, a constant
        Bytes that the address is a multiple of; with 4, four instructions load a value each.
    """
    if not isinstance(align, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        at = place(builder, args[0], args[1], VECTOR, args[2])
        return values(context, builder, builder.load(at, align=align.literal_value))

    return FOUR(floats, types.int32, types.int64, align), codegen


@intrinsic
def load4_if(typingctx, a, i, inside, align):
    """Return ``a[i : i + 4]``, or zeros and without an access if not ``inside``."""
    if not isinstance(align, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        before = builder.block
        with builder.if_then(args[2]):
            at = place(builder, args[0], args[1], VECTOR)
            loaded = builder.load(at, align=align.literal_value)
            there = builder.block
        either = builder.phi(VECTOR)
        either.add_incoming(ir.Constant(VECTOR, [0.0] * 4), before)
        either.add_incoming(loaded, there)
        return values(context, builder, either)

    return FOUR(floats, types.int32, types.boolean, align), codegen


@intrinsic
def store4(typingctx, a, i, four, align):
    """Set ``a[i : i + 4]``; ``align`` as in `load4`."""
    if not isinstance(align, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        at = place(builder, args[0], args[1], VECTOR)
        builder.store(vector(builder, args[2]), at, align=align.literal_value)
        return context.get_dummy_value()

    return types.void(floats, types.int32, FOUR, align), codegen
