"""What runs kernels: a GPU through NVIDIA's driver, or one of the emulators that need no GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # an array needs no Numba
    from .arrays import DeviceArray
    from .kernel import Capability, Kernel

ALIGNED = 256  # bytes; every allocation begins at a multiple, as the driver's do


class Launch(NamedTuple):
    """One run of a kernel, with what it is given.

    Attributes
    ----------
    kernel : Kernel
    blocks : int
        Of the grid, which is one-dimensional.
    arguments : tuple
        One for each parameter of the kernel: an array (its address is passed), None (the null
        pointer), or a number.
    """

    kernel: Kernel
    blocks: int
    arguments: tuple[DeviceArray | int | float | None, ...]


class Memory(Protocol):
    """One allocation; it is freed when nobody holds it."""

    address: int
    size: int  # in bytes


class Machine(Protocol):
    """Memory, copies and launches. Everything happens in the order of the calls.

    Attributes
    ----------
    name : str
        As users name the device: ``cuda:0``.
    capability : tuple of int
        The compute capability that kernels are compiled for.
    multiprocessors : int
        How many blocks run at a time, at least.
    """

    name: str
    capability: Capability
    multiprocessors: int

    def allocate(self, size: int) -> Memory:
        """Return ``size`` bytes, not filled; raise `OutOfMemoryError` if there are not as many."""

    def room(self, size: int) -> Memory:
        """Return memory for one call of this thread; the next call may be given the same."""

    def free_bytes(self) -> int:
        """Return how many bytes can still be allocated."""

    def write(self, address: int, values: np.ndarray) -> None:
        """Copy a contiguous array to the device."""

    def read(self, address: int, out: np.ndarray) -> None:
        """Fill a contiguous array from the device, when all launches before have ended."""

    def wait(self) -> None:
        """Return when all launches of this thread have ended."""

    def launch(self, launch: Launch) -> None:
        """Start one kernel."""

    def prepare(self, launches: Sequence[Launch]) -> Callable[[], None]:
        """Return a call that starts all of these, in order: a graph, where the machine has them."""
