"""The sizes of the processor that Numba compiles for, and the types of LLVM and Numba."""

from __future__ import annotations

import functools
from typing import NamedTuple

from llvmlite import ir
from numba.core import types
from numba.core.registry import cpu_target

F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def flat_of(dtype: str) -> types.Array:
    """Return the type of an array of a kernel, all of which are flat and contiguous."""
    return types.Array(getattr(types, dtype), 1, "C")


FLOATS, HALVES, WORDS = map(flat_of, ("float32", "uint16", "uint32"))  # see `bfloat16`


class Machine(NamedTuple):
    """The sizes of the processor that decide the shape of the register tiles.

    Attributes
    ----------
    lanes : int
        float32 values in one vector.
    registers : int
        Vector registers.
    half : int
        Rows of the lower of the two register tiles; the other has twice as many. See `gemm`.
    """

    lanes: int
    registers: int
    half: int


@functools.cache
def machine() -> Machine:
    """Return the sizes of the processor that Numba compiles for (see ``NUMBA_CPU_FEATURES``)."""
    triple, _, _ = cpu_target.target_context.codegen().magic_tuple()
    if has("avx512f"):
        return Machine(16, 32, 7)
    if has("avx"):
        return Machine(8, 16, 3)
    # SSE and NEON have vectors of four; AArch64, POWER and RISC-V have 32 of them, x86 and 32-bit
    # ARM have 16.
    return (
        Machine(4, 32, 7)
        if triple.startswith(("aarch64", "arm64", "ppc", "riscv64"))
        else Machine(4, 16, 3)
    )


def has(feature: str) -> bool:
    """Return whether the processor that Numba compiles for has a feature, as LLVM names it."""
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
