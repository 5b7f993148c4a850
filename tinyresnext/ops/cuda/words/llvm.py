"""What the words are made of: how an intrinsic is declared, addresses, four values as a vector.

Memory holds float32, float16 or bfloat16, and a word knows which by the type of the pointer:
registers hold float32 only. What is read is widened, which is exact; what is written is rounded to
the nearest number of the memory's type, of two that are as near to the even one. LLVM has no type
for bfloat16 here, so words treat its bits as whole numbers: they are the upper half of a float32.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic as any_intrinsic

intrinsic = any_intrinsic(target="cuda", prefer_literal=True)

floats = types.CPointer(types.float32)
halves = types.CPointer(types.uint16)  # the bits of float16: Numba's own type is emulated in parts
bfloats = types.CPointer(types.int16)  # the bits of bfloat16, which Numba has no type for
octets = types.CPointer(types.uint8)  # bytes, 0 to 255
KINDS = (floats, halves, bfloats, octets)  # kernels name a type to the words by its place here
FOUR = types.UniTuple(types.float32, 4)
FLOAT, VECTOR = ir.FloatType(), ir.VectorType(ir.FloatType(), 4)
HALF = ir.HalfType()
INT16, INT32, INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)

SHARED, GLOBAL = 3, 1  # numbers of address spaces


def place(builder, pointer, index, pointee, further=None):
    """Return the address of ``pointer[index + further]`` as a pointer to ``pointee``.

    ``further`` is added last: where it is a constant, it becomes part of the instruction.
    """
    at = builder.gep(pointer, [index])
    if further is not None:
        at = builder.gep(at, [further])
    return builder.bitcast(at, pointee.as_pointer())


def vector(builder, four):
    """Return four values of a tuple as one vector."""
    made = ir.Constant(VECTOR, ir.Undefined)
    for q in range(4):
        made = builder.insert_element(made, builder.extract_value(four, q), INT32(q))
    return made


def values(context, builder, made):
    """Return the four values of a vector as a tuple."""
    each = [builder.extract_element(made, INT32(q)) for q in range(4)]
    return context.make_tuple(builder, FOUR, each)


def read(builder, at, kind, count, align):
    """Return ``count`` values at an address as a vector of float32.

    Parameters
    ----------
    at : address
        Of any type.
    kind : `floats`, `halves` or `bfloats`
    count : int
    align : 16 or 4
        Bytes that the address would be a multiple of if the values were float32.
    """
    wide = ir.VectorType(FLOAT, count)
    if kind == floats:
        return builder.load(builder.bitcast(at, wide.as_pointer()), align=align)
    narrow = ir.VectorType(HALF if kind == halves else INT16, count)
    if align == 16:  # whole words: one instruction loads them
        words = ir.VectorType(INT32, count // 2)
        whole = builder.load(builder.bitcast(at, words.as_pointer()), align=2 * count)
        loaded = ir.Constant(wide if kind == bfloats else narrow, ir.Undefined)
        for q in range(count):  # a cast of the whole would make a load for each word
            word = builder.extract_element(whole, INT32(q // 2))
            if kind == bfloats:
                one = upper(builder, word) if q % 2 else lower(builder, word)
                loaded = builder.insert_element(loaded, one, INT32(q))
                continue
            pair = builder.bitcast(word, ir.VectorType(HALF, 2))
            one = builder.extract_element(pair, INT32(q % 2))
            loaded = builder.insert_element(loaded, one, INT32(q))
    else:
        loaded = builder.load(builder.bitcast(at, narrow.as_pointer()), align=2)
        if kind == bfloats:
            words = ir.VectorType(INT32, count)
            high = builder.shl(builder.zext(loaded, words), ir.Constant(words, [16] * count))
            return builder.bitcast(high, wide)
    return loaded if loaded.type == wide else builder.fpext(loaded, wide)


def write(builder, at, kind, values, align):
    """Write a vector of float32 to an address; as `read`."""
    count = values.type.count
    if kind == floats:
        builder.store(values, builder.bitcast(at, values.type.as_pointer()), align=align)
        return
    words, one = ir.VectorType(INT32, count // 2), HALF if kind == halves else INT16
    if kind == halves:
        rounded = builder.fptrunc(values, ir.VectorType(HALF, count))
    else:
        rounded = ir.Constant(words, ir.Undefined)
        for q in range(0, count, 2):
            each = [builder.extract_element(values, INT32(i)) for i in (q, q + 1)]
            rounded = builder.insert_element(rounded, packed(builder, *each), INT32(q // 2))
    if align == 16:
        rounded = builder.bitcast(rounded, words)
        builder.store(rounded, builder.bitcast(at, words.as_pointer()), align=2 * count)
    else:
        rounded = builder.bitcast(rounded, ir.VectorType(one, count))
        for q in range(count):
            there = builder.gep(builder.bitcast(at, one.as_pointer()), [INT32(q)])
            builder.store(builder.extract_element(rounded, INT32(q)), there, align=2)


# --- bfloat16 -------------------------------------------------------------------------------------


def lower(builder, word):
    """Return the first of two bfloat16 in a word, as float32."""
    return builder.bitcast(builder.shl(word, INT32(16)), FLOAT)


def upper(builder, word):
    """Return the second of two bfloat16 in a word, as float32."""
    return builder.bitcast(builder.and_(word, INT32(-(1 << 16))), FLOAT)


def packed(builder, first, second):
    """Return a word of two float32, each rounded to bfloat16; from compute capability 8.0 on."""
    kind = ir.FunctionType(INT32, [FLOAT, FLOAT])
    text = "cvt.rn.bf16x2.f32 $0, $1, $2;"
    return builder.asm(kind, text, "=r,f,f", [second, first], False)
