"""What happens to the sums of a tile: from integers to real numbers, and to 8 bits again.

`tinyresnext.ops.shapes.conv2d_int8` says which operations these are. Each is done to all lanes of a
vector while the sums are in registers, and each is rounded by itself: multiplications and additions
are not fused, so that every processor computes the same bits.

**Rounding to the nearest even, with an addition.** Numbers of float32 from 2^23 to 2^24 are the
whole numbers there. So the addition of ``2^23 + 2^22`` to a number below 2^22 rounds it, as every
addition is rounded: to the nearest, and to the even one of two. The lowest bits of the result are
then the integer itself. This needs no instruction that only newer processors have.

**Terms.** A kernel has one array of float32 with all that the epilogue reads: `SCALARS` numbers,
and then three rows with a value for each filter, filled up to whole vectors: what the sum begins
with (an integer, as its bits), the factor, and the bias.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from llvmlite import ir

from ...runtime.simd import F32, I32, I64, Emit

Array = np.ndarray
INVERSE, LOW, HIGH, FLOOR, RESIDUAL = range(5)  # places of the scalars
SCALARS = 16  # so that the rows behind them begin with a line of the cache
MAGIC = float(3 << 22)  # 2^23 + 2^22
MAGIC_BITS = 0x4B400000  # of this number
BYTE = ir.IntType(8)


def finished_rows(sums, terms, t_at, apart, residual, wide):
    """Return what becomes of sums ``[rows, filters]``: float32 if ``wide``, else bytes.

    Parameters
    ----------
    sums : int32
    terms : flat float32
    t_at : int
        The first filter's place in each row of ``terms``.
    apart : int
        How far apart these rows are.
    residual : [rows, filters] float32, or None
    wide : bool
    """
    at, filters = SCALARS + t_at, sums.shape[1]
    factor, bias = (terms[at + i * apart : at + i * apart + filters] for i in (1, 2))
    with np.errstate(over="ignore"):
        y = sums.astype(np.float32) * factor + bias
        if residual is not None:
            y = y + residual * terms[RESIDUAL]
        y = np.where(y < terms[FLOOR], terms[FLOOR], y)
        if wide:
            return y.astype(np.float32)
        inside = np.clip(y * terms[INVERSE], terms[LOW], terms[HIGH])
    return np.rint(inside).astype(np.int32).astype(np.uint8)


class Epilogue:
    """Writes the epilogue of a tile at the position of an `Emit`.

    Parameters
    ----------
    e : Emit
    terms : array
        The address of the terms is taken of it.
    vectors : int
        Of the panel.
    """

    def __init__(
        self, e: Emit, terms: ir.Value, t_at: ir.Value, apart: ir.Value, vectors: int
    ) -> None:
        self.e, self.vectors = e, vectors
        self.terms = e.address(terms, I64(0))
        self.first = e.after(self.terms, e.builder.add(t_at, I64(SCALARS)))
        self.apart = apart

    def scalar(self, place: int) -> ir.Value:
        """Return a vector with one of the scalars in all lanes."""
        return self.e.broadcast(self.e.builder.load(self.e.after(self.terms, place)))

    def row(self, which: int) -> list[ir.Value]:
        """Return the vectors of a row of the terms: 0, 1 or 2."""
        begin = self.e.after(self.first, self.e.builder.mul(self.apart, I64(which)))
        return [self.e.load(self.e.after(begin, j * self.e.lanes)) for j in range(self.vectors)]

    def starts(self) -> list[ir.Value]:
        """Return the vectors of integers that sums begin with."""
        whole = ir.VectorType(I32, self.e.lanes)
        return [self.e.builder.bitcast(vector, whole) for vector in self.row(0)]

    def finish(
        self,
        sums: list[ir.Value],
        result: ir.Value,
        residual: ir.Value,
        rest: list[ir.Value],
    ) -> None:
        """Compute all values of a tile, and store them row by row.

        ``rest`` is where the tile begins, the distance between rows, whether to add a residual, 128
        if that is signed, and whether results are float32.
        """
        e, b, (at, pitch, add, other, wide) = self.e, self.e.builder, rest
        places = []
        for i in range(len(sums)):
            r, j = divmod(i, self.vectors)
            row = b.add(at, b.mul(pitch, I64(r)))
            places.append(b.add(row, I64(j * e.lanes)))
        real = self._real(sums)
        read = partial(self._read, residual, places, ir.VectorType(BYTE, e.lanes))
        values = self._floored(self._either(add, real, lambda: self._added(real, read(), other)))
        with b.if_else(b.icmp_signed("!=", wide, I64(0))) as (then, otherwise):
            with then:
                for value, place in zip(self._floored(values), places, strict=True):
                    e.store(value, e.after(result, place))
            with otherwise:
                for value, place in zip(self._rounded(values), places, strict=True):
                    self._store(value, BYTE, result, place)

    def finish_words(
        self,
        sums: list[ir.Value],
        result: ir.Value,
        residual: ir.Value,
        places: list[ir.Value],
        rest: list[ir.Value],
    ) -> None:
        """Compute all values of a tile whose vectors have the bytes of a lane one after the other.

        ``places`` are those of the rows; ``rest`` as for `finish`. Results of float32 are stored
        vector by vector.
        """
        e, b, count, (add, other, wide) = self.e, self.e.builder, self.vectors, rest
        short, whole = ir.IntType(8 * count), ir.VectorType(I32, e.lanes)
        real = self._real(sums)

        def read() -> list[ir.Value]:
            found = self._read(residual, places, ir.VectorType(short, e.lanes))
            low = ir.Constant(whole, [0xFF] * e.lanes)
            return [b.and_(b.lshr(w, shift), low) for w in found for shift in shifts]

        shifts = [ir.Constant(whole, [8 * j] * e.lanes) for j in range(count)]
        values = self._floored(self._either(add, real, lambda: self._added(real, read(), other)))
        with b.if_else(b.icmp_signed("!=", wide, I64(0))) as (then, otherwise):
            with then:
                for i, value in enumerate(self._floored(values)):
                    r, j = divmod(i, count)
                    e.store(value, e.after(result, b.add(places[r], I64(j * e.lanes))))
            with otherwise:
                numbers = self._rounded(values)
                low = ir.Constant(whole, [0xFF] * e.lanes)
                for r, place in enumerate(places):
                    parts = [b.and_(number, low) for number in numbers[r * count : (r + 1) * count]]
                    parts = [b.shl(*pair) for pair in zip(parts, shifts, strict=True)]
                    self._store(functools.reduce(b.or_, parts), short, result, place)

    def _real(self, sums: list[ir.Value]) -> list[ir.Value]:
        """Return the sums as real numbers: times the factor, plus the bias."""
        b, factors, biases = self.e.builder, self.row(1), self.row(2)
        return [
            b.fadd(b.fmul(b.sitofp(value, self.e.vector), factors[j]), biases[j])
            for value, j in zip(sums, cycle(range(self.vectors)), strict=False)
        ]

    def _floored(self, values: list[ir.Value]) -> list[ir.Value]:
        """Return the values, and the floor where it is larger; bytes have it as their lowest."""
        b, floor = self.e.builder, self.scalar(FLOOR)
        return [b.select(b.fcmp_ordered(">", floor, value), floor, value) for value in values]

    def _either(
        self, condition: ir.Value, before: list[ir.Value], made: Callable[[], list[ir.Value]]
    ) -> list[Any]:
        """Return other values where the condition is not zero."""
        b = self.e.builder
        here, more, after = b.block, b.append_basic_block("more"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed("!=", condition, I64(0)), more, after)
        b.position_at_end(more)
        others, end = made(), b.block
        b.branch(after)
        b.position_at_end(after)
        found = [b.phi(self.e.vector) for _ in before]
        for value, old, new in zip(found, before, others, strict=True):
            value.add_incoming(old, here)
            value.add_incoming(new, end)
        return found

    def _read(self, residual: ir.Value, places: list[ir.Value], kind: ir.Type) -> list[ir.Value]:
        """Return vectors of 32 bits, which have the residual's bytes at some places."""
        b, made = self.e.builder, []
        for place in places:
            read = b.load(self._bytes(residual, place, kind))
            read.align = 1
            whole = ir.VectorType(I32, self.e.lanes)
            made.append(read if kind == whole else b.zext(read, whole))
        return made

    def _added(
        self, values: list[ir.Value], numbers: list[ir.Value], other: ir.Value
    ) -> list[ir.Value]:
        """Return the values plus those of the residual, which is bytes in lanes of 32 bits."""
        b, lanes, scale = self.e.builder, self.e.lanes, self.scalar(RESIDUAL)
        whole = ir.VectorType(I32, lanes)
        sign = b.insert_element(ir.Constant(whole, ir.Undefined), b.trunc(other, I32), I32(0))
        sign = b.shuffle_vector(sign, sign, ir.Constant(whole, [0] * lanes))
        made = []
        for value, read in zip(values, numbers, strict=True):
            number = b.sub(b.xor(read, sign), sign)
            made.append(b.fadd(value, b.fmul(b.sitofp(number, self.e.vector), scale)))
        return made

    def _rounded(self, values: list[ir.Value]) -> list[ir.Value]:
        """Return the values as integers of 8 bits, in lanes of 32."""
        e, b, whole = self.e, self.e.builder, ir.VectorType(I32, self.e.lanes)
        inverse, low, high = (self.scalar(which) for which in (INVERSE, LOW, HIGH))
        magic = ir.Constant(e.vector, [ir.Constant(F32, MAGIC)] * e.lanes)
        bits, made = ir.Constant(whole, [MAGIC_BITS] * e.lanes), []
        for value in values:
            y = b.fmul(value, inverse)
            y = b.select(b.fcmp_ordered("<", y, low), low, y)
            y = b.select(b.fcmp_ordered(">", y, high), high, y)
            made.append(b.sub(b.bitcast(b.fadd(y, magic), whole), bits))
        return made

    def _store(self, value: ir.Value, short: ir.Type, result: ir.Value, place: ir.Value) -> None:
        """Store the lower bits of each lane from byte ``place`` on."""
        b, kind = self.e.builder, ir.VectorType(short, self.e.lanes)
        made = value if kind == value.type else b.trunc(value, kind)
        b.store(made, self._bytes(result, place, kind)).align = 1

    def _bytes(self, pointer: ir.Value, place: ir.Value, kind: ir.Type) -> ir.Value:
        """Return the address of a vector that begins at a byte."""
        b = self.e.builder
        begin = b.gep(b.bitcast(pointer, BYTE.as_pointer()), [place])
        return b.bitcast(begin, kind.as_pointer())


def terms_of(scalars: Array, starts: Array, factor: Array, bias: Array, places: Array) -> Array:
    """Lay out the terms.

    Parameters
    ----------
    scalars : [5] float32
    starts : [c_out] int32
    factor, bias : [c_out] float32
    places : [c_out] int
        The place of each filter in a row; what is between them is zero.
    """
    apart = row_of(places)
    made = np.zeros(SCALARS + 3 * apart, np.float32)
    made[: len(scalars)] = scalars
    for which, row in enumerate((starts.view(np.float32), factor, bias)):
        made[SCALARS + which * apart + places] = row
    return made


def row_of(places: Array) -> int:
    """Return the length of a row: the places, filled up to whole vectors."""
    return -(-(int(places.max()) + 1) // 64) * 64
