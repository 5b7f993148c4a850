"""The primitive operations and their backends. The room knows nothing of models or images.

Read `contract` first (what a backend is), then `shapes` (what each op takes, returns and refuses)
and `reference` (what each op computes, in NumPy). `cpu` computes the same with Numba; `checks` has
what the shape rules share, and `torch_reference` the inference ops in PyTorch, for comparisons.
`cuda` computes on NVIDIA GPUs, and `bfloat16` has a backend of fewer bits on processors;
`together` has what batch norms of several processes add up; `distillation` is a loss that is made
of ops.
`backend` chooses a backend by the name of a device.
"""

from __future__ import annotations

import gc
import os
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from ..errors import DeviceError, UsageError
from ..system.words import one_of
from .contract import Backend, Integer

if TYPE_CHECKING:
    from .cuda import CudaBackend

__all__ = ["DEVICES", "PRECISIONS", "Backend", "automatic", "backend", "backend_module"]
__all__ += ["backend_of", "integer"]

DEVICES = ("cpu", "cuda", "auto", "reference")  # cuda:1 is the second GPU
PRECISIONS = ("float32", "float16", "bfloat16")
ELSEWHERE = ("float32", "bfloat16")  # than on GPUs, which have all


def __getattr__(name: str) -> Any:
    """Return a backend as an attribute, imported late: `tinyresnext.ops.reference`."""
    if name not in ("cpu", "cuda", "reference"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), "cpu", "cuda", "reference"})


def backend(device: str, precision: str = "float32") -> Backend:
    """Return what computes on a device; it is imported only when it is asked for.

    Parameters
    ----------
    device : {"cpu", "cuda", "cuda:N", "auto", "reference"}
        ``cuda`` is the first NVIDIA GPU, ``cuda:1`` the second. ``auto`` is the first GPU if
        everything is there that it needs, else the processor (`automatic` says why).
        ``reference`` computes with plain NumPy.
    precision : {"float32", "float16", "bfloat16"}
        What activations and the weights of convolutions are stored in. Sums are float32 in all.
        ``bfloat16`` is for inference, and on processors for training; ``float16`` is for inference
        on a GPU.

    Raises
    ------
    UsageError
        There is no such precision.
    DeviceError
        The device does not compute in this precision; there is no such device, or something is
        missing that it needs: a package, a driver. Nothing is ever computed on another device than
        the one asked for.
    """
    if precision not in PRECISIONS:
        file = ""
        if precision == "int8":
            file = "; 8 bits are a matter of the file, which `tinyresnext quantise` makes"
        raise UsageError(f"precision is {precision!r}: {one_of(precision, PRECISIONS)}{file}")
    if device == "auto":
        device = automatic()[0].__name__.removeprefix(f"{__name__}.")
    kind, colon, number = str(device).partition(":")
    on_gpu = kind == "cuda" and (number.isascii() and number.isdecimal() if colon else True)
    if not on_gpu and device not in DEVICES:
        raise DeviceError(f"device is {device!r}: {one_of(device, DEVICES)}")
    if not on_gpu and precision not in ELSEWHERE:
        raise DeviceError(
            f"the device {device!r} computes in {' and '.join(ELSEWHERE)}, and {precision} is "
            "asked for; compute in one of these, or on an NVIDIA GPU, which has it (device 'cuda')"
        )
    if on_gpu:
        return _cuda(int(number or 0), precision)
    return _plain(device) if precision == "float32" else _bfloat16(device)


def backend_of(device: str, precision: str) -> Backend:
    """Return what computes, also in ``int8``: integers are a matter of the network, not of it.

    Raises
    ------
    UsageError, DeviceError
        As for `backend`.
    """
    if precision != "int8":
        return backend(device, precision)
    ops = backend(device)
    integer(ops)
    return ops


def automatic() -> tuple[Backend, str]:
    """Return the backend that ``auto`` is here, and a few words on why.

    Raises
    ------
    DeviceError
        This process was forked from one that uses the GPU: without a word, it would be slower.
    """
    from .cuda.runtime.library import ForkedError

    try:
        found = _cuda(0)
    except DeviceError as error:
        if isinstance(error, ForkedError) and error.opened:
            raise
        reason = str(error).partition("; ")[0]  # what to do about it is for those who want the GPU
        return _cpu(), f"the GPU cannot be used, since {reason}"
    return found, f"{found.described()} can be used"


def backend_module(name: str) -> Backend:
    """Return a backend by its full name, as its ``__name__`` says it.

    Raises
    ------
    DeviceError
        This version has no such backend.
    """
    own = name.removeprefix(f"{__name__}.")
    if own == name or own.partition(":")[0] not in DEVICES:
        raise DeviceError(
            f"the model computes with {name!r}, which is not there; load the model from its file "
            f"for one of the devices {', '.join(DEVICES)}"
        )
    return backend(own)


def integer(ops: Any) -> Integer:
    """Return a backend as one that computes with integers of 8 bits.

    Raises
    ------
    DeviceError
        It does not.
    """
    if not hasattr(ops, "conv2d_int8") or ops.precision != "float32":
        raise DeviceError(
            f"{ops.described()} does not compute with integers of 8 bits here; load a quantised "
            "model for the device cpu, cuda or reference and give no precision, or use the float32 "
            "model that it was made of"
        )
    found: Integer = ops
    return found


def _plain(device: str) -> Backend:
    """Return the backend of ``cpu`` or ``reference``."""
    if device == "cpu":
        return _cpu()
    from . import reference

    return reference


@cache
def _bfloat16(device: str) -> Backend:
    """Return the backend of ``cpu`` or ``reference`` in bfloat16, always the same one."""
    from .bfloat16 import BFloat16

    return cast(Backend, BFloat16(device, _plain(device)))


def _cpu() -> Backend:
    """Return the backend of the processor."""
    try:
        # Importing Numba makes objects that stay; looking for garbage among them is in vain.
        collects = gc.isenabled()
        gc.disable()
        try:
            from . import cpu
        finally:
            if collects:
                gc.enable()
    except (ImportError, ValueError) as error:  # Numba refuses settings with a ValueError
        raise _without_numba("cpu", error) from error
    return cpu


def _cuda(index: int, precision: str = "float32") -> CudaBackend:
    """Return the backend of a GPU. What fails without Numba is tried first: it is faster."""
    from . import cuda
    from .cuda.runtime.library import connected

    connected()
    try:
        from .cuda.runtime.gpu import opened
    except (ImportError, ValueError) as error:
        raise _without_numba(f"cuda:{index}", error) from error
    return cuda.backend(opened(index), precision)


def _without_numba(device: str, error: Exception) -> DeviceError:
    """Return the error for a device whose kernels Numba cannot compile."""
    settings = [f"{name} is {os.environ[name]!r}" for name in os.environ if "NUMBA" in name]
    said = ", ".join([str(error) or type(error).__name__, *settings])
    extra = "" if device == "cpu" else " with what GPUs need (pip install 'tinyresnext[cuda]')"
    return DeviceError(
        f"the device {device!r} cannot be used here ({said}); install Numba again{extra}, unset "
        "its environment variables, or compute on the device 'reference'"
    )
