"""PTX as text, and as instructions: what `write` makes Python of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ....errors import DeviceError
from .outside import check_calls, read_constants

# PTX's types as NumPy's; `b` types are bits.
TYPES = {
    **{f"{k}{n}": np.dtype(f"{c}{n // 8}") for k, c in ("si", "uu", "bu") for n in (8, 16, 32, 64)},
    **{f"f{n}": np.dtype(f"f{n // 8}") for n in (16, 32, 64)},
    "pred": np.dtype(bool),
}
ENDS = ("bra", "ret", "exit", "bar", "barrier")  # what ends a straight piece of code


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    op : str
        Its name, such as ``ld``.
    modifiers : tuple of str
        What follows the name, such as ``("global", "v4", "f32")``.
    operands : tuple of str
    guard : str
        The predicate register that says whether a thread executes it, or nothing.
    negated : bool
        Whether the predicate has to be false.
    text : str
    line : int
        Of the PTX.
    source : str
        Of the Python it was made of: file and line, or nothing.
    """

    op: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str
    negated: bool
    text: str
    line: int
    source: str

    @property
    def type(self) -> str:
        """The last modifier, which is the type of most instructions."""
        return self.modifiers[-1] if self.modifiers else ""

    @property
    def where(self) -> str:
        """The instruction for a report: its text, its line and its source."""
        return f"{self.text}  (line {self.line} of the PTX{self.source and ', ' + self.source})"

    @property
    def waits(self) -> bool:
        """Whether threads wait here for the others of their block."""
        return self.op in ("bar", "barrier") and "warp" not in self.modifiers


@dataclass
class Code:
    """One kernel.

    Attributes
    ----------
    parameters : list of tuple
        Name and type of each.
    kernel : str
        Its name.
    symbols : dict
        For each array its first byte in its memory: shared, local or constant.
    shared, local : int
        Bytes of shared memory a block, and of local memory a thread.
    fixed : dict
        For each constant array its bytes.
    registers : dict
        Of each register its type, or of its prefix where they are declared together.
    pieces : list of list of Instruction
        Code without a jump inside; only the last instruction of a piece can jump or wait.
    labels : dict
        The piece that each label begins.
    filling, exchanging : set of int
        Lines of the PTX that `marks` finds: of stores that fill an array which the kernel has not
        written yet, and of loads that begin an atomic.
    fenced : bool
        Whether it has fences, which order accesses and which nobody watches.
    """

    kernel: str = ""
    parameters: list[tuple[str, str]] = field(default_factory=list)
    symbols: dict[str, int] = field(default_factory=dict)
    shared: int = 0
    local: int = 0
    fixed: dict[str, bytes] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    pieces: list[list[Instruction]] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    filling: set[int] = field(default_factory=set)
    exchanging: set[int] = field(default_factory=set)
    fenced: bool = False

    def type_of(self, register: str) -> str:
        """Return the declared type of a register."""
        if register in self.registers:
            return self.registers[register]
        return self.registers[re.sub(r"\d+$", "", register)]

    def declares(self, register: str) -> bool:
        """Return whether there is such a register."""
        return not self.registers.keys().isdisjoint((register, re.sub(r"\d+$", "", register)))


