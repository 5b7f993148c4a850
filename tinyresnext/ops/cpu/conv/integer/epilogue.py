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

import numpy as np
from llvmlite import ir

from ...runtime.simd import F32, I32, I64, Emit

Array = np.ndarray
INVERSE, LOW, HIGH, FLOOR, RESIDUAL = range(5)  # places of the scalars
SCALARS = 16  # so that the rows behind them begin with a line of the cache
MAGIC = float(3 << 22)  # 2^23 + 2^22
MAGIC_BITS = 0x4B400000  # of this number
POINTER = ir.IntType(8).as_pointer()


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


def starts(e: Emit, terms: ir.Value, t_at: ir.Value, vectors: int) -> list[ir.Value]:
    """Return the vectors of integers that the sums of a row begin with."""
    first = e.after(e.address(terms, t_at), SCALARS)
    whole = ir.VectorType(I32, e.lanes)
    return [e.load(e.after(first, j * e.lanes), whole) for j in range(vectors)]


class Epilogue:
    """Writes the epilogue of a tile at the position of an `Emit`, behind the loop.

    Parameters
    ----------
    e : Emit
    terms : array
        The address of the terms is taken of it.
    vectors : int
        Of a row.
    packed : bool
        Whether the bytes of a lane, one of each of these vectors, are neighbours in memory; else
        those of a vector are.
    """

    def __init__(
        self,
        e: Emit,
        terms: ir.Value,
        t_at: ir.Value,
        apart: ir.Value,
        vectors: int,
        packed: bool = False,
    ) -> None:
        self.e, self.vectors, self.packed = e, vectors, packed
        scalars, first = e.address(terms, I64(0)), e.after(e.address(terms, t_at), SCALARS)
        rows = [e.after(first, e.builder.mul(apart, I64(which))) for which in (1, 2)]
        self.factors, self.biases = (
            [e.load(e.after(row, j * e.lanes)) for j in range(vectors)] for row in rows
        )
        # Each in all lanes.
        self.scalars = [
            e.broadcast(e.builder.load(e.after(scalars, place))) for place in range(RESIDUAL + 1)
        ]

    def finish(
        self,
        sums: list[ir.Value],
        result: ir.Value,
        residual: ir.Value,
        places: list[ir.Value],
        rest: list[ir.Value],
    ) -> None:
        """Compute all values of a tile, and store them row by row.

        Parameters
        ----------
        places : list
            Where each row begins.
        rest : list
            Whether to add a residual, 128 if that is signed, and whether results are float32; these
            are stored vector by vector.
        """
        e, b, count, (add, other, wide) = self.e, self.e.builder, self.vectors, rest

        def store(adds: bool, floats: bool) -> None:
            for r, place in enumerate(places):
                values = self._real(sums[r * count : (r + 1) * count])
                if adds:
                    values = self._added(values, self._read(residual, place), other)
                if floats:
                    for j, value in enumerate(self._floored(values)):
                        e.store(value, e.after(result, b.add(place, I64(j * e.lanes))))
                else:
                    self._write(self._rounded(values), result, place)

        self._in_cases(store, add, wide)

    def _in_cases(self, store: Callable[[bool, bool], None], add: ir.Value, wide: ir.Value) -> None:
        """Emit what stores the rows: with a residual or without, as float32 or as bytes.

        Each row is stored before the residual of the next one is loaded, and in a case of its own:
        LLVM would load all of a residual first, for which there are not enough registers.
        """
        b = self.e.builder
        adds, floats = (b.icmp_signed("!=", flag, I64(0)) for flag in (add, wide))
        with b.if_else(floats) as branches:
            for is_wide, branch in zip((True, False), branches, strict=True):
                with branch, b.if_else(adds) as (then, otherwise):
                    with then:
                        store(True, is_wide)
                    with otherwise:
                        store(False, is_wide)

    def _real(self, sums: list[ir.Value]) -> list[ir.Value]:
        """Return the sums of a row as real numbers: times the factor, plus the bias."""
        b = self.e.builder
        terms = zip(sums, self.factors, self.biases, strict=True)
        return [b.fadd(b.fmul(b.sitofp(n, self.e.vector), f), bias) for n, f, bias in terms]

    def _read(self, residual: ir.Value, place: ir.Value) -> list[ir.Value]:
        """Return the residual's bytes of a row, each in a lane of 32 bits."""
        b, whole = self.e.builder, ir.VectorType(I32, self.e.lanes)
        made = []
        for address in self._bytes(residual, place):
            read = b.load(address)
            read.align = 1
            made.append(read if read.type == whole else b.zext(read, whole))
        if not self.packed:
            return made
        low = ir.Constant(whole, [0xFF] * self.e.lanes)
        return [b.and_(b.lshr(made[0], shift), low) for shift in self._shifts()]

    def _added(
        self, values: list[ir.Value], numbers: list[ir.Value], other: ir.Value
    ) -> list[ir.Value]:
        """Return the values plus those of the residual, which is bytes in lanes of 32 bits."""
        b, lanes, scale = self.e.builder, self.e.lanes, self.scalars[RESIDUAL]
        whole = ir.VectorType(I32, lanes)
        sign = b.insert_element(ir.Constant(whole, ir.Undefined), b.trunc(other, I32), I32(0))
        sign = b.shuffle_vector(sign, sign, ir.Constant(whole, [0] * lanes))
        made = []
        for value, read in zip(values, numbers, strict=True):
            number = b.sub(b.xor(read, sign), sign)
            made.append(b.fadd(value, b.fmul(b.sitofp(number, self.e.vector), scale)))
        return made

    def _floored(self, values: list[ir.Value]) -> list[ir.Value]:
        """Return the values, and the floor where it is larger; bytes have it as their lowest."""
        b, floor = self.e.builder, self.scalars[FLOOR]
        return [b.select(b.fcmp_ordered(">", floor, value), floor, value) for value in values]

    def _rounded(self, values: list[ir.Value]) -> list[ir.Value]:
        """Return the values as integers of 8 bits, in lanes of 32."""
        e, b, whole = self.e, self.e.builder, ir.VectorType(I32, self.e.lanes)
        inverse, low, high = (self.scalars[which] for which in (INVERSE, LOW, HIGH))
        magic = ir.Constant(e.vector, [ir.Constant(F32, MAGIC)] * e.lanes)
        bits, made = ir.Constant(whole, [MAGIC_BITS] * e.lanes), []
        for value in values:
            y = b.fmul(value, inverse)
            y = b.select(b.fcmp_ordered("<", y, low), low, y)
            y = b.select(b.fcmp_ordered(">", y, high), high, y)
            made.append(b.sub(b.bitcast(b.fadd(y, magic), whole), bits))
        return made

    def _write(self, numbers: list[ir.Value], result: ir.Value, place: ir.Value) -> None:
        """Store the lowest bytes of a row's lanes."""
        b, whole = self.e.builder, ir.VectorType(I32, self.e.lanes)
        if self.packed:
            low = ir.Constant(whole, [0xFF] * self.e.lanes)
            parts = zip((b.and_(n, low) for n in numbers), self._shifts(), strict=True)
            numbers = [functools.reduce(b.or_, [b.shl(*part) for part in parts])]
        for number, address in zip(numbers, self._bytes(result, place), strict=True):
            kind = address.type.pointee
            made = number if kind == whole else b.trunc(number, kind)
            b.store(made, address).align = 1

    def _shifts(self) -> list[ir.Constant]:
        """Return how far each vector's bytes are from the lowest bits of a lane."""
        whole = ir.VectorType(I32, self.e.lanes)
        return [ir.Constant(whole, [8 * j] * self.e.lanes) for j in range(self.vectors)]

    def _bytes(self, pointer: ir.Value, place: ir.Value) -> list[ir.Value]:
        """Return the addresses of a row's vectors of bytes; of one vector, if they are packed."""
        b, lanes = self.e.builder, self.e.lanes
        count, size = (1, self.vectors) if self.packed else (self.vectors, 1)
        kind, begin = ir.VectorType(ir.IntType(8 * size), lanes), b.bitcast(pointer, POINTER)
        places = [b.add(place, I64(j * lanes)) for j in range(count)]
        return [b.bitcast(b.gep(begin, [at]), kind.as_pointer()) for at in places]


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
