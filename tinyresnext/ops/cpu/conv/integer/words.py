"""Words: the few integers that one lane of a vector multiplies at once, and the instruction.

A vector of float32 has a number in each lane of 32 bits, and multiplies and adds one number there.
Integers are shorter, so a lane holds several: it multiplies them in pairs and adds the products to
one sum of 32 bits. A lane's integers together are called a *word* here::

    instruction    word           values of the left        of the right    processors
    vpdpbusd       4 x 8 bits     0 to 255                  -128 to 127     AVX-512 VNNI, AVX-VNNI
    pmaddwd        2 x 16 bits    -32768 to 32767           the same        most x86-64
    none           2 x 16 bits    the same                  the same        every other

    a word of the left       [ a0 | a1 | a2 | a3 ]
    a word of the right      [ b0 | b1 | b2 | b3 ]
    the sum of the lane      sum + a0*b0 + a1*b1 + a2*b2 + a3*b3        (with two ways: a0, a1)

All of them are exact. There is a third instruction on x86, ``pmaddubsw``, for words of four without
VNNI. It is not used: it adds two products in 16 bits, where 2 * 255 * 127 has no room, and what is
too large there becomes the largest number, and nothing says so.

Where no instruction is known, the same is written as LLVM's own multiplications of vectors, from
which LLVM makes NEON's, or those of any other processor.

**Signed values where four are taken.** The left of ``vpdpbusd`` has no sign. Values of -127 to 127
are stored there with 128 added, and each sum begins with ``-128 * (sum of the weights)``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import overload

from ...runtime.kernel import as_part
from ...runtime.simd import I32, Emit, machine

_MADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}
OFFSET = 128  # added to signed values on the left of `vpdpbusd`


class Words(NamedTuple):
    """How the processor multiplies integers.

    Attributes
    ----------
    ways : int
        Integers of a word: 4 of 8 bits, or 2 of 16 bits.
    instruction : str
        ``vpdpbusd``, ``pmaddwd`` or ``none``.
    """

    ways: int
    instruction: str


@functools.cache
def words() -> Words:
    """Return how the processor that Numba compiles for multiplies integers."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return words_of(triple, features.split(","), machine().lanes)


def words_of(triple: str, features: list[str], lanes: int) -> Words:
    """Return how a processor multiplies integers, given LLVM's names for it and its vectors."""
    if not triple.startswith(("x86_64", "i686")):
        return Words(2, "none")
    if {16: "+avx512vnni", 8: "+avxvnni"}.get(lanes) in features:
        return Words(4, "vpdpbusd")
    # Of integers, AVX has vectors of four lanes only, and the first AVX-512 vectors of eight.
    needed = {16: "+avx512bw", 8: "+avx2", 4: "+sse2"}[lanes]
    return Words(2, "pmaddwd" if needed in features else "none")


def dot(e: Emit, sums: ir.Value, left: ir.Value, right: ir.Value, how: Words) -> ir.Value:
    """Emit the sums of all lanes plus the products of two vectors of words."""
    b, whole = e.builder, ir.VectorType(I32, e.lanes)
    if how.instruction == "vpdpbusd":
        name = f"llvm.x86.avx512.vpdpbusd.{32 * e.lanes}"
        kind = ir.FunctionType(whole, [whole] * 3)
        return b.call(cgutils.get_or_insert_function(b.module, kind, name), [sums, left, right])
    short = ir.VectorType(ir.IntType(32 // how.ways), how.ways * e.lanes)
    left, right = b.bitcast(left, short), b.bitcast(right, short)
    if how.instruction == "pmaddwd":
        kind = ir.FunctionType(whole, [short] * 2)
        function = cgutils.get_or_insert_function(b.module, kind, _MADD[e.lanes])
        return b.add(sums, b.call(function, [left, right]))
    long = ir.VectorType(I32, how.ways * e.lanes)
    products = b.mul((b.zext if how.ways == 4 else b.sext)(left, long), b.sext(right, long))
    for way in range(how.ways):
        lanes = [lane * how.ways + way for lane in range(e.lanes)]
        mask = ir.Constant(ir.VectorType(I32, e.lanes), lanes)
        sums = b.add(sums, b.shuffle_vector(products, products, mask))
    return sums


def plain_dot(sums: Any, left: Any, right: Any, how: Words) -> Any:
    """Return what `dot` emits, for arrays of words (int32) of any shape: its exact meaning."""
    kinds = (np.uint8, np.int8) if how.ways == 4 else (np.int16, np.int16)
    a, b = (
        np.ascontiguousarray(words).view(kind).reshape(*words.shape, how.ways).astype(np.int64)
        for words, kind in zip((left, right), kinds, strict=True)
    )
    return (sums + (a * b).sum(-1)).astype(np.int32)


# --- from bytes to words --------------------------------------------------------------------------


def widen(source, s, target, t, count, sign, offset):
    """Copy ``count`` bytes from ``source[s:]`` to ``target[t:]``, as the numbers that they mean.

    Parameters
    ----------
    source : uint8
    target : int16, or uint8 for words of four
    sign : 128 where the bytes are of signed numbers, else 0
    offset : int
        What is added.
    """
    values = source[s : s + count].astype(np.int32)
    target[t : t + count] = ((values ^ sign) - sign + offset).astype(target.dtype)


@overload(widen, jit_options=as_part(inline=True))
def _widen(source, s, target, t, count, sign, offset):
    """Copy value by value, of which LLVM makes vectors."""

    def compiled(source, s, target, t, count, sign, offset):
        begin, to = np.uintp(s), np.uintp(t)
        less, more = np.int16(sign), np.int16(offset)
        for q in range(np.uintp(count)):
            target[to + q] = ((source[begin + q] ^ less) - less) + more

    return compiled


def move(source, s, target, t, count):
    """Copy ``count`` bytes."""
    target[t : t + count] = source[s : s + count]


@overload(move, jit_options=as_part(inline=True))
def _move(source, s, target, t, count):
    """Copy byte by byte, of which LLVM makes vectors."""

    def compiled(source, s, target, t, count):
        begin, to = np.uintp(s), np.uintp(t)
        for q in range(np.uintp(count)):
            target[to + q] = source[begin + q]

    return compiled
