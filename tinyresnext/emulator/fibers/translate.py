"""From Numba's LLVM of a kernel, written for NVIDIA's compiler, to LLVM for this processor."""

from __future__ import annotations

import re
from itertools import chain

import llvmlite.binding as llvm

from ...errors import DeviceError
from ..memory import GUARD
from .arithmetic import ARITHMETIC, VALUES, defined
from .atomics import ATOMIC, ATOMICS
from .tensor import TENSOR
from .words import PLACES, RUNTIME

# What a GPU's special registers and instructions become; the right side is defined in `words`.
WORDS = {
    **{
        f"llvm.nvvm.read.ptx.sreg.{name}.{axis}": f"word_{name}" if axis == "x" else f"word_{other}"
        for name, other in (("tid", "zero"), ("ctaid", "zero"), ("ntid", "one"), ("nctaid", "one"))
        for axis in "xyz"
    },
    "llvm.nvvm.read.ptx.sreg.laneid": "word_laneid",
    "llvm.nvvm.read.ptx.sreg.warpsize": "word_warpsize",
    "llvm.nvvm.barrier0": "word_barrier",
    "llvm.nvvm.barrier0.popc": "word_barrier_sum",
    "llvm.nvvm.barrier0.and": "word_barrier_all",
    "llvm.nvvm.barrier0.or": "word_barrier_any",
    "llvm.nvvm.bar.warp.sync": "word_warp",
    "llvm.nvvm.shfl.sync.i32": "word_shuffle",
    "llvm.nvvm.vote.sync": "word_vote",
    **ATOMICS,
    "llvm.nvvm.membar.gl": "word_nothing",
    "llvm.nvvm.membar.cta": "word_nothing",
    "llvm.nvvm.membar.sys": "word_nothing",
}
WAITING = (
    "word_barrier",
    "word_warp",
    "word_shuffle",
    "word_vote",
    "word_wait",
    "word_copy",
    "word_mma",
)
DEFINED = {
    name: (kind, takes)
    for kind, name, takes in re.findall(
        r"define (.*?) @((?:word|__nv)_\w+)\((.*?)\)", RUNTIME + TENSOR + ARITHMETIC + ATOMIC
    )
}
SHARED = r'^(@"?[^"\s]+"?) = .*?addrspace\(3\) global (.*) undef'
# Inline assembly by its text; a group of the pattern becomes the last argument.
ASSEMBLY = (
    (r"cp\.async\.c[ag]\.shared\.global(?:\.\S*)? \[\$0\], \[\$1\], (\d+), \$2;", "word_copy"),
    (r"cp\.async\.c[ag]\.shared\.global(?:\.\S*)? \[\$0\], \[\$1\], (\d+);", "word_copy_all"),
    (r"cp\.async\.commit_group;", "word_commit"),
    (r"cp\.async\.wait_group (\d+);", "word_wait"),
    (r"cp\.async\.wait_all;", "word_wait_all"),
)
FOUR = "{float, float, float, float}"
MULTIPLY = (
    r"mma\.sync\.aligned\.m16n8k(?:(8|16)\.row\.col\.f32\.f16\.f16|(16)\.row\.col\.f32\.bf16\.bf16)"
    r"\.f32 \{\$0, \$1, \$2, \$3\}, "
    r"[{}$\d, ]*;"  # in the order of the operands: nothing else is taken
)


def translate(texts: list[str], name: str) -> tuple[list[str], bool]:
    """Rewrite the LLVM of one kernel.

    Parameters
    ----------
    texts : list of str
        As `Kernel.llvm` returns them: of the kernel, and of the functions that it calls.
    name : str
        Of the kernel in it.

    Returns
    -------
    texts : list of str
        LLVM that defines ``fiber_run`` and uses what `words` defines.
    waits : bool
        Whether a thread of it may have to wait for others.

    Raises
    ------
    DeviceError
        The kernel uses a word that is not known here.
    """
    shared = [re.findall(SHARED, text, re.M) for text in texts]
    made = list(map(_module, texts))
    used = set().union(*map(_used, made))
    of_others = "".join(f"{one} = external global {kind}\n" for one, kind in chain(*shared[1:]))
    made[0] += of_others + _shared([*chain(*shared)]) + _run(made[0], name)
    # Memory that is shared is poisoned block by block, also where nobody waits for the others.
    return made, any(shared) or any(word.startswith(WAITING) for word in used)


def _module(text: str) -> str:
    """Rewrite one function, and declare the words that it calls."""
    text = re.sub(r"^target .*$", "", text, flags=re.M)
    # Behind each shared array lie bytes that nobody may write to.
    text = re.sub(SHARED, lambda found: widened(found[0], found[2]), text, flags=re.M)
    text = re.sub(r" addrspace\(\d\)", "", text)
    text = re.sub(r"\baddrspacecast\b", "bitcast", text)
    text = _words(_assembly(defined(text)))
    declared = [f"declare {DEFINED[word][0]} @{word}({DEFINED[word][1]})" for word in _used(text)]
    return "\n".join([text, *declared, ""])


