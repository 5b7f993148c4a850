"""What a kernel is given, as the numbers that its compiled code takes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numba.core import types

from ..errors import DeviceError
from ..ops.cuda.runtime.arrays import DeviceArray
from ..ops.cuda.runtime.kernel import Capability
from ..ops.cuda.runtime.machine import Launch

Number = np.ndarray[Any, Any]


SHARED = 48 << 10  # bytes of a block, without what a launch asks for: the limit of ptxas


def check_capability(capability: Any) -> Capability:
    """Return a compute capability; raise `DeviceError` if it is none."""
    if (
        not isinstance(capability, tuple)
        or len(capability) != 2
        or not all(isinstance(one, int | np.integer) and one >= 0 for one in capability)
    ):
        raise DeviceError(f"compute capability {capability!r}: expected two numbers, as (8, 0)")
    return capability


def check_shared(kernel: str, size: int) -> None:
    """Raise `DeviceError` for more shared memory than a GPU gives to the arrays of a kernel."""
    if size > SHARED:
        raise DeviceError(
            f"kernel {kernel} has {size:,} bytes of shared memory; "
            f"expected at most {SHARED:,}, which is what a GPU can give to a block"
        )


def numbers(launch: Launch) -> list[Number]:
    """Return one array of one number for each parameter of the compiled kernel.

    A pointer takes the address of an array. An array of Numba's takes seven numbers and more: two
    that are nothing on a GPU, its size, the bytes of a value, its address, shape and strides.

    Raises
    ------
    DeviceError
        There are more or fewer arguments than parameters, or one does not fit its parameter.
    """
    kernel, _, arguments = launch
    if len(arguments) != len(kernel.parameters):
        raise DeviceError(
            f"kernel {kernel.name} takes {len(kernel.parameters)} arguments, "
            f"and {len(arguments)} are given"
        )
    found: list[Number] = []
    for kind, value in zip(kernel.parameters, arguments, strict=True):
        if value is not None and isinstance(kind, types.Array | types.CPointer) != isinstance(
            value, DeviceArray
        ):
            raise DeviceError(f"kernel {kernel.name} takes {kind}, and {type(value)} is given")
        found += _array(value) if isinstance(kind, types.Array) else [_number(kind, value)]
    return found


def extents(launch: Launch) -> list[tuple[int, int]]:
    """Return the first and the last address of each array that a kernel is given."""
    return [
        (value.address, value.address + value.nbytes)
        for value in launch.arguments
        if isinstance(value, DeviceArray)
    ]


def _number(kind: Any, value: Any) -> Number:
    if value is None or isinstance(value, DeviceArray):
        return np.array([0 if value is None else value.address], np.uint64)
    return np.array([value], str(kind))


def _array(value: Any) -> list[Number]:
    size = value.dtype.itemsize
    strides = [size * prod(value.shape[i + 1 :]) for i in range(len(value.shape))]
    whole = (0, 0, value.size, size, value.address, *value.shape, *strides)
    return [np.array([number], np.uint64) for number in whole]
