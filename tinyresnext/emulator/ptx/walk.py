"""Which threads run next: those that are behind, until all have ended."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import DeviceError
from .run import Run
from .source import arithmetic
from .source.marks import mark
from .source.parse import ENDS, Code, Instruction, parse
from .source.registers import Registers
from .source.write import Writer

Array = np.ndarray[Any, Any]


def spread(value: Any, lanes: Array) -> Array:
    """Return a value for each thread."""
    return np.broadcast_to(value, lanes.shape)


def narrow(value: Any, kind: str) -> Any:
    """Return the lower bits of whole numbers."""
    to = np.dtype(kind)
    if to.kind == "b":
        return np.asarray(value).astype(bool)
    return np.asarray(value).astype(f"u{to.itemsize}").view(to)


def fill(value: Any, kind: str) -> Any:
    """Return whole numbers in a wider type, with their sign if they have one."""
    value = np.asarray(value)
    if value.dtype.kind == "f":
        value = value.view(f"u{value.dtype.itemsize}")
    return value.astype(kind)


NAMES = {
    "np": np,
    "spread": spread,
    "narrow": narrow,
    "fill": fill,
    "as_address": lambda value: np.asarray(value).astype(np.uint64, copy=False),
    "fma": arithmetic.fma,
    "directed": arithmetic.directed,
    "flushed": arithmetic.flushed,
    "shift": arithmetic.shift,
    "insert": arithmetic.insert,
    "permute": arithmetic.permute,
    "dot_bytes": arithmetic.dot_bytes,
    "divide": arithmetic.divide,
    "remainder": arithmetic.remainder,
    "high": arithmetic.high,
    "convert": arithmetic.convert,
    "two_bfloats": arithmetic.two_bfloats,
    "count_ones": arithmetic.count_ones,
    "first_bit": arithmetic.first_bit,
    "shift_of_first_bit": arithmetic.shift_of_first_bit,
    "leading_zeros": arithmetic.leading_zeros,
    "reversed_bits": arithmetic.reversed_bits,
    "with_sign": arithmetic.with_sign,
    "reciprocal_root": lambda value: np.reciprocal(np.sqrt(value)),
}


class Program:
    """The PTX of a kernel, as Python that is compiled piece by piece when it is needed.

    Parameters
    ----------
    kernel : str
        The name of the kernel.
    text : str
        Its PTX.
    """

    def __init__(self, kernel: str, text: str) -> None:
        self.code: Code = parse(text, kernel)
        mark(self.code)
        self.registers = Registers(self.code)
        self._made: dict[tuple[int, bool, bool], Any] = {}

    def source(self, number: int, some: bool, barrier: bool = False) -> str:
        """Return the Python of a piece, or of the barrier at its end."""
        writer = Writer(self.code, self.registers, some)
        return writer.barrier(number) if barrier else writer.piece(number)

    def function(self, number: int, some: bool, barrier: bool) -> Any:
        """Return the compiled Python of a piece, or of the barrier at its end."""
        key = number, some, barrier
        if key not in self._made:
            self._made[key] = compile(self.source(*key), f"<piece {number}>", "exec")
        return self._made[key]


class Walk:
    """Runs the threads of some blocks from the first piece to the end.

    Parameters
    ----------
    program : Program
    run : Run
    parameters : dict
        The value of each parameter, by its name.
    patience : int
        How many pieces may run while nothing is written, no thread ends and no barrier is passed.
    """

    def __init__(
        self, program: Program, run: Run, parameters: dict[str, Any], patience: int
    ) -> None:
        self._program, self._run, self._patience = program, run, patience
        self._all = np.arange(run.lanes)
        self._names: dict[str, Any] = {**NAMES, **program.registers.constants}
        self._names["parameter"] = lambda name, kind: parameters[name].view(kind)[0]
        for name, value in run.special.items():
            for kind in ("u4", "i4"):
                self._names[f"special_{name}_{kind}"] = value.view(kind)
        self._here: dict[tuple[int, bool, bool], Callable[..., None]] = {}

    def to_the_end(self) -> None:
        """Run everything; raise `KernelFault` at the first mistake."""
        at: dict[int, Array] = {0: self._all}
        waiting: dict[int, Array] = {}
        with np.errstate(all="ignore"):
            while at or waiting:
                if not at:
                    self._barrier(waiting)
                    at, waiting = {number + 1: lanes for number, lanes in waiting.items()}, {}
                number = min(at)
                lanes = at.pop(number)
                self._run.idle += 1
                if self._run.idle > self._patience:
                    self._give_up(number)
                self._execute(number, lanes)
                self._count(number, lanes)
                self._jump(number, lanes, at, waiting)

    def _execute(self, number: int, lanes: Array, barrier: bool = False) -> None:
        """Run a piece without its end, or what the barrier at its end computes."""
        key = number, len(lanes) < self._run.lanes, barrier
        function = self._here.get(key)
        if function is None:
            code = self._program.function(*key)
            self._names.update(self._program.registers.constants)
            self._program.registers.add_arrays(self._tables, self._names)
            exec(code, self._names)
            function = self._here[key] = self._names["piece"]
        function(self._run, lanes, lanes)

    def _count(self, number: int, lanes: Array) -> None:
        if self._run.counters is not None:
            warps = len(np.unique(self._run.warps.warp[lanes]))
            self._run.counters.executed(self._program.code.pieces[number], warps, len(lanes))

    @functools.cached_property
    def _tables(self) -> dict[int, Array]:
        return self._program.registers.tables(self._run.lanes)

    def _jump(
        self, number: int, lanes: Array, at: dict[int, Array], waiting: dict[int, Array]
    ) -> None:
        """Say where threads go after a piece."""
        last: Instruction = self._program.code.pieces[number][-1]
        go = np.ones(len(lanes), bool)
        if last.guard and last.op in ENDS:
            name = self._program.registers.name(last.guard, np.dtype(bool))
            if name not in self._names:
                self._program.registers.add_arrays(self._tables, self._names)
            go = self._names[name][lanes] ^ last.negated
        if last.op == "bra":
            join(at, self._program.code.labels[last.operands[0]], lanes[go])
            join(at, number + 1, lanes[~go])
        elif last.op in ("ret", "exit"):
            join(at, number + 1, lanes[~go])
            self._run.idle = 0 if go.any() else self._run.idle
        elif last.waits:
            join(waiting, number, lanes[go])
            join(at, number + 1, lanes[~go])
        else:
            join(at, number + 1, lanes)

    def _barrier(self, waiting: dict[int, Array]) -> None:
        """Let threads pass a barrier, if all of their block are there."""
        place = np.full(self._run.lanes, -1)
        for number, lanes in waiting.items():
            place[lanes] = number
        blocks = place.reshape(-1, self._run.size)
        apart = (blocks != blocks[:, :1]).any(1)
        if apart.any():
            block = int(np.argmax(apart))
            number = int(blocks[block].max())
            missing = int(np.argmax(blocks[block] != number))
            self._run.at = number, len(self._program.code.pieces[number]) - 1
            lane = block * self._run.size + missing
            self._run.fault("barrier", "a barrier that is not reached by", lane)
        for number, lanes in waiting.items():
            self._execute(number, lanes, barrier=True)
        self._run.barrier()
        self._run.idle = 0

    def _give_up(self, number: int) -> None:
        """Raise `DeviceError` for threads that have run for long and done nothing."""
        where = self._program.code.pieces[number][0].where
        raise DeviceError(
            f"kernel {self._run.kernel}: {self._patience:,} pieces of code have run since a thread "
            "last wrote a word, ended or passed a barrier; threads that wait in a loop for what "
            "other threads write, as for a lock, are not emulated, and a loop that is only long "
            f"needs a PtxMachine with more patience\n  {where}"
        )


def join(at: dict[int, Array], number: int, lanes: Array) -> None:
    """Add threads to those that are at a piece."""
    if len(lanes):
        at[number] = np.sort(np.concatenate([at[number], lanes])) if number in at else lanes
