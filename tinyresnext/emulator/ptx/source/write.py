"""From the instructions of a kernel to Python: one line of NumPy for each, all threads at once.

A register is an array with a value for each thread. Every piece of code is written twice. When all
threads run it, ``np.add(a, b, out=c)`` is enough; when some do, ``c[I] = np.add(a[I], b[I])`` with
the numbers of these threads. The names that a line can use stand in `names.NAMES`.
"""

from __future__ import annotations

from ....errors import DeviceError
from .compute import Computing
from .known import known
from .parse import ENDS, TYPES, Instruction


class Writer(Computing):
    """Writes the Python of one kernel; made as `Computing` is."""

    def piece(self, number: int) -> str:
        """Return a function ``piece(M, I, L)`` for a piece without its jump.

        ``M`` is the run, ``I`` and ``L`` are the numbers of the threads.
        """
        lines = []
        for ins in self.code.pieces[number]:
            if ins.op not in ENDS or "warp" in ins.modifiers:
                lines += self._guarded(number, ins)
        return self._function(lines)

    def barrier(self, number: int) -> str:
        """Return a function as `piece` does, for the barrier that a piece ends with.

        It is called for all threads of the blocks that have reached it.
        """
        return self._function(self._lines(number, self.code.pieces[number][-1]))

    @staticmethod
    def _function(lines: list[str]) -> str:
        return "\n".join(["def piece(M, I, L):", *(f"    {line}" for line in lines), "    return"])

    def _guarded(self, number: int, ins: Instruction) -> list[str]:
        """Return the lines of an instruction that perhaps not all threads execute."""
        if not ins.guard:
            return self._lines(number, ins)
        flag = f"{'~' if ins.negated else ''}{self._get(ins.guard, 'pred')}"
        before, self.index = self.index, "[I]"
        lines = self._lines(number, ins)
        self.index = before
        return [
            "I0, L0 = I, L",
            f"L = L[{flag}]",
            "I = L",
            "if len(L):",
            *(f"    {line}" for line in lines),
            "I, L = I0, L0",
        ]

    def _lines(self, number: int, ins: Instruction) -> list[str]:
        place = self.code.pieces[number].index(ins)
        method = getattr(self, f"_{ins.op}", None)
        try:
            if not known(ins):
                raise KeyError(ins.text)
            lines = method(ins) if method else self._plain(ins)
        except (KeyError, IndexError, ValueError) as error:
            raise DeviceError(
                f"kernel {self.code.kernel}: the emulator does not know {ins.where}"
            ) from error
        if ins.op in ("ld", "st", "cp", "atom", "red", "shfl", "vote", "bar", "barrier", "mma"):
            return [f"M.at = {number}, {place}", *lines]
        return lines

    # --- memory -----------------------------------------------------------------------------------

    def _ld(self, ins: Instruction) -> list[str]:
        if ins.modifiers[0] == "param":
            name = ins.operands[1].strip("[]").split("+")[0].strip()
            return self._put(
                ins.operands[0], ins.type, f"parameter({name!r}, '{TYPES[ins.type].str}')"
            )
        into = ins.operands[0].strip("{}").split(",")
        given = f"{self._space(ins)!r}, {self._address(ins.operands[1])}, L"
        kind, begins = TYPES[ins.type].str, ins.line in self.code.exchanging
        lines = [f"got = M.load({given}, np.dtype('{kind}'), {len(into)}, {begins})"]
        for q, register in enumerate(into):
            lines += self._put(register.strip(), ins.type, f"got[{q}]")
        return lines

    def _st(self, ins: Instruction) -> list[str]:
        values = [
            self._get(one.strip(), ins.type) for one in ins.operands[1].strip("{}").split(",")
        ]
        address = self._address(ins.operands[0])
        kind = TYPES[ins.type].str
        given = f"{address}, L, np.dtype('{kind}'), [{', '.join(values)}]"
        lines = [f"M.store({self._space(ins)!r}, {given})"]
        if ins.line in self.code.filling:
            size = TYPES[ins.type].itemsize * len(values)
            lines.append(f"M.forget({self._space(ins)!r}, {address}, L, {size})")
        return lines

    def _cp(self, ins: Instruction) -> list[str]:
        if "commit_group" in ins.modifiers:
            return ["M.copies.commit(L)"]
        if "wait_all" in ins.modifiers or "wait_group" in ins.modifiers:
            groups = ins.operands[0] if ins.operands else "-1"
            return [f"M.copies.wait(L, {groups})"]
        to, of, size = (
            self._address(ins.operands[0]),
            self._address(ins.operands[1]),
            ins.operands[2],
        )
        taken = self._get(ins.operands[3], "u32") if len(ins.operands) > 3 else f"np.uint32({size})"
        return [f"M.copy({to}, {of}, L, {size}, spread({taken}, L))"]

    def _atom(self, ins: Instruction) -> list[str]:
        names = ("add", "max", "min", "exch", "cas", "inc", "dec", "and", "or", "xor")
        how = next(one for one in ins.modifiers if one in names)
        operands = ins.operands[1:] if ins.op == "atom" else ins.operands
        values = [f"spread({self._get(one, ins.type)}, L)" for one in operands[1:]]
        call = (
            f"M.atomic({self._space(ins)!r}, {how!r}, {self._address(operands[0])}, L, "
            f"np.dtype('{TYPES[ins.type].str}'), {', '.join(values)})"
        )
        return self._put(ins.operands[0], ins.type, call) if ins.op == "atom" else [call]

    _red = _atom

    # --- other threads ----------------------------------------------------------------------------

    def _shfl(self, ins: Instruction) -> list[str]:
        to, _, flag = ins.operands[0].partition("|")
        mode = ins.modifiers[1]
        values = [f"spread({self._get(one, 'u32')}, L)" for one in ins.operands[1:]]
        lines = [f"got = M.warps.shuffle({mode!r}, L, {', '.join(values)})"]
        lines += self._put(to, "b32", "got[0]")
        return lines + (self._put(flag, "pred", "got[1]") if flag else [])

    def _vote(self, ins: Instruction) -> list[str]:
        how = ins.modifiers[1]
        flag, mask = (
            self._get(ins.operands[1].lstrip("!"), "pred"),
            self._get(ins.operands[2], "u32"),
        )
        flag = f"~{flag}" if ins.operands[1].startswith("!") else flag
        call = f"M.warps.vote({how!r}, L, spread({flag}, L), spread({mask}, L))"
        return self._put(ins.operands[0], "b32" if how == "ballot" else "pred", call)

    def _mma(self, ins: Instruction) -> list[str]:
        shape = next(one for one in ins.modifiers if one.startswith("m16n8k"))
        kind = ins.modifiers[-2]
        known = (shape, kind) in (("m16n8k8", "f16"), ("m16n8k16", "f16"), ("m16n8k16", "bf16"))
        types = ("f32", kind, kind, "f32")
        if not known or ins.modifiers != ("sync", "aligned", shape, "row", "col", *types):
            raise KeyError(ins.text)
        to, *of = ([one.strip() for one in each.strip("{}").split(",")] for each in ins.operands)
        pairs = [[f"spread({self._get(one, 'u32')}, L)" for one in each] for each in of[:2]]
        sums = [f"spread({self._get(one, 'f32')}, L)" for one in of[2]]
        given = ", ".join(f"[{', '.join(values)}]" for values in (*pairs, sums))
        lines = [f"got = M.warps.multiply({int(shape[6:])}, {kind!r}, L, {given})"]
        for q, register in enumerate(to):
            lines += self._put(register, "f32", f"got[{q}]")
        return lines

    def _activemask(self, ins: Instruction) -> list[str]:
        return self._put(ins.operands[0], "b32", "M.warps.here(L)")

    def _bar(self, ins: Instruction) -> list[str]:
        if not ins.waits:
            return [f"M.warp_barrier(L, spread({self._get(ins.operands[0], 'u32')}, L))"]
        if "red" not in ins.modifiers:
            if len(ins.operands) > 1:  # for some of the threads of a block
                raise KeyError(ins.text)
            return []
        to, _, flag = ins.operands  # else for some of the threads
        how = next(one for one in ins.modifiers if one in ("popc", "and", "or"))
        said = f"{'~' if flag[0] == '!' else ''}{self._get(flag.lstrip('!'), 'pred')}"
        return self._put(to, ins.type, f"M.said({how!r}, L, spread({said}, L))")

    _barrier = _bar

    def _membar(self, ins: Instruction) -> list[str]:
        return []

    _fence = _nanosleep = _membar
