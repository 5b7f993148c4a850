"""What kernels need and `numba.cuda` lacks: wide accesses, copies that do not wait, shuffles.

Each word is a few lines of LLVM. Pointers are raw (`kernel.floats`): an index is 32 bits wide, and
nobody checks it. Read `memory` (shared memory, registers, 16 bytes at once), then `copies`
(asynchronous copies to shared memory), `arithmetic` (four values at once) and `warp` (values of the
other threads of a warp). `whole` has whole numbers in 32 bits, `tensor` the tensor cores, `integer`
products of bytes, and `target` says which GPU the code is for. All are made of what `llvm` has.
"""

from .arithmetic import add4, floor4, floor4_or_nan, sum4
from .copies import copies_done, copy1, copy4
from .memory import (
    get,
    keep4,
    load2,
    load4,
    load4_if,
    put,
    put2,
    registers,
    shared,
    store4,
    take4,
    typed,
)
from .warp import warp_larger, warp_sum

__all__ = [
    "add4",
    "copies_done",
    "copy1",
    "copy4",
    "floor4",
    "floor4_or_nan",
    "get",
    "keep4",
    "load2",
    "load4",
    "load4_if",
    "put",
    "put2",
    "registers",
    "shared",
    "store4",
    "sum4",
    "take4",
    "typed",
    "warp_larger",
    "warp_sum",
]
