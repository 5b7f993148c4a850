"""The machine: kernels compiled to PTX, which is executed and watched."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

from ...errors import DeviceError
from ...ops.cuda.runtime.kernel import Capability, Kernel
from ...ops.cuda.runtime.machine import Launch
from ..arguments import check_capability, check_shared, extents, numbers
from ..counters import Counters
from ..local import filled
from .memory import Heap
from .run import Run
from .walk import Program, Walk

LANES = 8192  # threads that run together, at most: more of them leave the processor's cache


class PtxMachine:
    """An emulated GPU that executes PTX and watches every access.

    It raises `KernelFault` for a race between threads, an asynchronous copy that nobody waited for,
    a word that nobody wrote, an access outside of the arrays that the kernel was given, a
    misaligned access, a barrier that not all threads of a block reach, and a shuffle that names a
    thread which is elsewhere.

    Parameters
    ----------
    capability : tuple of int
        The compute capability that kernels are compiled for.
    count : bool
        Whether to count instructions, sectors and wavefronts, in `counters`.
    watched : bool
        Whether to look for races, unwritten words and copies under way. Everything else is always
        looked for.
    memory : int
        How many bytes the GPU has.
    multiprocessors : int
        How many it says it has; kernels choose their tiles by it.
    patience : int
        How many pieces of code without a jump may run, one after the other, until a word of memory
        is written, a thread ends, or a block passes a barrier. Threads that wait for each other
        would never end.

    Attributes
    ----------
    counters : dict of str to Counters
        For each kernel by its name what was counted.
    """

    def __init__(
        self,
        capability: Capability = (8, 0),
        count: bool = False,
        watched: bool = True,
        memory: int = 8 << 30,
        multiprocessors: int = 8,
        patience: int = 1_000_000,
    ) -> None:
        self.name, self.multiprocessors = "ptx", multiprocessors
        self.capability = check_capability(capability)
        self.counters: dict[str, Counters] = {}
        self._patience = patience
        self._heap, self._count, self._watched, self._threads = Heap(memory), count, watched, 0
        self.allocate = self.room = self._heap.allocate  # nobody finds what a call before has left
        self.free_bytes = self._heap.free_bytes
        self.write, self.read = self._heap.write, self._heap.read

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Return a call that runs all launches."""

        def run() -> None:
            for one in launches:
                self.launch(one)

        return run

    def wait(self) -> None:
        """Return at once: launches have ended when they return."""

    def launch(self, launch: Launch) -> None:
        """Run a kernel to its end.

        Raises
        ------
        KernelFault
            At its first mistake.
        DeviceError
            It has what is not emulated.
        """
        kernel, blocks, _ = launch
        program = compiled(kernel, self.capability)
        check_shared(kernel.name, program.code.shared)
        counters = None
        if self._count:
            counters = self.counters.setdefault(kernel.name, Counters(kernel.name))
        names = [name for name, _ in program.code.parameters]
        parameters = dict(zip(names, numbers(launch), strict=True))
        first, self._threads = self._threads, self._threads + blocks * kernel.threads
        batch = max(1, LANES // kernel.threads)
        for start in range(0, blocks, batch):
            run = Run(
                kernel.name,
                program.code,
                self._heap,
                extents(launch),
                range(start, min(start + batch, blocks)),
                blocks,
                kernel.threads,
                first,
                counters,
                self._watched,
            )
            try:
                Walk(program, run, parameters, self._patience).to_the_end()
            finally:
                run.end()


@functools.cache
def text_of(kernel: Kernel, capability: Capability) -> str:
    """Return the PTX of a kernel with the lines of its source, compiled once a process."""
    try:
        with (
            filled(),
            warnings.catch_warnings(),
        ):  # a function without a file has no lines, and is run
            warnings.filterwarnings("ignore", "Could not find source for function")
            return kernel.ptx(capability, lines=True)
    except DeviceError:
        # NVVM 13.0 refuses a few large kernels when it is to name their lines; reports have none.
        with filled():
            return kernel.ptx(capability)


@functools.cache
def compiled(kernel: Kernel, capability: Capability) -> Program:
    """Return the program of a kernel, made once a process."""
    return Program(kernel.name, text_of(kernel, capability))
