"""What PTX computes and NumPy does not have, or defines otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import vectorize
from numba.core.typing import signature as sig_of
from numba.extending import intrinsic

Array = np.ndarray[Any, Any]


@intrinsic
def fused(typing, a, b, c):
    """Return ``a * b + c`` with one rounding, as LLVM's function does."""

    def generate(context, builder, sig, arguments):
        return builder.fma(*arguments)

    return sig_of(a, a, a, a), generate


@vectorize(["float32(float32, float32, float32)", "float64(float64, float64, float64)"])
def fma(a, b, c):
    """Return ``a * b + c`` with one rounding; a function of arrays like NumPy's own."""
    return fused(a, b, c)


def directed(a: Any, b: Any, c: Any, how: str) -> Array:
    """Return ``a * b + c`` of float32 rounded towards zero (``rz``) or minus infinity (``rm``)."""
    product, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)  # both exact
    total = product + c
    rest = (product - (total - (total - product))) + (c - (total - product))  # what it lacks, exact
    near = total.astype(np.float32)
    above = (near > total) | ((near == total) & (rest < 0))
    if how == "rm":
        none = (total == 0) & (np.signbit(product) | np.signbit(c))
        found = np.where(above, np.nextafter(near, np.float32(-np.inf)), near)
        return np.where(none, np.float32(-0.0), found)
    below = (near < total) | ((near == total) & (rest > 0))
    beyond = np.where(total > 0, above, below)
    return np.where(beyond, np.nextafter(near, np.float32(0)), near)


def flushed(a: Any) -> Array:
    """Return numbers, and zeros with their sign for those below the normal ones (``ftz``)."""
    a = np.asarray(a)
    return np.where(np.abs(a) < np.finfo(a.dtype).tiny, np.copysign(a.dtype.type(0), a), a)


def shift(a: Any, count: Any, left: bool) -> Array:
    """Shift; by as many bits as there are, or more, nothing (or the sign) is left."""
    a = np.asarray(a)
    bits = a.dtype.itemsize * 8
    over, count = count >= bits, np.minimum(count, bits - 1).astype(a.dtype)
    if left:
        return np.where(over, a.dtype.type(0), a << count)
    return np.where(over & (a.dtype.kind == "u"), a.dtype.type(0), a >> count)


def insert(field: Any, into: Any, first: Any, length: Any) -> Array:
    """Return ``into`` with ``length`` bits of a field in place of its own from bit ``first`` on."""
    lowest = shift(np.ones_like(into), length, True) - into.dtype.type(1)
    mask = shift(lowest, first, True)
    return (into & ~mask) | (shift(field, first, True) & mask)


def permute(low: Any, high: Any, selector: Any) -> Array:
    """Return four of the eight bytes of two words: ``prmt`` of the PTX ISA, in its general mode.

    Each hexadecimal digit of the selector, from the last on, chooses a byte: 0 to 3 are those of
    ``low``, 4 to 7 those of ``high``; 8 more repeats the byte's highest bit in its place.
    """
    bytes_of = low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)
    found = np.zeros_like(low)
    for place in range(4):
        digit = selector >> np.uint32(4 * place) & np.uint32(15)
        byte = bytes_of >> ((digit & np.uint32(7)) * np.uint32(8)).astype(np.uint64)
        byte = byte.astype(np.uint32) & np.uint32(255)
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        byte = np.where(digit & np.uint32(8), sign, byte)
        found = found | byte << np.uint32(8 * place)
    return found


def dot_bytes(a: Any, b: Any, total: Any, a_signed: bool, b_signed: bool) -> Array:
    """Return a sum of 32 bits and four products of bytes: ``dp4a`` of the PTX ISA.

    A sum that is too large loses its upper bits.
    """
    made = np.asarray(total).astype(np.int64)
    for place in range(0, 32, 8):
        left, right = (
            (np.asarray(word) >> np.uint32(place)).astype(np.int8 if signed else np.uint8)
            for word, signed in ((a, a_signed), (b, b_signed))
        )
        made = made + left.astype(np.int64) * right
    return made.astype(np.uint32)


