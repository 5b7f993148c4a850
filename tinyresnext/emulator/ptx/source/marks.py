"""Loads and stores that mean more than they say: what `parse` cannot see in one instruction.

Numba fills a thread's own arrays; to the kernel, nobody has written them yet (see
`tinyresnext.emulator.local`). And of atomics that a GPU lacks, as the larger of two floats, it
makes a load and a loop of compare-and-swap: there the load is a part of the atomic.
"""

from __future__ import annotations

import re

from ...local import UNWRITTEN
from .parse import Code, Instruction

FILLED = {UNWRITTEN, UNWRITTEN << 32 | UNWRITTEN}


def mark(code: Code) -> None:
    """Note in ``code`` which stores fill arrays, which loads begin an atomic, and fences."""
    everything = [ins for piece in code.pieces for ins in piece]
    setters: dict[str, list[Instruction]] = {}
    for ins in everything:
        if ins.op not in ("st", "red"):
            for register in re.findall(r"%[\w$]+", ins.operands[0] if ins.operands else ""):
                setters.setdefault(register, []).append(ins)
    code.filling = {ins.line for ins in everything if ins.op == "st" and _fills(ins, setters)}
    code.fenced = any(ins.op in ("membar", "fence") for ins in everything)
    swaps = [ins for ins in everything if ins.op == "atom" and "cas" in ins.modifiers]
    code.exchanging = {line for swap in swaps for line in _begun_by(swap, setters)}


def _fills(store: Instruction, setters: dict[str, list[Instruction]]) -> bool:
    """Return whether a store writes nothing but the constant that marks what is unwritten."""
    for operand in re.findall(r"[^\s,{}]+", store.operands[1]):
        sets = setters.get(operand, [])
        if len(sets) == 1 and sets[0].op == "mov":
            operand = sets[0].operands[1]
        if found := re.fullmatch(r"0[fdFD]([0-9a-fA-F]+)", operand):
            value = int(found[1], 16)
        elif re.fullmatch(r"-?\d+", operand):
            value = int(operand) % (1 << (64 if "64" in store.type else 32))
        else:
            return False
        if value not in FILLED:
            return False
    return True


def _begun_by(swap: Instruction, setters: dict[str, list[Instruction]]) -> set[int]:
    """Return the lines of the volatile loads of a swap's own word that it compares with."""
    found, todo, seen = set(), [swap.operands[2]], set()
    while todo:
        register = todo.pop()
        for ins in setters.get(register, []):
            if (
                ins.op == "ld"
                and "volatile" in ins.modifiers
                and ins.operands[1] == swap.operands[1]
            ):
                found.add(ins.line)
            elif ins.op == "mov" and register not in seen:
                todo.append(ins.operands[1])
        seen.add(register)
    return found
