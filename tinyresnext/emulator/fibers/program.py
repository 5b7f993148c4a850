"""A kernel compiled for this processor, and one run of it."""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ...errors import DeviceError
from ...ops.cuda.runtime.kernel import MOST, Capability, Kernel
from ..arguments import check_shared
from ..fault import KernelFault
from ..local import PLAIN, fill
from . import schedule
from .arithmetic import ARITHMETIC
from .atomics import ATOMIC
from .tensor import TENSOR
from .translate import translate
from .words import QUEUE, RUNTIME

STACK = 1 << 16  # bytes of a thread's stack
APART = STACK + 576  # from one to the next: so that they do not compete for the same cache lines
CANARY = 0xA5
LOCK = threading.Lock()  # what a kernel is given, and its stacks, are in places known to its code


@functools.cache
def target() -> Any:
    """Return LLVM's description of this processor, in full."""
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
        text = "\n".join(texts)
        if own_bytes(text) > STACK // 2:
            what = f"a thread has arrays of {own_bytes(text):,} bytes, and {STACK // 2:,} are there"
            raise KernelFault("stack", kernel.name, what)
        if " half" in text and not llvm.get_host_cpu_features().get("f16c"):
            raise DeviceError(
                f"kernel {kernel.name} computes with float16, and this processor has no "
                "instructions for it (F16C); the emulator of PTX has it everywhere"
            )
        module = linked(kernel, texts)
        module.triple, module.data_layout = llvm.get_process_triple(), str(target().target_data)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.slp_vectorization = True
        passes = llvm.create_pass_builder(target(), options)
        passes.getModulePassManager().run(module, passes)
        self.kernel, self._engine = kernel, llvm.create_mcjit_compiler(module, target())
        self._engine.finalize_object()
        code = self._engine.get_function_address
        self._start, self._resume = code("fiber_prepare"), code("fiber_resume")
        self._plain = code("fiber_plain")
        self._block, self._blocks = self._numbers("block", 1), self._numbers("blocks", 1)
        self._late, self._threads = self._numbers("late", 1), self._numbers("threads", 1)
        self._asked, self._answer = (
            self._numbers("asked", MOST, 6),
            self._numbers("answer", MOST, 2),
        )
        self._turn = self._numbers("turn", MOST)
        self._queue = self._numbers("queue", MOST, QUEUE, 4, kind=np.int64)
        self._queued = self._numbers("queued", MOST)
        self._arguments = self._numbers("arguments", 64, kind=np.int64)
        self._shared = self._numbers("fiber_arrays", module_arrays(text), kind=np.int64)
        check_shared(kernel.name, int(self._shared[1::2].sum()))

    def _numbers(self, name: str, *shape: int, kind: Any = np.int32) -> np.ndarray:
        """Return a variable of the module as an array."""
        address = self._engine.get_global_value_address(name)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)

    def run(self, blocks: int, values: list[np.ndarray], order: np.ndarray, late: bool) -> None:
        """Run all blocks of a grid; ``values`` has one number for each parameter.

        Raises
        ------
        KernelFault
            A barrier that not all threads reach, a shuffle that lacks one, or a stack that is full.
        """
        with LOCK:
            for i, value in enumerate(values):
                self._arguments[i : i + 1].view(value.dtype)[0] = value[0]
            self._threads[0], self._blocks[0], self._late[0] = len(order), blocks, late
            self._turn[:] = 0
            grid = order.ctypes.data, len(order), blocks
            if not self.waits:
                schedule.run_plain(self._plain, self._block.ctypes.data, *grid)
                return
            rows, ends = stacks()
            block, ready = np.zeros(1, np.int32), np.zeros(MOST, np.int32)
            end = schedule.run_waiting(
                self._start,
                self._resume,
                *(
                    array.ctypes.data
                    for array in (
                        self._block,
                        self._asked,
                        self._answer,
                        ready,
                        self._queued,
                        order,
                        self._queue,
                        self._shared,
                    )
                ),
                len(self._shared) // 2,
                ends.ctypes.data,
                block.ctypes.data,
                len(order),
                blocks,
            )
            full = bool((rows[: len(order), :64] != CANARY).any())
            rows[:, :64] = CANARY
        how, thread = divmod(end, 1024)
        name, who = self.kernel.name, f"thread {thread} of block {block[0]}"
        if full:
            raise KernelFault("stack", name, f"a thread needs more than {STACK:,} bytes of its own")
        if how == schedule.DIVERGENT:
            raise KernelFault("barrier", name, f"{who} has ended, and others wait at a barrier")
        if how == schedule.ABSENT:
            what = "its shuffle, vote, warp barrier or mma names a thread that is elsewhere"
            raise KernelFault("shuffle", name, f"{who}: {what}")


def linked(kernel: Kernel, texts: list[str]) -> Any:
    """Return the modules of a kernel as one, with the words that they call.

    Raises
    ------
    DeviceError
        They are no LLVM for this processor, or call what is not there.
    """
    try:
        module = llvm.parse_assembly(texts[0])
        for text in [*texts[1:], RUNTIME + TENSOR + ARITHMETIC + ATOMIC]:
            module.link_in(llvm.parse_assembly(text))
    except RuntimeError as error:
        raise DeviceError(
            f"kernel {kernel.name} is not emulated by fibers: {' '.join(str(error).split())[:300]}"
        ) from error
    for function in module.functions:
        name = function.name
        known = name.startswith("llvm.") or llvm.address_of_symbol(name)
        if function.is_declaration and not known:
            raise DeviceError(f"kernel {kernel.name} calls {name}, which fibers cannot emulate")
    return module


def own_bytes(text: str) -> int:
    """Return how many bytes the arrays take that a thread has for itself."""
    sizes = {"float": 4, "double": 8, "i8": 1, "i32": 4, "i64": 8}
    arrays = re.findall(r"= alloca \[(\d+) x (\w+)\]", text)
    return sum(int(count) * sizes.get(kind, 8) for count, kind in arrays)


def module_arrays(text: str) -> int:
    """Return how many numbers the table of shared arrays has."""
    return int(text.split("@fiber_arrays = global [")[1].split(" ")[0])
