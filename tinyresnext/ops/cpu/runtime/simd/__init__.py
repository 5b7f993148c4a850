"""Vectors: how many the processor has and how long they are, and the few instructions on them.

Numba turns Python loops into machine code through LLVM, and LLVM usually finds out by itself which
loops can be computed in vectors. It does not find the arrangement that a matrix product needs, in
which two dozen sums stay in registers all the time. So the innermost loops of this backend
(`gemm.tile`, `wide.tile` and `narrow.tile`, and for gradients `outer.tile` and `narrow.outer`) are
not written as loops but as LLVM instructions on vectors, which `Emit` writes one after the other.
LLVM still chooses registers and the order of instructions, and the same text becomes AVX-512, AVX2,
SSE or NEON, depending only on how long a vector is.

Each function that is emitted stands beside a plain function of nearly the same name and the same
arguments. That one shows the meaning, and it runs when compiling is switched off
(``NUMBA_DISABLE_JIT=1``); ``overload`` replaces it by the emitted one in compiled code. Neither
checks bounds.

`sizes` has what the processor is like, `emit` the instructions on vectors, `bfloat16` those on
numbers of 16 bits, and `copies` what moves values and where kernels work. `words` has the operands
of bfloat16 in NumPy.
"""

from .bfloat16 import stored, value
from .copies import aligned, aligned_like, copy, flat_array, interleave, seen_as, working
from .emit import Emit
from .sizes import F32, FLOATS, HALVES, I32, I64, WORDS, Machine, flat_of, machine

__all__ = [
    "F32",
    "FLOATS",
    "HALVES",
    "I32",
    "I64",
    "WORDS",
    "Emit",
    "Machine",
    "aligned",
    "aligned_like",
    "copy",
    "flat_array",
    "flat_of",
    "interleave",
    "machine",
    "seen_as",
    "stored",
    "value",
    "working",
]