def widened(line: str, kind: str) -> str:
    """Return the definition of a shared array with bytes behind it."""
    return line.removesuffix(f"{kind} undef") + f"{{{kind}, [{GUARD} x i8]}} undef"


def _used(text: str) -> set[str]:
    """Return the words that are called."""
    return set(re.findall(r"@(\w+)\(", text)) & set(DEFINED)


def _assembly(text: str) -> str:
    """Replace inline assembly by calls."""

    def call(match: re.Match[str]) -> str:
        code, arguments = match[1].replace("\\0A", "").replace("\\09", "").strip(), match[2]
        for pattern, word in ASSEMBLY:
            if found := re.fullmatch(pattern, code):
                given = [arguments] if arguments.strip() else []
                if word == "word_copy_all":
                    word, given = "word_copy", [*given, f"i32 {found[1]}"]
                if word == "word_wait_all":
                    word, given = "word_wait", ["i32 -1"]
                given += [f"i32 {size}" for size in found.groups()]
                return f"call void @{word}({', '.join(given)})"
        raise DeviceError(f"the kernel uses assembly that cannot be emulated: {code}")

    def multiply(match: re.Match[str]) -> str:
        found, places = re.fullmatch(MULTIPLY, match[1]), re.findall(r"\$(\d+)", match[1])
        if found is None or [int(place) for place in places] != list(range(len(places))):
            raise DeviceError(f"the kernel uses assembly that cannot be emulated: {match[1]}")
        name = found[1] or f"{found[2]}_bf16"
        return f"call {FOUR} @word_mma{name}({match[2]})"

    def value(match: re.Match[str]) -> str:
        if match[2] not in VALUES:
            raise DeviceError(f"the kernel uses assembly that cannot be emulated: {match[2]}")
        return f"call {match[1]} @{VALUES[match[2]]}"

    text = re.sub(
        rf'call {re.escape(FOUR)} asm sideeffect "(mma[^"]*)", "[^"]*"\s*\((.*)\)(?=[^)]*$)',
        multiply,
        text,
        flags=re.M,
    )
    text = re.sub(r'call (i32|float) asm\s+"([^"]*)", "[^"]*"\s*(?=\()', value, text)
    return re.sub(
        r'call void asm sideeffect "([^"]*)", "[^"]*"\s*\((.*)\)(?=[^)]*$)', call, text, flags=re.M
    )


def _words(text: str) -> str:
    """Replace a GPU's words by ours, and libdevice's by those of the C library."""
    for name in sorted(set(re.findall(r'@"?((?:llvm\.nvvm\.|__nv_|___numba_)[\w.]+)"?', text))):
        word = WORDS.get(name, name if name in DEFINED else None)
        if word is None and name.startswith("__nv_"):
            word = name.removeprefix("__nv_")
            if not llvm.address_of_symbol(word):
                raise DeviceError(f"the kernel calls {name}, which the C library does not have")
        if word is None:
            raise DeviceError(f"the kernel uses {name}, which cannot be emulated")
        if word in DEFINED:
            text = re.sub(rf'^declare .*@"?{re.escape(name)}"?\(.*$', "", text, flags=re.M)
        text = re.sub(rf'@"?{re.escape(name)}"?(?=\()', f"@{word}", text)
    if "asm " in text:
        raise DeviceError("the kernel uses assembly that returns a value; it cannot be emulated")
    return text


def _shared(shared: list[tuple[str, str]]) -> str:
    """Return a table of the shared arrays: where each is and how many bytes it has."""
    entries = [
        f"i64 ptrtoint (ptr {name} to i64), "
        f"i64 ptrtoint (ptr getelementptr ({kind}, ptr null, i32 1) to i64)"
        for name, kind in shared
    ]
    first = shared[0][0] if shared else "null"
    return (
        f"@fiber_shared = constant ptr {first}\n"
        f"@fiber_arrays = global [{2 * len(shared)} x i64] [{', '.join(entries)}]\n"
    )


def _run(text: str, name: str) -> str:
    """Return a function without parameters that calls the kernel with what `arguments` holds."""
    found = re.search(rf'^define .*@"?{re.escape(name)}"?\((.*)\)', text, re.M)
    if found is None:
        raise DeviceError(f"no function {name} in the LLVM of the kernel")
    kinds = [re.sub(r"\s+%.*", "", one.strip()) for one in re.split(r",(?![^{]*})", found[1])][1:]
    loads, given = [], ["ptr %ignored"]
    for i, kind in enumerate(kinds):
        loads.append(f"  %p{i} = getelementptr [{PLACES} x i64], ptr @arguments, i32 0, i32 {i}")
        loads.append(f"  %a{i} = load {kind}, ptr %p{i}")
        given.append(f"{kind} %a{i}")
    return "\n".join(
        [
            f"@arguments = external global [{PLACES} x i64]",
            "define void @fiber_run() noinline {",
            "  %ignored = alloca ptr",
            *loads,
            f'  %status = call i32 @"{name}"({", ".join(given)})',
            "  ret void",
            "}",
        ]
    )
