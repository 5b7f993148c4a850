"""The machine: memory of this process, and launches that run to their end at once."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ...errors import DeviceError, UsageError
from ...ops.cuda.runtime.arrays import DeviceArray, Scratch
from ...ops.cuda.runtime.kernel import Capability, Kernel
from ...ops.cuda.runtime.machine import Launch
from ...system.words import one_of
from ..arguments import check_capability, numbers
from ..fault import KernelFault
from ..memory import Block, Heap

Order = Literal["ascending", "descending"] | int
ORDERS, TIMES = ("ascending", "descending"), ("early", "late")


class FiberMachine:
    """An emulated GPU that is fast enough for whole networks, and watches little.

    Kernels run as code of this processor that nobody watches. What they write outside of their
    arrays is found if it lies in the kilobyte behind one, or where there is no memory; anything
    else may change this process. So run a new kernel by `PtxMachine` first.

    Run the same twice, with the threads in another order and the copies at another time: where
    the results differ, a barrier or a wait is missing.

    Parameters
    ----------
    order : {"ascending", "descending"} or int
        In which the threads of a block run between two barriers; a number seeds a random order.
    copies : {"early", "late"}
        When asynchronous copies are made: at once, or not before somebody waits for them. A GPU
        may do either.
    capability : tuple of int
        The compute capability that kernels are compiled for.
    memory : int
        How many bytes the GPU has.
    multiprocessors : int
        How many it says it has; kernels choose their tiles by it.

    Raises
    ------
    DeviceError
        This is not Linux on x86-64, the only place where fibers are written down.
    UsageError
        There is no such order, or no such time of copies.
    """

    def __init__(
        self,
        order: Order = "ascending",
        copies: Literal["early", "late"] = "late",
        capability: Capability = (8, 0),
        memory: int = 8 << 30,
        multiprocessors: int = 8,
    ) -> None:
        # as a pair: a plain comparison of `sys.platform` hides what follows from mypy elsewhere
        if (sys.platform, platform.machine()) not in (("linux", "x86_64"), ("linux", "AMD64")):
            raise DeviceError(
                f"the fibers of the emulator run on Linux on x86-64, and this is {sys.platform} "
                f"on {platform.machine()}; the emulator of PTX runs everywhere"
            )
        if order not in ORDERS and not (isinstance(order, int | np.integer) and order >= 0):
            raise UsageError(
                f"order is {order!r}: expected {' or '.join(ORDERS)}, or a whole number from 0 on"
            )
        if copies not in TIMES:
            raise UsageError(f"copies is {copies!r}: {one_of(copies, TIMES)}")
        self.name, self.multiprocessors = "fibers", multiprocessors
        self.capability = check_capability(capability)
        self._heap, self._order, self._late = Heap(memory), order, copies == "late"
        self.allocate = self.room = self._heap.allocate  # nobody finds what a call before has left
        self.free_bytes = self._heap.free_bytes
        self.write, self.read = self._heap.write, self._heap.read

    def wait(self) -> None:
        """Return at once: launches have ended when they return."""

    def launch(self, launch: Launch) -> None:
        """Run a kernel to its end.

        Raises
        ------
        KernelFault
            A barrier that not all threads reach, a shuffle that lacks a thread, or something
            written outside of an array.
        KeyboardInterrupt
            Somebody pressed Ctrl-C, also while a kernel waits for ever; its arrays hold anything.
        """
        self.prepare([launch])()

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Compile the kernels and return a call that runs all launches."""
        ready = [
            (compiled(one.kernel, self.capability), one, threads(self._order, one.kernel.threads))
            for one in launches
        ]

        def run() -> None:
            for program, one, order in ready:
                if one.blocks > 0:
                    program.run(one.blocks, numbers(one), order, self._late)
                check_guards(one)

        return run


@functools.cache
def compiled(kernel: Kernel, capability: Capability) -> Any:
    """Return the program of a kernel, compiled once a process."""
    from .program import Program  # Numba compiles the scheduler when it is first needed

    return Program(kernel, capability)


@functools.cache
def threads(order: Order, count: int) -> np.ndarray:
    """Return the threads of a block in the order in which they run, warp by warp."""
    ascending = np.arange(count, dtype=np.int32)
    if order == "ascending":
        return ascending
    warps = [ascending[first : first + 32] for first in range(0, count, 32)]
    if order == "descending":
        return np.concatenate([warp[::-1] for warp in warps[::-1]])
    rng = np.random.default_rng(order)
    return np.concatenate([rng.permutation(warps[i]) for i in rng.permutation(len(warps))])


def check_guards(launch: Launch) -> None:
    """Raise `KernelFault` if a kernel wrote beside one of its arrays."""
    for value in launch.arguments:
        memory = value.memory if isinstance(value, DeviceArray) else None
        memory = memory.within if isinstance(memory, Scratch) else memory
        if isinstance(memory, Block):
            place = memory.overrun()
            if place is not None:
                what = f"it wrote to byte {place} of {memory.size} bytes of memory"
                raise KernelFault("bounds", launch.kernel.name, what)
