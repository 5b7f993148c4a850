"""The contract of a backend: every word that the rest of the package may say to a device.

A backend is a module with these functions. The reference defines what each computes; other backends
compute the same, faster or elsewhere. An array of a backend (`Array`) belongs to it alone: nobody
outside `tinyresnext.ops` indexes it, assigns to it or hands it to NumPy. Others may ask for its
``shape`` and ``dtype``, pass it to a word of the same backend, and ``download`` it.

=============  ==========================================================================================================
words          what they do
=============  ==========================================================================================================
the ops        compute: their signatures, shapes and errors are in `tinyresnext.ops.shapes`
placing        ``empty upload download view pack``: where arrays live
running        ``bind chain at_once``: calls that are prepared once and made many times
updating       ``sgd_step muon_step average_step statistics_step``: what training does to weights, in place
the machine    ``thread_count on_threads when_compiling peak``, and the compiled kernels that are kept on disk
=============  ==========================================================================================================

Every ``op`` has an ``op_backward(dy, y, *args, **attrs)`` that takes the gradient and the value of
the result and returns one gradient for each positional argument, in order (``None`` for an optional
one that was not given). `tinyresnext.ops.shapes.READ` says which values a gradient is computed
from.
"""

# ruff: noqa: D102 (the ops are documented once, in shapes)
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .checks import Pair

Array = Any  # of whichever backend is spoken to


class Peak(NamedTuple):
    """The measured limits of a device for one number of threads; a copy counts its bytes twice.

    Attributes
    ----------
    threads : int
    gflops : float
        Float32 multiply-adds, each counted as two operations, in 10^9 a second.
    read, copy : float
        Memory traffic in GB/s.
    """

    threads: int
    gflops: float
    read: float
    copy: float


class Kept(NamedTuple):
    """A folder of compiled kernels on disk."""

    folder: Path
    files: int
    bytes: int
    current: bool  # whether this version and this processor use it