def parse(text: str, kernel: str = "") -> Code:
    """Read the PTX of one kernel, which has this name.

    Raises
    ------
    DeviceError
        It is not a single kernel as NVIDIA's compiler writes it, or it calls functions.
    """
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', text, re.M))
    check_calls(text, kernel, files)
    found = re.search(r"\.entry\s+[\w$]+\s*\((.*?)\)[^{;]*\{(.*)\n\}", text, re.S)
    if found is None:
        raise DeviceError(f"kernel {kernel}: its PTX is not as NVIDIA's compiler writes it")
    code = Code(kernel)
    # From compute capability 10.0 on, the compiler says of a pointer that it is one.
    told = r"(?:\.ptr\s+(?:\.(?!align)\w+\s+)?(?:\.align\s+\d+\s+)?)?"
    declared = rf"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+{told}([\w$]+)"
    for kind, name in re.findall(declared, found[1]):
        code.parameters.append((name, kind))
    for space in ("shared", "local"):
        arrays = rf"\.{space}\s+(?:\.align\s+(\d+)\s+)?\.\w(\d+)\s+([\w$]+)(?:\[(\d*)\])?\s*;"
        for align, bits, name, count in re.findall(arrays, text):
            start = getattr(code, space)
            start += -start % int(align or 1)
            code.symbols[name] = start
            setattr(code, space, start + int(bits) // 8 * int(count or 1))
    read_constants(code, text)
    _body(code, found[2], text[: found.start(2)].count("\n") + 1, files)
    return code


def _body(code: Code, body: str, line: int, files: dict[str, str]) -> None:
    """Split the body into pieces."""
    piece: list[Instruction] = []
    source, scopes = "", Scopes()

    def close() -> None:
        nonlocal piece
        if piece:
            code.pieces.append(piece)
            piece = []

    for number, statement in _statements(body, line):
        if statement in "{}":
            scopes.begin() if statement == "{" else scopes.end()
        elif found := re.match(r"\.loc\s+(\d+)\s+(\d+)", statement):
            name = files.get(found[1], "").rpartition("/")[2]
            source = f"{name}:{found[2]}"
        elif found := re.match(r"\.reg\s+\.(\w+)\s+(.*)", statement):
            for name in found[2].split(","):
                code.registers[scopes.declare(re.sub(r"<\d+>", "", name.strip()))] = found[1]
        elif statement.endswith(":"):
            close()
            code.labels[statement[:-1]] = len(code.pieces)
        elif not statement.startswith("."):
            piece.append(_instruction(statement, number, source, scopes.named))
            if piece[-1].op in ENDS:
                close()
    piece.append(_instruction("ret", line, source))
    close()


class Scopes:
    """What the registers that are declared between braces are called outside of them."""

    def __init__(self) -> None:
        self._open: list[dict[str, str]] = []
        self._count = 0

    def begin(self) -> None:
        """Note an opening brace."""
        self._open.append({})

    def end(self) -> None:
        """Note a closing brace."""
        self._open.pop()

    def declare(self, name: str) -> str:
        """Return the name of a new register; in braces, one that no other register has."""
        if not self._open:
            return name
        self._count += 1
        made = self._open[-1][name] = f"%scope{self._count}_{name.lstrip('%')}"
        return made

    def named(self, text: str) -> str:
        """Return operands with the names that `declare` returned."""
        if not any(self._open):
            return text
        return re.sub(r"%[\w$]+", lambda found: self._one(found[0]), text)

    def _one(self, name: str) -> str:
        prefix = re.sub(r"\d+$", "", name)
        for names in self._open[::-1]:
            if name in names:
                return names[name]
            if prefix in names:  # several are declared together: %p<3>
                return names[prefix] + name[len(prefix) :]
        return name


def _statements(body: str, line: int) -> list[tuple[int, str]]:
    """Return the statements and labels with their lines; what ends one is a semicolon."""
    found, begun = [], ""
    for number, text in enumerate(body.split("\n"), line):
        rest = text.split("//")[0].strip()
        while rest:
            if not begun and rest[0] in "{}":  # a scope
                found.append((number, rest[0]))
                rest = rest[1:].strip()
            elif not begun and (label := re.match(r"[\w$]+:(?!:)", rest)):
                found.append((number, label[0]))
                rest = rest[label.end() :].strip()
            elif not begun and rest.startswith((".loc", ".pragma", ".file")):
                found.append((number, rest.rstrip(";")))
                rest = ""
            else:
                part, end, rest = rest.partition(";")
                begun, rest = f"{begun} {part.strip()}".strip(), rest.strip()
                if end:
                    found.append((number, re.sub(r"\s+", " ", begun)))
                    begun = ""
    return found


def _instruction(
    statement: str, line: int, source: str, named: Callable[[str], str] = str
) -> Instruction:
    """Split one statement; ``named`` says what registers are called outside of their scope."""
    found = re.match(r"(?:@(!?)([%\w]+)\s+)?([\w.:]+)\s*(.*)", statement)
    if found is None:
        raise DeviceError(f"line {line} of the PTX is no instruction: {statement}")
    negated, guard, name, rest = found.groups()
    op, *modifiers = name.split(".")
    operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", named(rest))
    return Instruction(
        op,
        tuple(modifiers),
        tuple(one.strip() for one in operands),
        named(guard or ""),
        bool(negated),
        statement,
        line,
        source,
    )
