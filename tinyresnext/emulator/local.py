"""What the arrays hold that a thread has for itself, before anything is written to them.

A GPU leaves that undefined. Numba fills a local array with zeros once, where its function begins:
so a kernel that forgets to do it itself computes what it should, until the array stands in a loop
or the kernel is written in another language. The emulators fill it with what is not a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numba.cuda.cudadrv import nvvm

from .memory import POISON

# As float32 and float16 not a number, as int32 -33,369. The emulator of PTX knows the stores that
# fill arrays by it, so it is what hardly anybody writes into a kernel as a constant.
UNWRITTEN = 0xFFFF7DA7
PLAIN = POISON * 0x01010101  # the same in every byte: as whole numbers -1
MOST = 1 << 14  # values: LLVM makes single stores of no more of them
FILLING = re.compile(r'(store )(\[.*\]) zeroinitializer(?=, .*\* %"?_cudapy_lmem)')


def fill(text: str, bits: int) -> str:
    """Return Numba's LLVM with local arrays that are filled with 32 bits over and over."""
    return FILLING.sub(lambda found: found[1] + _value(found[2], bits), text)


def _value(kind: str, bits: int) -> str:
    """Return a type and its value that has these bits."""
    if array := re.fullmatch(r"\[(\d+) x (.*)\]", kind):
        count = int(array[1])
        bits = bits if count <= MOST else PLAIN
        each = 4 // {"i8": 1, "i16": 2}.get(array[2], 4)  # values that share these bits
        turns = [bits >> 32 // each * i for i in range(each)]
        values = [_value(array[2], one) for one in turns] * -(-count // each)
        return f"{kind} [{', '.join(values[:count])}]"
    if kind in ("i8", "i16", "i32"):
        return f"{kind} {bits % (1 << int(kind[1:]))}"
    if kind == "i64":
        return f"{kind} {bits << 32 | bits}"
    if kind in ("float", "double"):
        wide = bits << 32 | bits
        if kind == "float":  # LLVM writes it as the float64 that it is
            wide = (bits >> 31) << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
        return f"{kind} 0x{wide:016X}"
    if kind == "half":
        return "half 0xHFFFF"
    if kind.startswith("{"):  # a complex number
        return f"{kind} {{{', '.join(_value(one, bits) for one in kind.strip('{} ').split(', '))}}}"
    return f"{kind} zeroinitializer"


_filling: ContextVar[bool] = ContextVar("_filling", default=False)
_compile_ir = nvvm.compile_ir


def _filled(llvmir: Any, **options: Any) -> Any:
    """Compile LLVM as Numba's own function does, with its local arrays filled if that is wanted."""
    if _filling.get():
        texts = [llvmir] if isinstance(llvmir, str) else llvmir
        llvmir = [fill(one, UNWRITTEN) for one in texts]
    return _compile_ir(llvmir, **options)


nvvm.compile_ir = _filled


@contextmanager
def filled() -> Iterator[None]:
    """Compile kernels to PTX, in the ``with`` block, whose local arrays hold `UNWRITTEN`."""
    token = _filling.set(True)
    try:
        yield
    finally:
        _filling.reset(token)
