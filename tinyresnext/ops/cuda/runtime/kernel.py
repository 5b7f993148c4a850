"""A kernel: a Python function that Numba compiles for a GPU, for one set of sizes.

A factory returns a kernel for sizes that the compiler has to know (the shape of a tile, the width
of a group): they are constants of the closure, so loops over them are unrolled and local arrays
become registers. Everything else is a parameter. A parameter is a pointer or a number: an array of
Numba's would bring its shape and strides with it, and its indexing asks whether an index is
negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cuda
from numba.core import types
from numba.cuda.compiler import compile_cuda
from numba.cuda.cudadrv.error import NvvmError, NvvmSupportError

from ....errors import DeviceError
from ...bfloat16 import HALF
from ..words.llvm import KINDS, bfloats, floats, halves, octets

if TYPE_CHECKING:
    from .arrays import DeviceArray

try:  # numba-cuda calls NVVM by these; the built-in target by itself
    from cuda.bindings.nvvm import nvvmError as BindingError
except ImportError:
    BindingError = NvvmError

Capability = tuple[int, int]  # (8, 0) is sm_80

ints = types.CPointer(types.int32)
int32, uint32, float32 = types.int32, types.uint32, types.float32


def pointer(array: DeviceArray) -> Any:
    """Return the type of a pointer to the values of an array."""
    if array.dtype.itemsize == 1:
        return octets
    return {np.dtype(np.float16): halves, HALF: bfloats}.get(array.dtype, floats)


def ending(*kinds: Any) -> str:
    """Return what the name of a kernel ends with, for the types of its pointers."""
    if all(kind == floats for kind in kinds):
        return ""
    return "_" + "".join("fhbo"[KINDS.index(kind)] for kind in kinds)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A device function and how many threads a block of it has.

    Attributes
    ----------
    name : str
        The family and its sizes, such as ``gemm_128x128x8x8``; two kernels of one name are the
        same code.
    function : callable
        The Python source, with its sizes as constants of the closure. It returns nothing.
    parameters : tuple of Numba types
        `floats`, `halves`, `bfloats`, `octets` and `ints` for pointers; `int32` and `float32` for
        numbers.
    threads : int
        Of a block; blocks and grids are one-dimensional.
    """

    name: str
    function: Callable[..., None]
    parameters: tuple[Any, ...]
    threads: int

    def ptx(self, capability: Capability, lines: bool = False) -> str:
        """Compile for a GPU of this compute capability; needs NVIDIA's NVVM, and no GPU.

        With ``lines`` the PTX says which line of the source each instruction comes from.

        Raises
        ------
        DeviceError
            NVVM is not there, or does not know such a GPU.
        """
        try:
            made = cuda.compile_ptx(self.function, self.parameters, cc=capability, lineinfo=lines)
            return str(made[0])
        except (NvvmSupportError, NvvmError, BindingError, RuntimeError) as error:
            if type(error) is RuntimeError and "libdevice" not in str(error):
                raise  # Numba has no type of its own for NVVM without its library
            raise DeviceError(
                f"NVIDIA's compiler NVVM cannot compile kernels for compute capability "
                f"{capability[0]}.{capability[1]} ({' '.join(str(error).split())[:300]}); install "
                "what GPUs need (pip install 'tinyresnext[cuda]'), or compute on the device 'cpu'"
            ) from error

    def llvm(self, capability: Capability) -> tuple[str, str]:
        """Return Numba's LLVM before NVVM, and the name of the function in it; needs no NVVM."""
        made = compile_cuda(self.function, types.void, self.parameters, cc=capability)
        return "\n".join(made.library.llvm_strs), made.fndesc.llvm_func_name
