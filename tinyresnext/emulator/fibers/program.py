"""A kernel compiled for this processor, and one run of it."""

from __future__ import annotations

import ctypes
import functools
import re
import signal
import threading
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ...errors import DeviceError
from ...ops.cuda.runtime.kernel import MOST, Capability, Kernel
from ..arguments import check_shared
from ..fault import KernelFault
from ..local import PLAIN, fill
from ..memory import GUARD, POISON
from . import schedule
from .arithmetic import ARITHMETIC
from .atomics import ATOMIC
from .stops import STOPS, caught
from .tensor import TENSOR
from .translate import translate
from .words import PLACES, QUEUE, RUNTIME

STACK = 1 << 16  # bytes of a thread's stack
APART = STACK + 576  # from one to the next: so that they do not compete for the same cache lines
CANARY = 0xA5
LOCK = threading.Lock()  # what a kernel is given, and its stacks, are in places known to its code


def target() -> Any:
    """Return LLVM's description of this processor, in full: a new one, since an engine owns it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )


@functools.cache
def stacks() -> tuple[np.ndarray, np.ndarray]:
    """Return the stacks of all fibers, a row for each, and where each ends."""
    rows = np.empty((MOST, APART), np.uint8)
    rows[:, :64] = CANARY
    ends = rows.ctypes.data + np.arange(1, MOST + 1, dtype=np.int64) * APART
    return rows, ends // 16 * 16


class Program:
    """A kernel as code of this processor.

    Parameters
    ----------
    kernel : Kernel
    capability : tuple of int
        The GPU's, that the kernel is compiled for first.

    Raises
    ------
    DeviceError
        The kernel uses something that cannot be emulated.
    KernelFault
        A thread has larger arrays of its own than there is room for.
    """

    def __init__(self, kernel: Kernel, capability: Capability) -> None:
        given, name = kernel.llvm(capability)
        texts, self.waits = translate([fill(one, PLAIN) for one in given], name)
        functions = set(re.findall(r"\b__nv_(\w+)", "".join(given)))
        text = "\n".join(texts)
        if own_bytes(text) > STACK // 2:
            what = f"a thread has arrays of {own_bytes(text):,} bytes, and {STACK // 2:,} are there"
            raise KernelFault("stack", kernel.name, what)
        if " half" in text and not llvm.get_host_cpu_features().get("f16c"):
            raise DeviceError(
                f"kernel {kernel.name} computes with float16, and this processor has no "
                "instructions for it (F16C); the emulator of PTX has it everywhere"
            )
        module = linked(kernel, texts, functions)
        processor = target()
        module.triple, module.data_layout = llvm.get_process_triple(), str(processor.target_data)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.slp_vectorization = True
        passes = llvm.create_pass_builder(processor, options)
        passes.getModulePassManager().run(module, passes)
        self.kernel, self._engine = kernel, llvm.create_mcjit_compiler(module, processor)
        self._engine.finalize_object()
        code = self._engine.get_function_address
        self._start, self._resume = code("fiber_prepare"), code("fiber_resume")
        self._stop = code("fiber_stop")
        self._enter = ctypes.CFUNCTYPE(None, ctypes.c_int64)(code("fiber_apart"))
        self._given = self._numbers("apart", 5, kind=np.int64)
        self._low, self._high = (self._numbers(one, 1, kind=np.int64) for one in ("low", "high"))
        self._stopped, self._fiber = self._numbers("stopped", 1), self._numbers("fiber", 1)
        self._block, self._blocks = self._numbers("block", 1), self._numbers("blocks", 1)
        self._late, self._threads = self._numbers("late", 1), self._numbers("threads", 1)
        self._asked, self._answer = (
            self._numbers("asked", MOST, 6),
            self._numbers("answer", MOST, 2),
        )
        self._turn = self._numbers("turn", MOST)
        self._queue = self._numbers("queue", MOST, QUEUE, 4, kind=np.int64)
        self._queued = self._numbers("queued", MOST)
        self._arguments = self._numbers("arguments", PLACES, kind=np.int64)
        self._shared = self._numbers("fiber_arrays", module_arrays(text), kind=np.int64)
        self._margins = [
            bytes_at(first + size, GUARD) for first, size in self._shared.reshape(-1, 2).tolist()
        ]
        check_shared(kernel.name, int(self._shared[1::2].sum()))

    def _numbers(self, name: str, *shape: int, kind: Any = np.int32) -> np.ndarray:
        """Return a variable of the module as an array."""
        address = self._engine.get_global_value_address(name)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return bytes_at(address, size).view(kind).reshape(shape)

    def run(self, blocks: int, values: list[np.ndarray], order: np.ndarray, late: bool) -> None:
        """Run all blocks of a grid; ``values`` has one number for each parameter.

        Raises
        ------
        KernelFault
            A barrier that not all threads reach, a shuffle that lacks one, memory that is not
            there or lies behind a shared array, or a stack that is full.
        """
        if len(values) > PLACES:
            raise DeviceError(f"{len(values)} numbers for {self.kernel.name}; expected {PLACES}")
        with LOCK:
            for i, value in enumerate(values):
                self._arguments[i : i + 1].view(value.dtype)[0] = value[0]
            self._threads[0], self._blocks[0], self._late[0] = len(order), blocks, late
            self._turn[:], self._stopped[0] = 0, 0
            for margin in self._margins:
                margin[:] = POISON
            rows, ends = stacks()
            self._low[0], self._high[0] = rows.ctypes.data, rows.ctypes.data + rows.nbytes
            with caught(self._stop):
                end = self._run_waiting(ends, order, blocks) if self.waits else schedule.WHOLE
                if not self.waits:
                    grid = self._block.ctypes.data, order.ctypes.data, len(order), blocks
                    self._given[:] = schedule.plain.address, *grid
                    self._enter(int(ends[0]))
            full = bool((rows[: len(order), :64] != CANARY).any())
            rows[:, :64] = CANARY
            self._check(end, full, int(self._stopped[0]))

    def _run_waiting(self, ends: np.ndarray, order: np.ndarray, blocks: int) -> int:
        """Run blocks whose threads wait for each other; return as `schedule.waiting` does."""
        ended, ready = np.zeros(1, np.int32), np.zeros(MOST, np.int32)
        arrays = self._block, self._asked, self._answer, ready, self._queued, order, self._queue
        return schedule.run_waiting(
            self._start,
            self._resume,
            *(array.ctypes.data for array in (*arrays, self._shared)),
            len(self._shared) // 2,
            ends.ctypes.data,
            ended.ctypes.data,
            len(order),
            blocks,
        )

    def _check(self, end: int, full: bool, stopped: int) -> None:
        """Raise what a launch ended by, if that is not its end."""
        how, thread = divmod(end, 1024)
        name, block = self.kernel.name, f"of block {self._block[0]}"
        if stopped == signal.SIGINT:
            raise KeyboardInterrupt
        if full:
            raise KernelFault("stack", name, f"a thread needs more than {STACK:,} bytes of its own")
        for margin, size in zip(self._margins, self._shared[1::2].tolist(), strict=True):
            if (margin != POISON).any():
                place = size + int(np.argmax(margin != POISON))
                what = f"it wrote to byte {place} of {size} bytes of shared memory"
                raise KernelFault("bounds", name, what)
        if stopped == signal.SIGFPE:
            raise DeviceError(f"kernel {name} divides by zero in thread {self._fiber[0]} {block}")
        if stopped:
            what = "accesses memory that is not there, or has written over its own stack"
            raise KernelFault("bounds", name, f"thread {self._fiber[0]} {block} {what}")
        if how == schedule.DIVERGENT:
            what = f"thread {thread} {block} has ended, and others wait at a barrier"
            raise KernelFault("barrier", name, what)
        if how == schedule.ABSENT:
            what = "its shuffle, vote, warp barrier or mma names a thread that is elsewhere"
            raise KernelFault("shuffle", name, f"thread {thread} {block}: {what}")


def linked(kernel: Kernel, texts: list[str], functions: set[str]) -> Any:
    """Return the modules of a kernel as one, with the words that they call.

    ``functions`` are those of libdevice; the C library has them under the same names. Whatever else
    has the name of a function there is another one, such as NVIDIA's ``vprintf``.

    Raises
    ------
    DeviceError
        They are no LLVM for this processor, or call what is not there.
    """
    try:
        module = llvm.parse_assembly(texts[0])
        for text in [*texts[1:], RUNTIME + TENSOR + ARITHMETIC + ATOMIC + STOPS]:
            module.link_in(llvm.parse_assembly(text))
    except RuntimeError as error:
        raise DeviceError(
            f"kernel {kernel.name} is not emulated by fibers: {' '.join(str(error).split())[:300]}"
        ) from error
    for function in module.functions:
        name = function.name
        known = name.startswith("llvm.") or name in functions | {"signal"}  # `stops` calls it
        if function.is_declaration and not known:
            what = "print" if name == "vprintf" else name
            raise DeviceError(f"kernel {kernel.name} calls {what}, which fibers cannot emulate")
    return module


def bytes_at(address: int, size: int) -> Any:
    """Return bytes of this process as an array."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def own_bytes(text: str) -> int:
    """Return how many bytes the arrays take that a thread has for itself."""
    sizes = {"float": 4, "double": 8, "i8": 1, "i32": 4, "i64": 8}
    arrays = re.findall(r"= alloca \[(\d+) x (\w+)\]", text)
    return sum(int(count) * sizes.get(kind, 8) for count, kind in arrays)


def module_arrays(text: str) -> int:
    """Return how many numbers the table of shared arrays has."""
    return int(text.split("@fiber_arrays = global [")[1].split(" ")[0])
