"""Run a kernel that somebody else wrote, on NumPy arrays, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import typeof

from ..ops.cuda.runtime.arrays import download, empty, upload
from ..ops.cuda.runtime.kernel import Kernel
from ..ops.cuda.runtime.machine import Launch
from .counters import Counters

if TYPE_CHECKING:
    from .fibers import FiberMachine
    from .ptx import PtxMachine


def check(
    function: Callable[..., Any],
    blocks: int,
    threads: int,
    *arguments: Any,
    machine: FiberMachine | PtxMachine | None = None,
) -> Counters | None:
    """Run a kernel of `numba.cuda` without a GPU, and change its arrays in place.

    Parameters
    ----------
    function : callable
        A Python function for `numba.cuda.jit`, or what that made of one.
    blocks, threads : int
        Of the grid, and of a block; both have one dimension.
    arguments : numpy.ndarray, int or float
        As the kernel takes them. Arrays are contiguous; their types decide what is compiled.
    machine : FiberMachine or PtxMachine or None
        What runs it: by default PTX that is watched, for compute capability 8.0, and counted.

    Returns
    -------
    Counters or None
        What was counted, where the machine counts.

    Raises
    ------
    KernelFault
        The kernel does what a GPU leaves undefined.
    DeviceError
        It cannot be compiled or emulated here.
    """
    if machine is None:
        from .ptx import PtxMachine

        machine = PtxMachine(count=True)
    function = getattr(function, "py_func", function)
    kernel = Kernel(function.__name__, function, tuple(map(typeof, arguments)), threads)
    given = [upload_as_it_is(machine, one) for one in arguments]
    machine.launch(Launch(kernel, blocks, tuple(given)))
    for array, there in zip(arguments, given, strict=True):
        if isinstance(array, np.ndarray):
            array[...] = download(there)
    return getattr(machine, "counters", {}).get(kernel.name)


def upload_as_it_is(machine: Any, value: Any) -> Any:
    """Return an array on a machine, with its own type; a number stays one."""
    if not isinstance(value, np.ndarray):
        return value
    there = empty(machine, value.shape, value.dtype)
    return upload(machine, value, there)
