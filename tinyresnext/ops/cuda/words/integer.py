"""Integers of 8 bits: products of four pairs at once, and what becomes of their sums.

`dp4a` is an instruction of every GPU from compute capability 6.1 on: of two words it multiplies the
four bytes of one with those of the other, and adds the products to a sum of 32 bits. That is exact.
What follows is float32, and each operation is rounded by itself, as `shapes.integer` says: `.rn` in
the instruction forbids the compiler to fuse a multiplication with an addition.

To round to an integer, `3 * 2^22` is added: numbers of float32 from 2^23 to 2^24 are the whole
numbers there, and the lowest bits of the sum are the integer's own.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from .llvm import FLOAT, FOUR, INT32, VECTOR, floats, intrinsic, place, vector

WORDS, FOUR_WORDS = types.UniTuple(types.int32, 4), ir.VectorType(INT32, 4)
MAGIC = FLOAT(float(3 << 22))


@intrinsic
def words4(typingctx, s, i, d):
    """Return the four words at ``s[i + d]``, which begin at a multiple of 16 bytes."""

    def codegen(context, builder, signature, args):
        loaded = builder.load(place(builder, args[0], args[1], FOUR_WORDS, args[2]), align=16)
        each = [builder.extract_element(loaded, INT32(q)) for q in range(4)]
        return context.make_tuple(builder, WORDS, each)

    return WORDS(floats, types.int32, types.int64), codegen


@intrinsic
def word_if(typingctx, x, i, inside):
    """Return the word at ``x[i]``, or zero and without an access if not ``inside``."""

    def codegen(context, builder, signature, args):
        before = builder.block
        with builder.if_then(args[2]):
            loaded = builder.load(place(builder, args[0], args[1], INT32), align=4)
            there = builder.block
        either = builder.phi(INT32)
        either.add_incoming(INT32(0), before)
        either.add_incoming(loaded, there)
        return either

    return types.int32(floats, types.int32, types.boolean), codegen


@intrinsic
def put_word(typingctx, y, i, word):
    """Set the word at ``y[i]``, of memory or of `registers`."""

    def codegen(context, builder, signature, args):
        builder.store(args[2], place(builder, args[0], args[1], INT32), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.int32, types.int32), codegen


@intrinsic
def dot4(typingctx, sums, i, a, j, four, signed):
    """Add products of four bytes to each of four sums: ``sums[i + q] += a[j] . four[q]``.

    Parameters
    ----------
    sums, a : `registers`
        Of words.
    four : four words
        Bytes with a sign.
    signed : 0 or 1, a constant
        Whether the bytes of ``a[j]`` have a sign.
    """
    if not isinstance(signed, types.IntegerLiteral):
        return None
    text = f"dp4a.{'s32' if signed.literal_value else 'u32'}.s32 $0, $1, $2, $3;"

    def codegen(context, builder, signature, args):
        sums, i, a, j, four, _ = args
        at = place(builder, sums, i, FOUR_WORDS)
        word = builder.load(place(builder, a, j, INT32), align=4)
        before, made = builder.load(at, align=4), ir.Constant(FOUR_WORDS, ir.Undefined)
        kind = ir.FunctionType(INT32, [INT32] * 3)
        for q in range(4):
            total = builder.extract_element(before, INT32(q))
            given = [word, builder.extract_value(four, q), total]
            total = builder.asm(kind, text, "=r,r,r,r", given, False)
            made = builder.insert_element(made, total, INT32(q))
        builder.store(made, at, align=4)
        return context.get_dummy_value()

    kinds = floats, types.int32, floats, types.int32, WORDS, signed
    return types.void(*kinds), codegen


# --- behind the sums ------------------------------------------------------------------------------


@intrinsic
def finished4(typingctx, sums, i, factor, bias):
    """Return ``float32(sums[i + q]) * factor[q] + bias[q]``, of four sums."""

    def codegen(context, builder, signature, args):
        sums, i, factor, bias = args
        totals = builder.load(place(builder, sums, i, FOUR_WORDS), align=4)
        each = []
        for q in range(4):
            total = builder.extract_element(totals, INT32(q))
            y = _rounded(builder, "mul", builder.sitofp(total, FLOAT), _of(builder, factor, q))
            each.append(_rounded(builder, "add", y, _of(builder, bias, q)))
        return context.make_tuple(builder, FOUR, each)

    return FOUR(floats, types.int32, FOUR, FOUR), codegen


@intrinsic
def added4(typingctx, y, word, sign, scale):
    """Return ``y[q] + float32(byte q of word) * scale``; ``sign`` is 128 if bytes have one."""

    def codegen(context, builder, signature, args):
        y, word, sign, scale = args
        each = []
        for q in range(4):
            byte = builder.and_(builder.lshr(word, INT32(8 * q)), INT32(255))
            byte = builder.sub(builder.xor(byte, sign), sign)
            more = _rounded(builder, "mul", builder.sitofp(byte, FLOAT), scale)
            each.append(_rounded(builder, "add", _of(builder, y, q), more))
        return context.make_tuple(builder, FOUR, each)

    return FOUR(FOUR, types.int32, types.int32, types.float32), codegen


@intrinsic
def bytes4(typingctx, y, inverse, low, high):
    """Return four numbers times ``inverse`` as the bytes of a word; what is beyond is an end."""

    def codegen(context, builder, signature, args):
        y, *ends = args
        inverse, low, high = (
            builder.shuffle_vector(
                builder.insert_element(ir.Constant(VECTOR, ir.Undefined), one, INT32(0)),
                ir.Constant(VECTOR, ir.Undefined),
                ir.Constant(FOUR_WORDS, [0] * 4),
            )
            for one in ends
        )
        bits = _byte(builder, vector(builder, y), inverse, low, high)
        bits = builder.shl(bits, ir.Constant(FOUR_WORDS, [0, 8, 16, 24]))
        each = [builder.extract_element(bits, INT32(q)) for q in range(4)]
        return builder.or_(builder.or_(*each[:2]), builder.or_(*each[2:]))

    return types.int32(FOUR, *[types.float32] * 3), codegen


@intrinsic
def byte(typingctx, y, inverse, low, high):
    """Return ``y * inverse`` rounded to an integer as its byte: 0 to 255, in float32."""

    def codegen(context, builder, signature, args):
        return builder.uitofp(_byte(builder, *args), FLOAT)

    return types.float32(*[types.float32] * 4), codegen


@intrinsic
def multiplied(typingctx, a, b):
    """Return ``a * b``, rounded by itself."""

    def codegen(context, builder, signature, args):
        return _rounded(builder, "mul", *args)

    return types.float32(types.float32, types.float32), codegen


@intrinsic
def added(typingctx, a, b):
    """Return ``a + b``, rounded by itself."""

    def codegen(context, builder, signature, args):
        return _rounded(builder, "add", *args)

    return types.float32(types.float32, types.float32), codegen


def _of(builder, four, q):
    """Return one value of a tuple."""
    return builder.extract_value(four, q)


def _rounded(builder, op, a, b):
    """Return ``a * b`` or ``a + b``; it is not fused with what comes before or after."""
    kind = ir.FunctionType(FLOAT, [FLOAT] * 2)
    return builder.asm(kind, f"{op}.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], False)


def _byte(builder, y, inverse, low, high):
    """Return ``y * inverse``, within the ends, rounded to the nearest even, as a byte in 32 bits.

    All may be vectors. Nothing can be fused here: the ends lie between the two operations.
    """
    y = builder.fmul(y, inverse)
    y = builder.select(builder.fcmp_ordered("<", y, low), low, y)
    y = builder.select(builder.fcmp_ordered(">", y, high), high, y)
    several = isinstance(y.type, ir.VectorType)
    magic = ir.Constant(VECTOR, [MAGIC] * 4) if several else MAGIC
    mask = ir.Constant(FOUR_WORDS, [255] * 4) if several else INT32(255)
    bits = builder.bitcast(builder.fadd(y, magic), FOUR_WORDS if several else INT32)
    return builder.and_(bits, mask)
