"""Instructions that compute: for each a line of Python, and how operands are written."""

from __future__ import annotations

import re

import numpy as np

from .parse import TYPES, Code, Instruction
from .registers import Registers

# Where these memories begin, as an address of any kind: `CONSTANT` has arrays of the kernel itself.
LOCAL, SHARED, CONSTANT = 1 << 46, 1 << 44, 1 << 43

BINARY = {
    "add": "np.add",
    "sub": "np.subtract",
    "and": "np.bitwise_and",
    "or": "np.bitwise_or",
    "xor": "np.bitwise_xor",
}
UNARY = {
    "not": "np.invert",
    "abs": "np.abs",
    "sqrt": "np.sqrt",
    "ex2": "np.exp2",
    "lg2": "np.log2",
    "sin": "np.sin",
    "cos": "np.cos",
    "tanh": "np.tanh",
}
COMPARE = {
    "eq": "np.equal",
    "ne": "np.not_equal",
    "lt": "np.less",
    "le": "np.less_equal",
    "gt": "np.greater",
    "ge": "np.greater_equal",
    "lo": "np.less",
    "ls": "np.less_equal",
    "hi": "np.greater",
    "hs": "np.greater_equal",
}
WIDE = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}
SPECIAL = r"%((?:tid|ctaid|ntid|nctaid)\.[xyz]|laneid|warpid|lanemask_lt)"


