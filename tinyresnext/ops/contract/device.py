"""The functions of a backend that are not ops: placing, running, updating, and the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .forward import Array


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


class Compiling(NamedTuple):
    """How far the compiling of kernels is.

    Attributes
    ----------
    name : str
        The kernel that is compiled now; empty where that is not known.
    done : int
        How many functions are compiled.
    seconds : float
        How long all of it has taken.
    """

    name: str
    done: int
    seconds: float


class Kept(NamedTuple):
    """A folder of compiled kernels on disk."""

    folder: Path
    files: int
    bytes: int
    current: bool  # whether this version and this processor use it


class Device(Protocol):
    """Where arrays are, how calls are run, how weights are updated, and the machine."""

    @property
    def __name__(self) -> str:
        """Return the name of the module."""

    @property
    def precision(self) -> str:
        """Return what activations are stored in: float32, float16 or bfloat16.

        Sums are float32. `tinyresnext.ops.bfloat16.limits` says what each is.
        """

    # --- placing ----------------------------------------------------------------------------------

    def empty(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Return new memory on the device, not yet filled."""

    def upload(self, array: Any, out: Array | None = None) -> Array:
        """Copy a NumPy array to the device, into ``out`` of the same shape if that is given.

        Without ``out`` the result may be the array itself, where the device computes in NumPy's
        memory.
        """

    def download(self, array: Array) -> np.ndarray:
        """Return the values as a NumPy array.

        It may be the device's own memory: copy what is to be kept.
        """

    def view(self, array: Array, shape: Sequence[int], start: int = 0) -> Array:
        """Return the part of a flat array that begins at ``start``, in another shape.

        Both share their memory.
        """

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

    def repeated(self, call: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
        """Return a call to be timed that makes a bound call many times in a row, and how many.

        That is once where the time of a call is that of its work. To start a short call and to wait
        for it takes a GPU longer than the call itself.
        """

    def wait(self) -> None:
        """Return when all calls that this thread has made are done; `download` waits, too."""

    def loaders(self, count: int) -> int:
        """Return how many of ``count`` threads should prepare mini-batches while others compute."""

    def at_once(self, n: int, weights: int, values: int) -> int:
        """Return how many of ``n`` samples best go through some layers together; it divides ``n``.

        The layers have so many weights, and read and write so many values for one sample.
        """

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
        """Make one step of stochastic gradient descent, in place; the reference has the formula."""

    def adamw_step(
        self,
        weight: Array,
        gradient: Array,
        velocity: Array,
        squares: Array,
        *,
        lr: float,
        momentum: float,
        beta2: float,
        eps: float,
        decay: float,
        step: int,
    ) -> None:
        """Make one step of AdamW, in place; ``step`` counts from 1.

        The reference has the formula.
        """

    def lamb_step(
        self,
        weight: Array,
        gradient: Array,
        velocity: Array,
        squares: Array,
        *,
        lr: float,
        momentum: float,
        beta2: float,
        eps: float,
        decay: float,
        step: int,
    ) -> None:
        """Make one step of LAMB, in place; ``step`` counts from 1.

        The reference has the formula.
        """

    def rmsprop_step(
        self,
        weight: Array,
        gradient: Array,
        velocity: Array,
        squares: Array,
        *,
        lr: float,
        momentum: float,
        beta2: float,
        eps: float,
        decay: float,
    ) -> None:
        """Make one step of RMSprop, in place; the reference has the formula."""

    def muon_step(
        self, weight: Array, gradient: Array, velocity: Array, *, groups: int, lr: float
    ) -> None:
        """Make one step of Muon for the weight of a convolution, in place.

        The reference has the formula.
        """

    def clip_norm_step(self, gradient: Array, *, most: float) -> None:
        """Scale a gradient to a norm of ``most`` at most, in place."""

    def clip_value_step(self, gradient: Array, *, most: float) -> None:
        """Bring each value of a gradient between ``-most`` and ``most``, in place."""

    def clip_units_step(self, gradient: Array, weight: Array, *, most: float) -> None:
        """Scale the gradient of each filter to ``most`` times the norm of its weights, in place.

        This is an upper bound; the reference has the formula.
        """

    def average_step(self, average: Array, values: Array, *, new: float) -> None:
        """Move an average towards the values by the share ``new``, in place; 1 copies them."""

    def statistics_step(
        self, mean: Array, var: Array, statistics: Array, *, count: int, new: float
    ) -> None:
        """Move running statistics [c] towards those of a mini-batch [2, c], in place.

        ``new`` is the share of the mini-batch, ``count`` its values of each channel.
        """

    # --- the machine ------------------------------------------------------------------------------

    def described(self) -> str:
        """Return what computes, in a few words for people."""

    def kind(self) -> str:
        """Return for which kind of processor kernels are compiled, and by what; else nothing.

        On another kind, the last bits of results may be others.
        """

    def thread_count(self, asked: int | None = None) -> int:
        """Return how many threads to use: as many as asked for, or one for each usable core.

        Raises
        ------
        UsageError
            This backend cannot use that many.
        """

    def on_threads(self, count: int) -> AbstractContextManager[None]:
        """Run what is called inside the ``with`` block on that many threads."""

    def when_compiling(
        self, tell: Callable[[Compiling | None], None], after: float = 1.0
    ) -> AbstractContextManager[None]:
        """Call ``tell`` again and again while kernels compile in the block, from another thread.

        It is called first after that many seconds of compiling, all kernels taken together, and
        with None when a compilation that it was told of has ended.
        """

    def peak(self, threads: Sequence[int]) -> list[Peak]:
        """Measure the limits of the device, for each number of threads if these matter to it."""

    def kernels_kept(self) -> list[Kept]:
        """Return the folders of compiled kernels on disk."""

    def kernels_problem(self) -> str | None:
        """Return why compiled kernels cannot be kept on disk, or None when they can."""

    def clear_kernels(self, others: bool = False) -> int:
        """Remove all compiled kernels from the disk and return how many bytes they had.

        With ``others``, those stay that this version uses on this processor.
        """
