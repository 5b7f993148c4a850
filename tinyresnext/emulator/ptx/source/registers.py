"""Where the registers of a kernel are: rows of one table, and as few of them as possible.

An unrolled kernel names thousands of registers, and most live within one piece of code. These share
rows, so that the table stays in the processor's cache.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .parse import TYPES, Code, Instruction


class Registers:
    """The row of each register.

    Attributes
    ----------
    rows : dict of int to int
        For each size in bytes (0 for predicates) how many rows there are.
    views : dict of str to tuple
        For each name that `name` returned its size, row and type.
    constants : dict of str to number
        For each name that `constant` returned its value.
    """

    def __init__(self, code: Code) -> None:
        self.rows: dict[int, int] = {}
        self.views: dict[str, tuple[int, int, Any]] = {}
        self.constants: dict[str, Any] = {}
        self._row: dict[str, tuple[int, int]] = {}
        self._code = code
        uses = _uses(code)
        for register, pieces in uses.items():
            if len(pieces) > 1 or not _set_first(code.pieces[next(iter(pieces))], register):
                self._row[register] = self._new(register)
        free: dict[int, list[int]] = {}
        for number, piece in enumerate(code.pieces):
            self._share(piece, {r for r, pieces in uses.items() if pieces == {number}}, free)

    def name(self, register: str, kind: Any) -> str:
        """Return the name of the array of a register, seen as a type of its size."""
        size, row = self._row[register]
        name = f"r{size}_{row}_{kind.str[1:]}"
        self.views[name] = size, row, kind
        return name

    def constant(self, value: int, kind: Any, bits: str = "") -> str:
        """Return the name of a constant; ``bits`` is the type of its bits if it is not a number."""
        name = f"c_{kind.str[1:]}_{value}".replace("-", "m") + bits
        if kind.kind == "b":
            made = np.array(value != 0)
        elif bits:
            made = np.array(value, bits).view(kind)
        elif kind.kind == "f":
            made = np.array(value, kind)
        else:
            size = kind.itemsize
            made = np.array(value % (1 << 8 * size), f"u{size}").view(kind)
        self.constants[name] = made[()]
        return name

    def tables(self, lanes: int) -> dict[int, np.ndarray]:
        """Return new rows for so many threads, by size."""
        kinds = {0: np.dtype(bool), **{size: np.dtype(f"u{size}") for size in (2, 4, 8)}}
        return {size: np.zeros((count, lanes), kinds[size]) for size, count in self.rows.items()}

    def add_arrays(self, tables: dict[int, np.ndarray], names: dict[str, Any]) -> None:
        """Add to ``names`` the arrays that have been named since the last time."""
        for name, (size, row, kind) in self.views.items():
            if name not in names:
                names[name] = tables[size][row].view(kind)

    def _size(self, register: str) -> int:
        kind = TYPES[self._code.type_of(register)]
        return 0 if kind.kind == "b" else kind.itemsize

    def _new(self, register: str) -> tuple[int, int]:
        size = self._size(register)
        self.rows[size] = self.rows.get(size, 0) + 1
        return size, self.rows[size] - 1

    def _share(self, piece: list[Instruction], mine: set[str], free: dict[int, list[int]]) -> None:
        """Give rows to the registers that live in one piece only, and take them back."""
        last = {register: i for i, ins in enumerate(piece) for register in named(ins)}
        begun: set[str] = set()
        for i, ins in enumerate(piece):
            here = [
                register
                for register in named(ins)
                if register in mine and register not in self._row
            ]
            for register in here:
                size = self._size(register)
                rows = free.setdefault(size, [])
                self._row[register] = (size, rows.pop()) if rows else self._new(register)
                begun.add(register)
            for register in named(ins):
                if register in begun and last[register] == i:
                    size, row = self._row[register]
                    free.setdefault(size, []).append(row)
                    begun.discard(register)


def named(ins: Instruction) -> list[str]:
    """Return what an instruction names like a register, in order and without repetition."""
    text = " ".join((ins.guard, *ins.operands))
    return list(dict.fromkeys(re.findall(r"%[a-zA-Z_]\w*", text)))


def _uses(code: Code) -> dict[str, set[int]]:
    """Return for each register the pieces that name it."""
    uses: dict[str, set[int]] = {}
    for number, piece in enumerate(code.pieces):
        for ins in piece:
            for register in named(ins):
                if code.declares(register):  # %tid is none, for one
                    uses.setdefault(register, set()).add(number)
    return uses


def _set_first(piece: list[Instruction], register: str) -> bool:
    """Return whether a piece sets a register before it reads it."""
    ins = next(one for one in piece if register in named(one))
    if ins.guard or ins.op in ("st", "red", "cp", "bra", "bar"):
        return False
    return register in re.findall(r"%\w+", ins.operands[0]) and not any(
        register in re.findall(r"%\w+", operand) for operand in ins.operands[1:]
    )