class Backend(Protocol):
    """Every word of a backend. The ops are explained in `tinyresnext.ops.shapes`."""

    @property
    def __name__(self) -> str:
        """Name the module."""

    # --- the ops ----------------------------------------------------------------------------------

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        residual: Array | None = None,
        relu: bool = False,
        out: Array | None = None,
    ) -> Array: ...

    def batch_norm(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        mean: Array,
        var: Array,
        *,
        eps: float = 1e-5,
        out: Array | None = None,
    ) -> Array: ...

    def batch_norm_train(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        residual: Array | None = None,
        *,
        eps: float = 1e-5,
        relu: bool = False,
        statistics: Array | None = None,
        out: Array | None = None,
    ) -> Array: ...

    def relu(self, x: Array, *, out: Array | None = None) -> Array: ...

    def add(self, x: Array, y: Array, *, out: Array | None = None) -> Array: ...

    def max_pool2d(
        self,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
        out: Array | None = None,
    ) -> Array: ...

    def avg_pool2d(
        self,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        out: Array | None = None,
    ) -> Array: ...

    def mean_pool(self, x: Array, *, out: Array | None = None) -> Array: ...

    def linear(
        self, x: Array, weight: Array, bias: Array, *, out: Array | None = None
    ) -> Array: ...

    def softmax(self, x: Array, *, out: Array | None = None) -> Array: ...

    def softmax_cross_entropy(
        self, x: Array, *, labels: Array, smoothing: float = 0.0, out: Array | None = None
    ) -> Array: ...

    # --- their gradients --------------------------------------------------------------------------

    def conv2d_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
    ) -> tuple[Array | None, ...]: ...

    def batch_norm_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        scale: Array,
        shift: Array,
        mean: Array,
        var: Array,
        *,
        eps: float = 1e-5,
    ) -> tuple[Array | None, ...]: ...

    def batch_norm_train_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        scale: Array,
        shift: Array,
        residual: Array | None = None,
        *,
        eps: float = 1e-5,
        relu: bool = False,
        statistics: Array | None = None,
    ) -> tuple[Array | None, ...]: ...

    def relu_backward(self, dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]: ...

    def add_backward(self, dz: Array, z: Array, x: Array, y: Array) -> tuple[Array | None, ...]: ...

    def max_pool2d_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
    ) -> tuple[Array | None, ...]: ...

    def avg_pool2d_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> tuple[Array | None, ...]: ...

    def mean_pool_backward(self, dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]: ...

    def linear_backward(
        self, dy: Array, y: Array, x: Array, weight: Array, bias: Array
    ) -> tuple[Array | None, ...]: ...

    def softmax_backward(self, dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]: ...

    def softmax_cross_entropy_backward(
        self, dy: Array, y: Array, x: Array, *, labels: Array, smoothing: float = 0.0
    ) -> tuple[Array | None, ...]: ...

    # --- placing ----------------------------------------------------------------------------------

    def empty(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Return new memory on the device, not yet filled."""

    def upload(self, array: Any, out: Array | None = None) -> Array:
        """Copy a NumPy array to the device, into ``out`` if that is given (of the same shape).

        Without ``out`` the result may be the array itself, where the device computes in NumPy's
        memory.
        """

    def download(self, array: Array) -> np.ndarray:
        """Return the values as a NumPy array. It may be the device's own memory: copy what is to be kept."""

    def view(self, array: Array, shape: Sequence[int], start: int = 0) -> Array:
        """Return the part of a flat array that begins at ``start``, in another shape; both share their memory."""

    def pack(self, weight: Array, groups: int) -> Array:
        """Lay the weight of a convolution out as this backend's ``conv2d`` reads it fastest."""

    # --- running ----------------------------------------------------------------------------------

    def bind(self, op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
        """Check and prepare a call that is made many times, on what the same arrays then hold.

        Bound, an op takes ``out``. Bound, an ``op_backward`` takes ``out``, where each gradient
        goes, with ``None`` for those that nobody wants, and ``more``, whether each is added to what
        is there.
        """

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], None]:
        """Return one call that makes all of these bound calls, in their order."""

    def at_once(self, n: int) -> int:
        """Return how many of ``n`` samples go through a network together best; it divides ``n``."""

    # --- updating ---------------------------------------------------------------------------------

    def sgd_step(
        self,
        weight: Array,
        gradient: Array,
        velocity: Array,
        *,
        lr: float,
        momentum: float,
        decay: float,
        nesterov: bool,
    ) -> None:
        """Make one step of stochastic gradient descent, in place; see the reference for the formula."""

    def muon_step(
        self, weight: Array, gradient: Array, velocity: Array, *, groups: int, lr: float
    ) -> None:
        """Make one step of Muon for the weight of a convolution, in place; see the reference for the formula."""

    def average_step(self, average: Array, values: Array, *, new: float) -> None:
        """Move an average towards the values by the share ``new``, in place."""

    def statistics_step(
        self, mean: Array, var: Array, statistics: Array, *, count: int, new: float
    ) -> None:
        """Move running statistics [c] towards those of a mini-batch [2, c] by the share ``new``, in place."""

    # --- the machine ------------------------------------------------------------------------------

    def thread_count(self, asked: int | None = None) -> int:
        """Return how many threads to use: those asked for, or as many as this process may have cores.

        Raises
        ------
        UsageError
            This backend cannot use that many.
        """

    def on_threads(self, count: int) -> AbstractContextManager[None]:
        """Run what is called inside the ``with`` block on that many threads."""

    def when_compiling(
        self, tell: Callable[[], None], after: float = 1.0
    ) -> AbstractContextManager[None]:
        """Call ``tell`` once if compiling kernels takes longer than ``after`` seconds in the ``with`` block."""

    def peak(self, threads: Sequence[int]) -> list[Peak]:
        """Measure the limits of the device, for each number of threads."""

    def kernels_kept(self) -> list[Kept]:
        """Return the folders of compiled kernels on disk."""

    def kernels_problem(self) -> str | None:
        """Return why compiled kernels cannot be kept on disk, or None when they can."""

    def clear_kernels(self) -> int:
        """Remove all compiled kernels from the disk and return how many bytes they had."""
