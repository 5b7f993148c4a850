"""Shared memory, arrays in registers, and 16 bytes at once."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from .llvm import (
    FLOAT,
    FOUR,
    HALF,
    INT16,
    INT32,
    KINDS,
    SHARED,
    VECTOR,
    bfloats,
    floats,
    halves,
    intrinsic,
    lower,
    octets,
    packed,
    place,
    read,
    values,
    vector,
    write,
)

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
def get(typingctx, a, i):
    """Return ``a[i]`` as float32."""

    def codegen(context, builder, signature, args):
        at = builder.gep(args[0], [args[1]])
        if a == floats:
            return builder.load(at)
        if a == bfloats:
            return lower(builder, builder.zext(builder.load(at), INT32))
        if a == octets:
            return builder.uitofp(builder.load(at), FLOAT)
        return builder.fpext(builder.load(builder.bitcast(at, HALF.as_pointer())), FLOAT)

    return types.float32(a, types.int32), codegen


@intrinsic
def put(typingctx, a, i, value):
    """Set ``a[i]`` to a float32, rounded to what the memory holds."""

    def codegen(context, builder, signature, args):
        at, made = builder.gep(args[0], [args[1]]), args[2]
        if a == halves:
            at, made = builder.bitcast(at, HALF.as_pointer()), builder.fptrunc(made, HALF)
        if a == bfloats:
            made = builder.trunc(packed(builder, made, FLOAT(0.0)), INT16)
        if a == octets:  # a whole number from 0 to 255
            made = builder.trunc(builder.fptoui(made, INT32), at.type.pointee)
        builder.store(made, at)
        return context.get_dummy_value()

    return types.void(a, types.int32, types.float32), codegen


@intrinsic
def put2(typingctx, a, i, first, second):
    """Set ``a[i]`` and ``a[i + 1]`` of 16 bits at once, both rounded; ``i`` is even."""

    def codegen(context, builder, signature, args):
        if a == bfloats:
            word = packed(builder, args[2], args[3])
        else:
            pair = ir.Constant(ir.VectorType(FLOAT, 2), ir.Undefined)
            for q in range(2):
                pair = builder.insert_element(pair, args[2 + q], INT32(q))
            word = builder.bitcast(builder.fptrunc(pair, ir.VectorType(HALF, 2)), INT32)
        builder.store(word, place(builder, args[0], args[1], INT32), align=4)
        return context.get_dummy_value()

    return types.void(a, types.int32, types.float32, types.float32), codegen


@intrinsic
def load2(typingctx, a, i):
    """Return ``a[i]`` and ``a[i + 1]`` of a table of int32; ``i`` is even."""

    def codegen(context, builder, signature, args):
        at = builder.gep(args[0], [args[1]])
        two = builder.load(builder.bitcast(at, ir.VectorType(INT32, 2).as_pointer()), align=8)
        each = [builder.extract_element(two, INT32(q)) for q in range(2)]
        return context.make_tuple(builder, signature.return_type, each)

    return types.UniTuple(types.int32, 2)(a, types.int32), codegen


@intrinsic
def load4(typingctx, a, i, d, align):
    """Return ``a[i + d : i + d + 4]``.

    Parameters
    ----------
    a : pointer
        To float32, float16 or bfloat16.
    i : int32
    d : int64
        Best a constant: it becomes part of the instruction.
    align : 16 or 4, a constant
        Bytes that the address is a multiple of, half as many for 16 bits; with 4, four
        instructions load a value each.
    """
    if not isinstance(align, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        at = builder.gep(builder.gep(args[0], [args[1]]), [args[2]])
        return values(context, builder, read(builder, at, a, 4, align.literal_value))

    return FOUR(a, types.int32, types.int64, align), codegen


@intrinsic
def load4_if(typingctx, a, i, inside, align):
    """Return ``a[i : i + 4]``, or zeros and without an access if not ``inside``."""
    if not isinstance(align, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        before = builder.block
        with builder.if_then(args[2]):
            at = builder.gep(args[0], [args[1]])
            loaded = read(builder, at, a, 4, align.literal_value)
            there = builder.block
        either = builder.phi(loaded.type)
        either.add_incoming(ir.Constant(loaded.type, [0.0] * 4), before)
        either.add_incoming(loaded, there)
        return values(context, builder, either)

    return FOUR(a, types.int32, types.boolean, align), codegen


@intrinsic
def store4(typingctx, a, i, four, align):
    """Set ``a[i : i + 4]``; ``align`` as in `load4`."""
    if not isinstance(align, types.IntegerLiteral):
        return None

    def codegen(context, builder, signature, args):
        at = builder.gep(args[0], [args[1]])
        write(builder, at, a, vector(builder, args[2]), align.literal_value)
        return context.get_dummy_value()

    return types.void(a, types.int32, FOUR, align), codegen


@intrinsic
def typed(typingctx, a, which):
    """Return the address of float32 as one of values of another type: a place in `KINDS`."""
    if not isinstance(which, types.IntegerLiteral):
        return None
    kind = KINDS[which.literal_value]

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(kind))

    return kind(floats, which), codegen
