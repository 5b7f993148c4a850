"""bfloat16: the upper half of a float32, of which two lie in each word of 32 bits.

NumPy and Numba have no such type. Memory holds these numbers as uint16 (`HALVES`), and registers
hold them as float32, which has every one of them exactly: a shift by 16 bits widens. The way back
rounds, to the nearest number and of two that are as near to the even one.

**Two in a word.** The values that a product adds up are neighbours in memory, so a word of 32 bits
(`WORDS`) has two of them: of depth ``2 k`` in its lower half, and of depth ``2 k + 1`` in its upper
half. The tiles load and broadcast words exactly as they load and broadcast float32, and only the
product is another one (`dot`)::

      word of the left     [ a 2k+1 | a 2k ]
      word of the right    [ b 2k+1 | b 2k ]        sum += a 2k * b 2k + a 2k+1 * b 2k+1

Where depth are positions, two values of a word are far apart, and `copies.interleave` brings them
together.

Processors with AVX512-BF16 have one instruction for 16 such words, ``vdpbf16ps``: twice as many
products as the instruction for float32. It counts numbers below 2^-126 as zero.

**Without the instruction** (`multiplies`), taking words apart in the innermost loop costs more than
it saves: two shifts or masks for each value, and more registers than there are. So values are
widened when they are copied to where a tile reads them, weights when they are laid out, and the
tile is that of float32. Products are no faster then, and what lies between layers is still half.

A product of two numbers of 8 bits is exact in float32, so each of both ways rounds its sums only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from ....bfloat16 import rounded
from ....bfloat16 import widened as widened_array
from ..kernel import as_part
from .sizes import F32, I16, I32, has, machine


class BFloat(ir.Type):
    """LLVM's type ``bfloat``, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def multiplies() -> bool:
    """Return whether the processor that Numba compiles for has an instruction for `dot`."""
    return machine().lanes == 16 and has("avx512bf16")


# --- on vectors -----------------------------------------------------------------------------------


def dot(e: Any, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """Emit ``c + a0 * b0 + a1 * b1`` for words ``a`` and ``b``; ``e`` is an `emit.Emit`.

    Without the instruction it is two products of float32, which tests compute with.
    """
    if multiplies():
        pairs = ir.VectorType(BFloat(), 2 * e.lanes)
        kind = ir.FunctionType(e.vector, [e.vector, pairs, pairs])
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        function = cgutils.get_or_insert_function(e.builder.module, kind, name)
        given = [e.builder.bitcast(word, pairs) for word in (a, b)]
        return e.builder.call(function, [c, *given])
    for half in (lower, upper):
        c = e.multiply_add(half(e.builder, a), half(e.builder, b), c)
    return c


def lower(builder: ir.IRBuilder, words: ir.Value) -> ir.Value:
    """Emit the lower halves of a vector of words, as float32."""
    whole = _as(words.type, I32)
    bits = builder.bitcast(words, whole)
    return builder.bitcast(builder.shl(bits, _constant(whole, 16)), words.type)


def upper(builder: ir.IRBuilder, words: ir.Value) -> ir.Value:
    """Emit the upper halves of a vector of words, as float32."""
    whole = _as(words.type, I32)
    bits = builder.bitcast(words, whole)
    return builder.bitcast(builder.and_(bits, _constant(whole, 0xFFFF0000)), words.type)


def widened(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    """Emit the float32 of numbers that memory holds: of one, or of a vector."""
    whole = _as(halves.type, I32)
    bits = builder.shl(builder.zext(halves, whole), _constant(whole, 16))
    return builder.bitcast(bits, _as(halves.type, F32))


def narrowed(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Emit what memory holds of float32: of one number, or of a vector.

    Not-a-number stays so: rounding could carry it over to an infinity, or to zero.
    """
    whole, short = _as(value.type, I32), _as(value.type, I16)
    if multiplies() and getattr(value.type, "count", 0) == 16:
        halves = ir.VectorType(BFloat(), 16)
        kind = ir.FunctionType(halves, [value.type])
        name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.bitcast(builder.call(function, [value]), short)
    bits = builder.bitcast(value, whole)
    high = builder.lshr(bits, _constant(whole, 16))
    odd = builder.and_(high, _constant(whole, 1))
    nearest = builder.add(builder.add(bits, _constant(whole, 0x7FFF)), odd)
    nearest = builder.lshr(nearest, _constant(whole, 16))
    quiet = builder.or_(high, _constant(whole, 0x40))
    found = builder.select(builder.fcmp_unordered("uno", value, value), quiet, nearest)
    return builder.trunc(found, short)


def _as(kind: ir.Type, element: ir.Type) -> ir.Type:
    """Return the type of as many elements as a type has."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(kind: ir.Type, number: int) -> ir.Constant:
    """Return a number, in all lanes where the type is a vector."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count)
    return ir.Constant(kind, number)


# --- on values, for kernels whose arrays may be of either type ------------------------------------


@intrinsic
def _widened(typing, half):
    """Emit `widened` of one number."""

    def codegen(context, builder, signature, args):
        return widened(builder, args[0])

    return types.float32(types.uint16), codegen


@intrinsic
def _narrowed(typing, number):
    """Emit `narrowed` of one number."""

    def codegen(context, builder, signature, args):
        return narrowed(builder, args[0])

    return types.uint16(types.float32), codegen


def value(item):
    """Return what an array has at one place, as float32."""
    return widened_array(item) if item.dtype == np.uint16 else item


def stored(number, array):
    """Return a float32 as an array has it."""
    return rounded(number) if array.dtype == np.uint16 else number


@overload(value, jit_options=as_part(inline=True))
def _value(item):
    """Replace `value` in compiled code."""
    if item == types.uint16:
        return lambda item: _widened(item)
    return lambda item: item


@overload(stored, jit_options=as_part(inline=True))
def _stored(number, array):
    """Replace `stored` in compiled code."""
    if array.dtype == types.uint16:
        return lambda number, array: _narrowed(number)
    return lambda number, array: number
