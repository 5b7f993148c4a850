"""The same functions on a GPU, by `numba.cuda`. What the ops mean: `tinyresnext.ops.shapes`.

`backend` makes the backend of one machine: a GPU, or an emulator of one (`runtime.machine`). The
words are plain functions of arrays, since an array knows the machine that it is on; a module is
imported when one of its words is first used, and `MODULES` says which module has which word. All
memory is contiguous, and float32; the words of inference also take activations in float16 and
bfloat16, which they add up in float32 (`words.llvm`), convolutions on tensor cores (`tensor`). All
sums are taken in a fixed order, so results are the same bits in every run; convolutions split
theirs by the number of multiprocessors. Read `runtime` first, then `elementwise`. Then come the
ops: `conv`, `norm`, `pool`, `linear`, `loss` and, for weights in training, `update`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ...errors import DeviceError, UsageError
from ..bfloat16 import limits
from ..contract import Compiling, Kept, Peak
from .runtime import arrays, call
from .runtime.arrays import DeviceArray
from .runtime.machine import Machine

__all__ = ["MODULES", "CudaBackend", "backend"]

BFLOAT16 = (8, 0)  # the compute capability from which on GPUs have instructions for bfloat16
# To start a call and to wait for it takes some 30 us, longer than many a call. So what is timed is
# at most so many calls, which the driver starts at once, and takes at most about so many seconds.
MOST, LONG = 20, 5e-3

MODULES = {
    "conv2d": "conv.forward",
    "conv2d_backward": "conv.backward",
    "batch_norm": "norm.constant",
    "batch_norm_backward": "norm.constant",
    "batch_norm_train": "norm.train",
    "batch_norm_train_backward": "norm.train",
    "relu": "elementwise",
    "relu_backward": "elementwise",
    "add": "elementwise",
    "add_backward": "elementwise",
    "excite": "pool.excite",
    "excite_backward": "pool.excite",
    "max_pool2d": "pool.maximum",
    "max_pool2d_backward": "pool.maximum",
    "avg_pool2d": "pool.average",
    "avg_pool2d_backward": "pool.average",
    "blur_pool": "pool.blur",
    "blur_pool_backward": "pool.blur",
    "mean_pool": "pool.mean",
    "mean_pool_backward": "pool.mean",
    "quantise": "tensor.integer.rounding",
    "dequantise": "tensor.integer.rounding",
    "conv2d_int8": "tensor.integer.forward",
    "linear": "linear",
    "linear_backward": "linear",
    "softmax": "loss.head",
    "softmax_backward": "loss.head",
    "softmax_cross_entropy": "loss.softmax",
    "softmax_cross_entropy_backward": "loss.softmax",
    "binary_cross_entropy": "loss.binary",
    "binary_cross_entropy_backward": "loss.binary",
    "sgd_step": "update.elementwise",
    "adamw_step": "update.adaptive",
    "lamb_step": "update.adaptive",
    "rmsprop_step": "update.adaptive",
    "muon_step": "update.muon",
    "average_step": "update.elementwise",
    "clip_norm_step": "update.clip",
    "clip_units_step": "update.clip",
    "clip_value_step": "update.clip",
    "statistics_step": "update.elementwise",
}


class CudaBackend:
    """The backend of one machine. Its words (`MODULES`) are found when they are first asked for.

    Attributes
    ----------
    machine : Machine
    __name__ : str
        ``tinyresnext.ops.`` and the name of the device, such as ``tinyresnext.ops.cuda:0``.
    precision : {"float32", "float16", "bfloat16"}
        What activations and packed weights are stored in; sums are always float32.

    Raises
    ------
    DeviceError
        The machine has no instructions for the precision.
    """

    def __init__(self, machine: Machine, precision: str = "float32") -> None:
        if precision == "bfloat16" and machine.capability < BFLOAT16:
            raise DeviceError(
                f"{machine} has compute capability {'.'.join(map(str, machine.capability))}, and "
                "bfloat16 is computed by instructions that GPUs have from 8.0 (Ampere, 2020) on; "
                "compute in float16 or float32 (precision='float16', --precision float16), or in "
                "bfloat16 on the device 'cpu'"
            )
        self.machine, self.__name__ = machine, f"{__package__.rpartition('.')[0]}.{machine.name}"
        self.precision = precision

    def __getattr__(self, name: str) -> Any:
        """Return a word from its module."""
        if name not in MODULES:
            raise AttributeError(f"the backend {self.__name__} has no {name!r}")
        return getattr(import_module(f".{MODULES[name]}", __package__), name)

    def __repr__(self) -> str:
        return f"<backend {self.__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names of device and precision: a copy is the backend of the same ones."""
        from .. import backend as by_device

        return by_device, (self.machine.name, self.precision)

    # --- placing ----------------------------------------------------------------------------------

    def empty(self, shape: Sequence[int], dtype: Any = np.float32) -> DeviceArray:
        """Return new memory on the device, not filled; ``dtype`` may be ``"bfloat16"``."""
        return arrays.empty(self.machine, shape, dtype)

    def upload(self, array: Any, out: DeviceArray | None = None) -> DeviceArray:
        """Copy a NumPy array to the device; numbers with a fraction become float32.

        Into ``out`` of fewer bits they are rounded.
        """
        return arrays.upload(self.machine, array, out)

    def download(self, array: DeviceArray) -> np.ndarray:
        """Return a copy of the values, when everything before has been computed.

        Those of bfloat16 are float32 then.
        """
        return arrays.download(array)

    def view(self, array: DeviceArray, shape: Sequence[int], start: int = 0) -> DeviceArray:
        """Return the part of a flat array that begins at ``start``, in another shape."""
        return arrays.view(array, shape, start)

    def pack(self, weight: DeviceArray, groups: int) -> Any:
        """Lay the weight of a convolution out as the kernels read it, and wait until it is so.

        Plans of other threads read it, on streams of their own.
        """
        from .conv.forward import pack

        packed = pack(weight, groups, limits(self.precision).dtype)
        self.machine.wait()
        return packed

    def pack_int8(self, weight: Any, groups: int) -> Any:
        """Lay an int8 weight out as the kernels read it, and wait until it is so."""
        from .tensor.integer.forward import pack

        packed = pack(self.machine, weight, groups)
        self.machine.wait()
        return packed

    # --- running ----------------------------------------------------------------------------------

    def bind(self, op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
        """Call ``bind_<op>`` of the module that has the op (`MODULES`)."""
        prepare = getattr(import_module(f".{MODULES[op]}", __package__), f"bind_{op}")
        bound: Callable[[], Any] = prepare(*args, **attrs)
        return bound

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], None]:
        """Return one call of all their launches: a graph, where the machine has them."""
        return call.chain(calls)

    def repeated(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
        """Return a graph of `MOST` calls, or as many as take `LONG` seconds; one call if long."""
        call()  # compiles
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        times = min(MOST, int(LONG / (time.perf_counter() - start)))
        return (self.chain([call] * times), times) if times > 1 else (call, 1)

    def wait(self) -> None:
        """Return when everything that this thread has launched has ended."""
        self.machine.wait()

    def at_once(self, n: int, weights: int, values: int) -> int:
        """Return all ``n``: a GPU is faster, the more samples go through the network together."""
        return max(1, n)

    # --- the machine ------------------------------------------------------------------------------

    def described(self) -> str:
        """Return the name of the device, of the GPU, and of a precision that is not float32."""
        return str(self.machine) + ("" if self.precision == "float32" else f", in {self.precision}")

    def kind(self) -> str:
        """Return nothing: no kernels are compiled for the processor."""
        return ""

    def thread_count(self, asked: int | None = None) -> int:
        """Return how many threads of the processor prepare mini-batches for the GPU.

        The GPU itself always computes on all its multiprocessors, and its results do not depend on
        this number.

        Raises
        ------
        UsageError
            ``asked`` is no whole number from 1 on.
        """
        from ..cpu.runtime.cores import cores

        if asked is None:
            return cores()
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise UsageError(f"threads is {asked!r}, expected a whole number from 1 on")
        return asked

    def loaders(self, count: int) -> int:
        """Return all ``count``: while the GPU computes, the processor has nothing else to do."""
        return count

    def on_threads(self, count: int) -> AbstractContextManager[None]:
        """Change nothing: the number of threads concerns mini-batches, not the GPU."""
        return nullcontext()

    def when_compiling(
        self, tell: Callable[[Compiling | None], None], after: float = 1.0
    ) -> AbstractContextManager[None]:
        """Call ``tell`` again and again while kernels compile inside the block."""
        from .runtime.cache import when_compiling

        return when_compiling(tell, after)

    def peak(self, threads: Sequence[int]) -> list[Peak]:
        """Measure multiply-adds in registers and memory traffic, once for all threads."""
        from .runtime.peak import measure

        return [measure(self.machine)._replace(threads=max(threads))]

    def kernels_kept(self) -> list[Kept]:
        """Return the folders of compiled kernels on disk."""
        from .runtime.cache import kept

        return kept()

    def kernels_problem(self) -> str | None:
        """Return why compiled kernels cannot be kept on disk, or None when they can."""
        from .runtime.cache import problem

        return problem()

    def clear_kernels(self, others: bool = False) -> int:
        """Remove all compiled kernels from the disk and return how many bytes they had."""
        from .runtime.cache import clear

        return clear(others)


@cache
def backend(machine: Machine, precision: str = "float32") -> CudaBackend:
    """Return the backend of a machine for a precision, always the same one."""
    return CudaBackend(machine, precision)