def divide(a: Any, b: Any) -> Array:
    """Divide whole numbers towards zero; by zero, the result is all ones, as on a GPU."""
    a, b = np.broadcast_arrays(a, b)
    safe = np.where(b == 0, b.dtype.type(1), b)
    q = a // safe
    if a.dtype.kind == "i":
        q = q + ((q * safe != a) & ((a < 0) != (safe < 0)))
    return np.where(b == 0, np.array(-1).astype(a.dtype), q.astype(a.dtype))


def remainder(a: Any, b: Any) -> Array:
    """Return what division leaves, with the sign of ``a``."""
    return a - divide(a, b) * b


def high(a: Any, b: Any) -> Array:
    """Return the upper half of a product."""
    a, b = np.asarray(a), np.asarray(b)
    bits = a.dtype.itemsize * 8
    wide = object if bits == 64 else np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    product = a.astype(wide) * b.astype(wide) >> bits
    return np.asarray(product & ((1 << bits) - 1)).astype(f"u{bits // 8}").view(a.dtype)


def convert(a: Any, to: np.dtype[Any], how: tuple[str, ...]) -> Array:
    """Convert between types, as ``cvt`` does."""
    a = np.asarray(a)
    whole = {"rni": np.rint, "rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc}
    for name in how:
        if name in whole:
            a = whole[name](a)
    if "sat" in how and to.kind == "f":
        a = np.where(np.isnan(a), 0, np.clip(a, 0, 1))  # PTX: not a number becomes zero
    if to.kind in "iu" and a.dtype.kind == "f":
        limits = np.iinfo(to)
        wide = np.trunc(np.nan_to_num(a.astype(np.float64)))
        made = np.clip(wide, limits.min, limits.max)
        over = made >= float(limits.max)
        made = np.where(over, limits.max, np.where(over, 0, made).astype(to)).astype(to)
        if a.dtype.itemsize == 8 or to.itemsize == 8:  # else not a number becomes 0
            made = np.where(
                np.isnan(a), np.array(1 << limits.bits - 1, f"u{to.itemsize}").view(to), made
            )
        return made
    return a.astype(to)


def bfloat(a: Any) -> Array:
    """Return float32 as bfloat16, as ``cvt.rn`` does: to the nearest, ties to even.

    What is not a number becomes ``0x7FFF``, whatever its bits were.
    """
    a = np.asarray(a, np.float32)
    bits = a.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    made = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return np.where(np.isnan(a), np.uint32(0x7FFF), made)


def two_bfloats(first: Any, second: Any) -> Array:
    """Return a word of two: ``first`` is its lower half."""
    return bfloat(first) | bfloat(second) << np.uint32(16)


def first_bit(a: Any) -> Array:
    """Return the place of the highest bit that is set, or a word of ones if none is."""
    last = np.uint32(a.dtype.itemsize * 8 - 1)
    return np.where(a == 0, np.uint32(0xFFFFFFFF), last - leading_zeros(a))


def shift_of_first_bit(a: Any) -> Array:
    """Return how far the highest bit that is set is from the last place; as `first_bit`."""
    return np.where(a == 0, np.uint32(0xFFFFFFFF), leading_zeros(a))


def count_ones(a: Any) -> Array:
    """Return how many bits are set."""
    bits = np.unpackbits(np.ascontiguousarray(a).view(np.uint8).reshape(len(a), -1), axis=1)
    return bits.sum(1).astype(np.uint32)


def with_sign(sign: Any, size: Any) -> Array:
    """Return numbers of a size with the sign of others, as ``copysign`` of the PTX ISA has them."""
    return np.copysign(size, sign)


def reversed_bits(a: Any) -> Array:
    """Return whole numbers with their bits in the opposite order."""
    bits = np.unpackbits(np.ascontiguousarray(a).view(np.uint8).reshape(len(a), -1), axis=1)
    order = np.packbits(bits[:, ::-1], axis=1)
    return np.ascontiguousarray(order).view(f"u{a.dtype.itemsize}").reshape(-1)


def leading_zeros(a: Any) -> Array:
    """Return how many zeros stand before the first bit that is set."""
    bits = a.dtype.itemsize * 8
    exponent = np.frexp(a.astype(np.float64))[1]
    exponent = np.where(
        a >> np.maximum(exponent - 1, 0).astype(a.dtype) == 0, exponent - 1, exponent
    )
    return (bits - np.maximum(exponent, 0)).astype(np.uint32)  # of 0, frexp says 0