class Computing:
    """Writes instructions that concern one thread and no memory.

    Parameters
    ----------
    code : Code
    registers : Registers
        Where each register is.
    some : bool
        Whether to write for some of the threads, or for all.
    """

    def __init__(self, code: Code, registers: Registers, some: bool) -> None:
        self.code, self.registers, self.index = code, registers, "[I]" if some else ""

    # --- operands ---------------------------------------------------------------------------------

    def _get(self, operand: str, kind: str) -> str:
        """Return an operand as an expression of a type."""
        if found := re.fullmatch(SPECIAL, operand):
            return f"special_{found[1].replace('.', '_')}_{TYPES[kind].str[1:]}{self.index}"
        if operand in ("WARP_SZ",):
            return "np.uint32(32)"
        if operand.startswith(("0f", "0F", "0d", "0D")):
            bits = int(operand[2:], 16)
            size = "u4" if operand[1] in "fF" else "u8"
            return self.registers.constant(bits, TYPES[kind], size)
        if operand in self.code.symbols:
            return self.registers.constant(self._symbol(operand), TYPES[kind])
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", operand):
            return self.registers.constant(int(operand.rstrip("U"), 0), TYPES[kind])
        own = TYPES[self.code.type_of(operand)]
        if own.itemsize == TYPES[kind].itemsize:
            return self.registers.name(operand, TYPES[kind]) + self.index
        name = self.registers.name(operand, np.dtype(f"u{own.itemsize}")) + self.index
        return f"narrow({name}, '{TYPES[kind].str}')"

    def _put(self, operand: str, kind: str, expression: str) -> list[str]:
        """Return a line that sets a register."""
        if operand == "_":
            return [expression]
        own = TYPES[self.code.type_of(operand)]
        if own.itemsize != TYPES[kind].itemsize:  # the rest is filled: with the sign, or zeros
            filled = np.dtype(f"{'i' if kind[0] == 's' else 'u'}{own.itemsize}")
            name = self.registers.name(operand, filled)
            return [f"{name}{self.index or '[:]'} = fill({expression}, '{filled.str}')"]
        name = self.registers.name(operand, TYPES[kind])
        return [f"{name}{self.index or '[:]'} = {expression}"]

    def _call(self, operand: str, kind: str, function: str, *arguments: str) -> list[str]:
        """Return a line that sets a register by a function that takes ``out``."""
        own = TYPES[self.code.type_of(operand)]
        if self.index or own.itemsize != TYPES[kind].itemsize:
            return self._put(operand, kind, f"{function}({', '.join(arguments)})")
        name = self.registers.name(operand, TYPES[kind])
        return [f"{function}({', '.join(arguments)}, out={name})"]

    def _address(self, operand: str) -> str:
        """Return the address in brackets."""
        found = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+?(-?)\s*(\w+))?\s*\]", operand)
        if found is None:
            raise KeyError(operand)
        base, sign, more = found.groups()
        if base in self.code.symbols:
            expression = self.registers.constant(self._symbol(base), TYPES["u64"])
        else:
            expression = f"as_address({self._get(base, self.code.type_of(base).replace('b', 'u'))})"
        if more:
            step = int(more, 0) * (-1 if sign == "-" else 1)
            expression = f"({expression} + np.uint64({step % (1 << 64)}))"
        return f"spread({expression}, L)"

    def _symbol(self, name: str) -> int:
        return self.code.symbols[name] + (CONSTANT if name in self.code.fixed else 0)

    @staticmethod
    def _space(ins: Instruction) -> str:
        spaces = ("global", "shared", "local", "const")
        return next((one.split("::")[0] for one in ins.modifiers if one.startswith(spaces)), "any")

    # --- arithmetic -------------------------------------------------------------------------------

    def _mov(self, ins: Instruction) -> list[str]:
        to, of = ins.operands
        half = {"b64": "b32", "b32": "b16"}.get(ins.type, "")
        bits = f"{TYPES[half].itemsize * 8}" if half else ""
        if to.startswith("{"):
            low, up = (one.strip() for one in to.strip("{}").split(","))
            whole = self._get(of, ins.type)
            shifted = f"narrow(shift({whole}, {bits}, False), '{TYPES[half].str}')"
            return [
                *self._put(low, half, f"narrow({whole}, '{TYPES[half].str}')"),
                *self._put(up, half, shifted),
            ]
        if of.startswith("{"):
            low, up = (self._get(one.strip(), half) for one in of.strip("{}").split(","))
            own = TYPES[ins.type].str
            return self._put(
                to, ins.type, f"fill({low}, '{own}') | shift(fill({up}, '{own}'), {bits}, True)"
            )
        return self._put(to, ins.type, self._get(of, ins.type))

    def _cvta(self, ins: Instruction) -> list[str]:
        space = next(one for one in ins.modifiers if one in ("global", "shared", "local", "const"))
        start = {"global": 0, "const": 0, "shared": SHARED, "local": LOCAL}[space]
        sign = "subtract" if "to" in ins.modifiers else "add"
        kind = ins.type
        return self._call(
            ins.operands[0],
            kind,
            f"np.{sign}",
            self._get(ins.operands[1], kind),
            f"np.uint64({start})",
        )

    def _cvt(self, ins: Instruction) -> list[str]:
        to, of = ins.modifiers[-2:]
        if to == "bf16x2":
            second, first = (self._get(one, "f32") for one in ins.operands[1:])
            return self._put(ins.operands[0], "u32", f"two_bfloats({first}, {second})")
        value = f"convert({self._get(ins.operands[1], of)}, np.dtype('{TYPES[to].str}'), "
        return self._put(ins.operands[0], to, f"{value}{ins.modifiers[:-2]!r})")

    def _setp(self, ins: Instruction) -> list[str]:
        how, kind = ins.modifiers[0], ins.type
        a, b = (self._get(one, kind) for one in ins.operands[1:3])
        unordered = f"(np.isnan({a}) | np.isnan({b}))"
        if how in ("nan", "num"):
            test = unordered if how == "nan" else f"~{unordered}"
        elif kind[0] == "f" and how == "ne":
            test = f"np.not_equal({a}, {b}) & ~{unordered}"
        elif kind[0] == "f" and len(how) == 3:  # ltu: or not ordered
            test = f"{COMPARE[how[:2]]}({a}, {b}) | {unordered}"
        else:
            test = f"{COMPARE[how]}({a}, {b})"
        if len(ins.operands) > 3:
            name, other = ins.modifiers[1], ins.operands[3]
            flag = self._get(other.lstrip("!"), "pred")
            test = f"{BINARY[name]}({test}, {'~' if other[0] == '!' else ''}{flag})"
        to, _, opposite = ins.operands[0].partition("|")
        lines = self._put(to, "pred", test)
        return lines + (self._put(opposite, "pred", f"~({test})") if opposite else [])

    def _selp(self, ins: Instruction) -> list[str]:
        a, b = (self._get(one, ins.type) for one in ins.operands[1:3])
        flag = self._get(ins.operands[3], "pred")
        return self._put(ins.operands[0], ins.type, f"np.where({flag}, {a}, {b})")

    def _neg(self, ins: Instruction) -> list[str]:
        value = self._get(ins.operands[1], ins.type.replace("u", "s"))
        return self._put(ins.operands[0], ins.type.replace("u", "s"), f"np.negative({value})")

    def _mul(self, ins: Instruction) -> list[str]:
        to, *of = ins.operands
        kind = ins.type
        if kind[0] == "f" or "lo" in ins.modifiers:
            product = [self._get(one, kind) for one in of[:2]]
            if ins.op == "mul":
                return self._call(to, kind, "np.multiply", *product)
            return self._put(
                to, kind, f"np.multiply({', '.join(product)}) + {self._get(of[2], kind)}"
            )
        if "hi" in ins.modifiers:
            expression = f"high({self._get(of[0], kind)}, {self._get(of[1], kind)})"
        else:
            own, kind = TYPES[WIDE[kind]].str, WIDE[kind]
            a, b = (f"fill({self._get(one, ins.type)}, '{own}')" for one in of[:2])
            expression = f"{a} * {b}"
        if ins.op == "mad":
            expression += f" + {self._get(of[2], kind)}"
        return self._put(to, kind, expression)

    def _mad(self, ins: Instruction) -> list[str]:
        if "cc" in ins.modifiers:  # what is carried goes to `madc`, which is the next instruction
            to, *of = ins.operands
            a, b, c = (self._get(one, "u32") for one in of)
            lines = [f"carry = fill(np.multiply({a}, {b}), '<u8') + {c}"]
            lines += self._put(to, "u32", "narrow(carry, '<u4')")
            return [*lines, "carry = shift(carry, 32, False)"]
        return self._fma(ins) if ins.type[0] == "f" else self._mul(ins)

    def _madc(self, ins: Instruction) -> list[str]:
        a, b, c = (self._get(one, "u32") for one in ins.operands[1:])
        total = f"fill(high({a}, {b}), '<u8') + {c} + carry"
        return self._put(ins.operands[0], "u32", f"narrow({total}, '<u4')")

    def _fma(self, ins: Instruction) -> list[str]:
        values = [self._get(one, ins.type) for one in ins.operands[1:]]
        if ins.modifiers[0] != "rn":
            values.append(repr(ins.modifiers[0]))
            return self._put(ins.operands[0], ins.type, f"directed({', '.join(values)})")
        return self._call(ins.operands[0], ins.type, "fma", *values)

    def _plain(self, ins: Instruction) -> list[str]:
        """Write the instructions that are one function of their operands."""
        to, kind = ins.operands[0], ins.type
        values = [self._get(one, kind) for one in ins.operands[1:]]
        if "rz" in ins.modifiers:  # a sum
            a, b = values
            return self._put(to, kind, f"directed({a}, np.float32(1), {b}, 'rz')")
        flushed = "ftz" in ins.modifiers  # from and to what is too small for a whole mantissa
        if flushed:
            values = [f"flushed({one})" for one in values]
        elif ins.op in BINARY or ins.op in UNARY:
            return self._call(to, kind, {**BINARY, **UNARY}[ins.op], *values)
        functions = {
            **UNARY,
            "div": "np.divide" if kind[0] == "f" else "divide",
            "rem": "remainder",
            "rcp": "np.reciprocal",
            "rsqrt": "reciprocal_root",
            "popc": "count_ones",
            "clz": "leading_zeros",
            "bfind": "shift_of_first_bit" if "shiftamt" in ins.modifiers else "first_bit",
            "brev": "reversed_bits",
            "copysign": "with_sign",
        }
        if ins.op in ("min", "max"):
            strict = kind[0] == "f" and "NaN" not in ins.modifiers
            functions[ins.op] = f"np.f{ins.op}" if strict else f"np.{ins.op}imum"
        expression = f"{functions[ins.op]}({', '.join(values)})"
        expression = f"flushed({expression})" if flushed else expression
        return self._put(to, "u32" if ins.op in ("popc", "clz", "bfind") else kind, expression)

    def _shl(self, ins: Instruction) -> list[str]:
        value, count = self._get(ins.operands[1], ins.type), self._get(ins.operands[2], "u32")
        return self._put(ins.operands[0], ins.type, f"shift({value}, {count}, {ins.op == 'shl'})")

    _shr = _shl

    def _bfi(self, ins: Instruction) -> list[str]:
        values = [self._get(one, ins.type) for one in ins.operands[1:3]]
        counts = [self._get(one, "u32") for one in ins.operands[3:]]
        return self._put(ins.operands[0], ins.type, f"insert({', '.join(values + counts)})")

    def _dp4a(self, ins: Instruction) -> list[str]:
        signs = ", ".join(str(kind == "s32") for kind in ins.modifiers)
        values = [self._get(one, "u32") for one in ins.operands[1:]]
        return self._put(ins.operands[0], "u32", f"dot_bytes({', '.join(values)}, {signs})")

    def _prmt(self, ins: Instruction) -> list[str]:
        values = [self._get(one, "u32") for one in ins.operands[1:]]
        return self._put(ins.operands[0], "u32", f"permute({', '.join(values)})")
