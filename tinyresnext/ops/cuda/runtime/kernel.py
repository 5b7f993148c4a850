"""A kernel: a Python function that Numba compiles for a GPU, for one set of sizes.

A factory returns a kernel for sizes that the compiler has to know (the shape of a tile, the width
of a group): they are constants of the closure, so loops over them are unrolled and local arrays
become registers. Everything else is a parameter. A parameter is a pointer or a number: an array of
Numba's would bring its shape and strides with it, and its indexing asks whether an index is
negative.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import config, cuda
from numba.core import types

from ....errors import DeviceError
from ...bfloat16 import HALF
from ..words.llvm import KINDS, bfloats, floats, halves, octets

if TYPE_CHECKING:
    from .arrays import DeviceArray

try:
    from numba.cuda import dispatcher
    from numba.cuda.compiler import compile_cuda
    from numba.cuda.cudadrv.error import NvvmError, NvvmSupportError
except (AttributeError, ImportError) as error:  # the first by the target built into Numba
    if not config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
        raise
    raise DeviceError(
        "NUMBA_ENABLE_CUDASIM is set, and Numba's simulator of CUDA compiles no kernels; "
        "start Python without this variable"
    ) from error
try:  # numba-cuda calls NVVM by these; the built-in target by itself
    from cuda.bindings.nvvm import nvvmError as BindingError
except ImportError:
    BindingError = NvvmError
NVVM = NvvmSupportError, NvvmError, BindingError

Capability = tuple[int, int]  # (8, 0) is sm_80

ints = types.CPointer(types.int32)
int32, uint32, float32 = types.int32, types.uint32, types.float32
MOST = 1024  # threads of a block; NVIDIA's limit
REGISTERS, MOST_REGISTERS = 1 << 16, 256  # of a block, and of a thread
SIGNATURE = re.compile(r"^[^/\n]*\.entry\s+[\w$]+\s*\([^)]*\)", re.MULTILINE)


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
    fastmath, optimised : bool
        As the options ``fastmath`` and ``opt`` of `numba.cuda.jit`.

    Raises
    ------
    DeviceError
        No GPU has blocks of that many threads.
    """

    name: str
    function: Callable[..., None]
    parameters: tuple[Any, ...]
    threads: int
    fastmath: bool = False
    optimised: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.threads, int | np.integer) or not 1 <= self.threads <= MOST:
            raise DeviceError(
                f"kernel {self.name} has blocks of {self.threads} threads; "
                f"expected a whole number from 1 to {MOST:,}, which is what a GPU can run"
            )

    def ptx(self, capability: Capability, lines: bool = False) -> str:
        """Compile for a GPU of this compute capability; needs NVIDIA's NVVM, and no GPU.

        Where a block has more threads than there are registers for, if each has the most that one
        can have, the PTX says how many: so the driver gives a thread no more than there are. With
        ``lines`` it says which line of the source each instruction comes from.

        Raises
        ------
        DeviceError
            NVVM is not there or does not know such a GPU, or Numba cannot compile the function.
        """
        with compiled_for(self.name, capability):
            made = cuda.compile_ptx(
                self.function,
                self.parameters,
                cc=capability,
                lineinfo=lines,
                fastmath=self.fastmath,
                opt=self.optimised,
            )
            text = str(made[0])
        if self.threads * MOST_REGISTERS <= REGISTERS:
            return text
        text, kernels = SIGNATURE.subn(rf"\g<0>\n.maxntid {self.threads}, 1, 1", text)
        if kernels != 1:
            raise DeviceError(f"the PTX of {self.name} has {kernels} kernels and not one")
        return text

    def llvm(self, capability: Capability) -> tuple[list[str], str]:
        """Return Numba's LLVM before NVVM, and the name of the function in it; needs no NVVM.

        The first text has the function; each of the others has one that it calls.

        Raises
        ------
        DeviceError
            Numba cannot compile the function.
        """
        with compiled_for(self.name, capability):
            given = self.function, types.void, self.parameters
            made = compile_cuda(*given, cc=capability, fastmath=self.fastmath)
            return list(dict.fromkeys(made.library.llvm_strs)), made.fndesc.llvm_func_name


# --- what Numba asks a GPU, and says of a function ------------------------------------------------

# Of the functions that a kernel calls, Numba asks the process's GPU for which capability it is to
# compile them. There may be none, or another one; so it is told here.
wanted: ContextVar[Capability | None] = ContextVar("wanted", default=None)
current_device = dispatcher.get_current_device


def device() -> Any:
    """Return what Numba compiles the functions for that a kernel calls."""
    capability = wanted.get()
    if capability is None:
        return current_device()
    return SimpleNamespace(compute_capability=capability)


dispatcher.get_current_device = device


def to_get(install: str) -> str:
    """Return what to do where a program of NVIDIA's is missing: ``install``, but not on macOS."""
    if sys.platform == "darwin":
        return "NVIDIA has it for Linux and Windows, and not for macOS: take such a computer"
    return install


@contextmanager
def compiled_for(name: str, capability: Capability) -> Iterator[None]:
    """Compile for a GPU, in the ``with`` block; raise `DeviceError` where that does not work."""
    token = wanted.set(capability)
    try:
        yield
    except Exception as error:  # of a function that it does not take, Numba may raise any
        said = " ".join(str(error).split())
        # Numba has no type of its own for NVVM without its library.
        if isinstance(error, NVVM) or (type(error) is RuntimeError and "libdevice" in said):
            install = "install what GPUs need (pip install 'tinyresnext[cuda]')"
            raise DeviceError(
                f"NVIDIA's compiler NVVM cannot compile kernels for compute capability "
                f"{capability[0]}.{capability[1]} ({said[:300]}); "
                f"{to_get(install)}, or compute on the device 'cpu'"
            ) from error
        raise DeviceError(f"Numba cannot compile the kernel {name}: {said[:600]}") from error
    finally:
        wanted.reset(token)
