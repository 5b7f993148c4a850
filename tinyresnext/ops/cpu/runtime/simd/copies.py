"""Copying runs of values, and the memory that kernels work in."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from ....bfloat16 import rounded
from ....bfloat16 import widened as widened_array
from ..kernel import as_part, part
from .bfloat16 import narrowed, stored, value, widened
from .emit import Emit
from .sizes import HALVES, I16, I32, I64, WORDS, machine

Array = np.ndarray
POINTER = ir.IntType(8).as_pointer()


def _moving(source, target, parts):
    """Return signature and code of the copying of a vector, or of the half of one."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder, parts=parts)
        place, to = e.address(args[0], args[1], source), e.address(args[2], args[3], target)
        if source == target:
            e.store(e.load(place), to)
        elif target == HALVES:
            e.store(narrowed(builder, e.load(place)), to)
        else:
            e.store(widened(builder, e.load(place, ir.VectorType(I16, e.lanes))), to)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), codegen


@intrinsic
def _move(typing, source, s, target, t):
    """Emit a load and a store."""
    return _moving(source, target, 1)


@intrinsic
def _move_half(typing, source, s, target, t):
    """Emit a load and a store of half a vector."""
    return _moving(source, target, 2)


def copy(source: Array, s: int, target: Array, t: int, count: int) -> None:
    """Copy ``source[s:s + count]`` to ``target[t:t + count]``, without making slices.

    From bfloat16 to float32 values are widened, the other way they are rounded.
    """
    some = source[s : s + count]
    if source.dtype != target.dtype:
        some = rounded(some) if target.dtype == np.uint16 else widened_array(some)
    target[t : t + count] = some


@overload(copy, jit_options=as_part(inline=True))
def _copy(source, s, target, t, count):
    """Copy vector by vector, where the last overlaps the one before; a short run by values."""
    converts, lanes = source.dtype != target.dtype, machine().lanes
    whole = lanes if converts else lanes * 4 // (target.dtype.bitwidth // 8)
    half = whole // 2

    def emitted(source, s, target, t, count):
        if count >= whole:
            for q in range(0, count - whole, whole):
                _move(source, s + q, target, t + q)
            _move(source, s + count - whole, target, t + count - whole)
        elif count >= half:
            _move_half(source, s, target, t)
            _move_half(source, s + count - half, target, t + count - half)
        else:
            for q in range(count):
                target[t + q] = stored(value(source[s + q]), target) if converts else source[s + q]

    return emitted


@intrinsic
def _zip(typing, source, s, t, target, at):
    """Emit two loads, a shuffle and a store."""

    def codegen(context, builder, signature, args):
        e = Emit(context, builder)
        kind = ir.VectorType(I16, e.lanes)
        places = [e.address(args[0], start, HALVES) for start in args[1:3]]
        both = [e.load(place, kind) for place in places]
        turns = [lane // 2 + lane % 2 * e.lanes for lane in range(2 * e.lanes)]
        order = ir.Constant(ir.VectorType(I32, 2 * e.lanes), turns)
        words = builder.shuffle_vector(*both, order)
        e.store(words, e.address(args[3], args[4], WORDS))
        return context.get_dummy_value()

    i = types.intp
    return types.void(HALVES, i, i, WORDS, i), codegen


def interleave(source: Array, s: int, t: int, target: Array, at: int, count: int) -> None:
    """Make words of bfloat16 from ``s`` on, their lower halves, and from ``t`` on, their upper.

    Whole vectors are read and written, so up to ``lanes - 1`` values too many.
    """
    count = -(-count // machine().lanes) * machine().lanes
    lower, upper = (source[i : i + count].astype(np.uint32) for i in (s, t))
    target[at : at + count] = lower | upper << 16


@overload(interleave, jit_options=as_part(inline=True))
def _interleave(source, s, t, target, at, count):
    """Replace `interleave` in compiled code."""
    lanes = machine().lanes

    def emitted(source, s, t, target, at, count):
        for q in range(0, count, lanes):
            _zip(source, s + q, t + q, target, at + q)

    return emitted


# --- working memory -------------------------------------------------------------------------------


def flat_array(
    context: Any,
    builder: ir.IRBuilder,
    kind: Any,
    data: ir.Value,
    size: ir.Value,
    meminfo: ir.Value | None = None,
) -> ir.Value:
    """Emit a flat array, as Numba represents it, around memory that ``meminfo`` or nobody owns."""
    itemsize = I64(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    made, none = context.make_array(kind)(context, builder), ir.Constant(POINTER, None)
    made.meminfo, made.parent = none if meminfo is None else meminfo, none
    made.data, made.nitems, made.itemsize = data, size, itemsize
    made.shape, made.strides = (
        cgutils.pack_array(builder, [size]),
        cgutils.pack_array(builder, [itemsize]),
    )
    return made._getvalue()


def working(size, dtype):
    """Return working memory that begins at a cache line, so that no vector crosses two lines."""
    raw = np.empty(size + 64, dtype)
    skip = -raw.ctypes.data % 64 // raw.itemsize
    return raw[skip : skip + size]


@intrinsic
def _allocated(typing, size, dtype):
    """Emit `working`.

    Code that calls NumPy's ``empty`` makes every process that loads it import a twentieth of Numba.
    """
    kind = types.Array(dtype.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        item = context.get_data_type(kind.dtype)
        count = builder.mul(args[0], I64(context.get_abi_sizeof(item)))
        meminfo = context.nrt.meminfo_alloc_aligned(builder, count, 64)
        data = builder.bitcast(context.nrt.meminfo_data(builder, meminfo), item.as_pointer())
        return flat_array(context, builder, kind, data, args[0], meminfo)

    return kind(types.intp, dtype), codegen


@overload(working, jit_options=as_part(inline=True))
def _working(size, dtype):
    """Replace `working` in compiled code."""
    return lambda size, dtype: _allocated(size, dtype)


def seen_as(array, other):
    """Return the memory of an array as an array of the type of another: what is fetched early."""
    return array


@intrinsic
def _seen_as(typing, array, other):
    """Emit `seen_as`."""

    def codegen(context, builder, signature, args):
        there = context.make_array(array)(context, builder, args[0])
        item = context.get_data_type(other.dtype).as_pointer()
        data = builder.bitcast(there.data, item)
        return flat_array(context, builder, other, data, there.nitems)

    return other(array, other), codegen


@overload(seen_as, jit_options=as_part(inline=True))
def _seen(array, other):
    """Replace `seen_as` in compiled code."""
    return lambda array, other: _seen_as(array, other)


@part()
def aligned(size):
    """Return `working` memory for float32."""
    return working(size, np.float32)


@part()
def aligned_like(array, size):
    """Return `working` memory for values of the type that an array has."""
    return working(size, array.dtype)
