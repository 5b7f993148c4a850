"""Run a kernel that somebody else wrote, on NumPy arrays, in one call."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import typeof
from numba.core.errors import NumbaError

from ..errors import DeviceError
from ..ops.cuda.runtime.arrays import empty, upload
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

    Where it raises, no array has changed.

    Parameters
    ----------
    function : callable
        A Python function for `numba.cuda.jit`, or what that made of one.
    blocks, threads : int
        Of the grid, and of a block; both have one dimension.
    arguments : numpy.ndarray, bool, int or float
        As the kernel takes them; their types decide what is compiled. Arrays are C-contiguous. An
        array may be given more than once, but no two arrays may share memory. One that cannot be
        written to stays as it is.
    machine : FiberMachine or PtxMachine or None
        What runs it: by default PTX that is watched, for compute capability 8.0, and counted.

    Returns
    -------
    Counters or None
        What this call counted, where the machine counts; the machine forgets what it counted before
        of kernels with this name.

    Raises
    ------
    KernelFault
        The kernel does what a GPU leaves undefined.
    DeviceError
        It cannot be compiled or emulated here, an argument is not as described above, an option of
        ``jit`` cannot be applied, or the kernel changes an array that cannot be written to.
    """
    if machine is None:
        from .ptx import PtxMachine

        machine = PtxMachine(count=True)
    if isinstance(machine, type) or not callable(getattr(machine, "launch", None)):
        raise DeviceError(f"machine is {machine!r}; expected one, such as PtxMachine()")
    kernel = as_kernel(function, threads, arguments)
    if not isinstance(blocks, int | np.integer) or blocks < 1:
        what = f"kernel {kernel.name} has a grid of {blocks} blocks"
        raise DeviceError(f"{what}; expected a whole number from 1 on")
    counted = getattr(machine, "counters", {})
    counted.pop(kernel.name, None)
    arrays = {id(one): one for one in arguments if isinstance(one, np.ndarray)}
    there = {key: upload(machine, a, empty(machine, a.shape, a.dtype)) for key, a in arrays.items()}
    machine.launch(Launch(kernel, blocks, tuple(there.get(id(one), one) for one in arguments)))
    made = {key: np.empty(a.shape, a.dtype) for key, a in arrays.items()}
    for key, array in arrays.items():
        machine.read(there[key].address, made[key])
        if not array.flags.writeable and made[key].tobytes() != array.tobytes():
            raise DeviceError(
                f"kernel {kernel.name} changes an array that cannot be written to; give it a copy"
            )
    for key, array in arrays.items():
        if array.flags.writeable:
            array[...] = made[key]
    return counted.get(kernel.name)


def as_kernel(function: Any, threads: int, arguments: tuple[Any, ...]) -> Kernel:
    """Return a kernel with the options that it was given to ``jit`` with; raise `DeviceError`."""
    options = getattr(function, "targetoptions", {})
    function = getattr(function, "py_func", function)
    if not isfunction(function):
        what = f"a {type(function).__name__} is no kernel"
        raise DeviceError(f"{what}; expected a function, or what numba.cuda.jit made of one")
    name = function.__name__
    fast, optimised = bool(options.get("fastmath", False)), bool(options.get("opt", True))
    kernel = Kernel(name, function, types(name, arguments), threads, fast, optimised)
    bounds = options.get("launch_bounds")
    most = bounds[0] if isinstance(bounds, tuple) else bounds
    refused = {
        "debug=True": (options.get("debug"), "what it raises is not emulated"),
        "device=True": (options.get("device"), "it is no kernel, but a function for kernels"),
        "link": (options.get("link"), "code of other languages is not emulated"),
        "extensions": (options.get("extensions"), "what they make of arguments is not emulated"),
        "launch_bounds": (most and threads > most, f"it allows blocks of {most} threads"),
    }
    for option, (given, why) in refused.items():
        if given:
            raise DeviceError(f"kernel {name} is compiled with {option}: {why}; leave it out")
    return kernel


def types(kernel: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return Numba's types of the arguments; raise `DeviceError` for what no kernel is given."""
    for i, one in enumerate(arguments):
        what = f"kernel {kernel}: argument {i + 1}"
        if not isinstance(one, np.ndarray):
            if not isinstance(one, bool | int | float | np.bool_ | np.integer | np.floating):
                expected = "expected a NumPy array, a bool, an int or a float"
                raise DeviceError(f"{what} is a {type(one).__name__}, {expected}")
            continue
        if one.dtype.hasobject:
            raise DeviceError(f"{what} is an array of Python objects, expected one of numbers")
        if not one.flags.c_contiguous:
            raise DeviceError(
                f"{what} is an array with strides {one.strides}, expected a C-contiguous one; "
                "use np.ascontiguousarray before, and copy back what the kernel writes"
            )
        for j, other in enumerate(arguments[:i]):
            if other is one or not isinstance(other, np.ndarray):
                continue
            if np.may_share_memory(one, other):  # of contiguous arrays, the addresses tell
                raise DeviceError(
                    f"{what} shares memory with argument {j + 1} and is another array; "
                    "give the whole array in place of both, or a copy of one"
                )
    try:
        return tuple(map(typeof, arguments))
    except (NumbaError, ValueError) as error:
        raise DeviceError(f"kernel {kernel}: Numba has no type for an argument: {error}") from error
