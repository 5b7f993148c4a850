"""Which instructions the emulator knows, with which modifiers: every other one is refused.

A modifier that is overlooked would be computed as if it were not there: a sum that is rounded up
would be rounded to nearest, without a word. So each instruction has the whole of what may follow
its name, as a regular expression.
"""

from __future__ import annotations

import re

from .parse import Instruction

_WHOLE = r"[su](16|32|64)"
_BITS = r"(b(16|32|64)|pred)"
_ANY = r"([bsuf](8|16|32|64)|pred)"
_APPROXIMATE = r"approx(\.ftz)?\.f32"
_SPACE = r"((global|shared(::cta)?|local|const)\.)?"
_CACHED = r"((ca|cg|cs|cv|lu|wb|wt|nc|L1::\w+|L2::\w+)\.)*"
_ATOMIC = (
    r"((relaxed|acquire|release|acq_rel)\.)?((cta|gpu|sys)\.)?"
    rf"{_SPACE}(add|max|min|exch|cas|inc|dec|and|or|xor)\.[bsuf](32|64)"
)
_BARRIER = r"(cta\.)?(sync(\.aligned)?|red\.(popc(\.aligned)?\.u32|(and|or)(\.aligned)?\.pred))"
_CONVERTED = "|".join(
    (
        r"[su](8|16|32|64)\.[su](8|16|32|64)",
        r"rn\.f(16|32|64)\.[su](8|16|32|64)",
        r"r[nzmp]i\.[su](8|16|32|64)\.f(16|32|64)",
        r"r[nzmp]i\.(f16\.f16|f32\.f32|f64\.f64)",
        r"f32\.f16|f64\.f16|f64\.f32",
        r"rn\.(f16\.f32|f16\.f64|f32\.f64)",
        r"sat\.f32\.f32",
        r"rn\.bf16x2\.f32",
    )
)
KNOWN = {
    "abs": r"s(16|32|64)|f(16|32|64)",
    "activemask": r"b32",
    "add": rf"{_WHOLE}|(rn\.)?f(16|32|64)|rz\.f32",
    "and": _BITS,
    "atom": _ATOMIC,
    "bar": rf"{_BARRIER}|warp\.sync",
    "barrier": _BARRIER,
    "bfi": r"b(32|64)",
    "bfind": r"(shiftamt\.)?u(32|64)",
    "brev": r"b(32|64)",
    "clz": r"b(32|64)",
    "copysign": r"f(32|64)",
    "cos": _APPROXIMATE,
    "cp": r"async\.(commit_group|wait_all|wait_group|c[ag]\.shared(::cta)?\.global(\.L2::\w+)?)",
    "cvt": _CONVERTED,
    "cvta": r"(to\.)?(global|shared|local|const)\.u64",
    "div": rf"{_WHOLE}|rn\.f(32|64)|full\.f32|{_APPROXIMATE}",
    "dp4a": r"[su]32\.[su]32",
    "ex2": _APPROXIMATE,
    "fence": r".*",
    "fma": r"rn\.f(32|64)|(rm|rz)\.f32",
    "ld": rf"param\.{_ANY}|(volatile\.)?{_SPACE}{_CACHED}(v[24]\.)?{_ANY}",
    "lg2": _APPROXIMATE,
    "mad": rf"(lo|hi)\.{_WHOLE}|lo\.cc\.u32|wide\.[su](16|32)|rn\.f(32|64)",
    "madc": r"hi\.u32",
    "max": rf"{_WHOLE}|(NaN\.)?f(16|32)|f64",
    "membar": r"cta|gl|sys",
    "min": rf"{_WHOLE}|(NaN\.)?f(16|32)|f64",
    "mma": r".*",  # `Writer` looks closer
    "mov": _ANY,
    "mul": rf"(lo|hi)\.{_WHOLE}|wide\.[su](16|32)|(rn\.)?f(16|32|64)",
    "nanosleep": r"u32",
    "neg": r"s(16|32|64)|f(16|32|64)",
    "not": _BITS,
    "or": _BITS,
    "popc": r"b(32|64)",
    "prmt": r"b32",
    "rcp": rf"rn\.f(32|64)|approx\.ftz\.f64|{_APPROXIMATE}",
    "red": _ATOMIC,
    "rem": _WHOLE,
    "rsqrt": rf"approx(\.ftz)?\.f64|{_APPROXIMATE}",
    "selp": _ANY,
    "setp": rf"(eq|ne|[lg][te]u?|(eq|ne)u|l[os]|h[is]|num|nan)(\.(and|or|xor))?\.{_ANY}",
    "shfl": r"sync\.(up|down|bfly|idx)\.b32",
    "shl": r"b(16|32|64)",
    "shr": r"[bsu](16|32|64)",
    "sin": _APPROXIMATE,
    "sqrt": rf"rn\.f(32|64)|{_APPROXIMATE}",
    "st": rf"(volatile\.)?{_SPACE}{_CACHED}(v[24]\.)?{_ANY}",
    "sub": rf"{_WHOLE}|(rn\.)?f(16|32|64)",
    "tanh": r"approx\.f32",
    "vote": r"sync\.((all|any|uni)\.pred|ballot\.b32)",
    "xor": _BITS,
}


def known(ins: Instruction) -> bool:
    """Return whether an instruction is known with all of its modifiers."""
    return bool(re.fullmatch(KNOWN.get(ins.op, "-"), ".".join(ins.modifiers)))
