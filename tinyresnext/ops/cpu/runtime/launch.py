"""How every parallel kernel is started: on how many threads, and safely from several threads.

Numba hands the work of a parallel kernel to one of three pools of threads, the first that is
installed. They differ in what is safe:

=============  ===============================  ====================================================
pool           calls from two threads at once   after a fork
=============  ===============================  ====================================================
``tbb``        safe                             safe
``omp``        safe                             GNU's, on Linux, ends the child when it is used
``workqueue``  ends the process                 safe
=============  ===============================  ====================================================

So with ``workqueue`` calls take turns, and a child of a process that has used ``omp`` raises an
error.

OpenMP's threads look for work all the time while they wait, for milliseconds, unless they are told
otherwise. Where other programs use the cores, that is time which the thread that has work needs.
So here they sleep, and it takes some microseconds to wake them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numba
from numba import config

from ....errors import DeviceError, UsageError
from ....system.threads import OwnLock
from .cores import cores
from .kernel import compiles


class Pool(NamedTuple):
    """The pool of threads of one process, and the lock to hold while they work."""

    layer: str
    turns: Any


_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # what OpenMP reads, once
_STARTING = OwnLock()  # the environment belongs to the whole process
_POOLS: dict[int, Pool] = {}  # by process: a child inherits its parent's entry


def thread_count(asked: int | None = None) -> int:
    """Return how many threads to use.

    Parameters
    ----------
    asked : int, optional
        By default, as many cores as this process may use (`cores`).

    Raises
    ------
    UsageError
        ``asked`` is not a number from 1 to the number of Numba's threads, which is fixed when Numba
        is imported.
    """
    most = vars(config)["NUMBA_NUM_THREADS"]
    if asked is None:
        return min(cores(), most)
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= most:
        raise UsageError(
            f"threads is {asked!r}, expected a whole number from 1 to {most}: Numba starts one "
            "for each core that this process may run on, or as many as NUMBA_NUM_THREADS says; "
            "set that before Python starts to have more"
        )
    return asked


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Run kernels that this thread launches inside the ``with`` block on ``count`` threads.

    Kernels of other threads are not affected.

    Parameters
    ----------
    count : int
        What `thread_count` returned.
    """
    if not compiles():
        yield
        return
    _pool()
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def threads_now() -> int:
    """Return how many threads the kernels run on that this thread launches.

    Raises
    ------
    DeviceError
        As `launch` raises it.
    """
    # Numba's threads start here, so a child that is forked from now on must know of them.
    _pool() if compiles() else _started()
    return numba.get_num_threads()


def launch(kernel: Callable[..., Any], *args: Any) -> Any:
    """Call a kernel that runs in parallel.

    Raises
    ------
    DeviceError
        This process was forked from one that has used threads which do not survive a fork; or
        Numba's environment variables ask for a pool that is not there.
    """
    if not compiles():
        return kernel(*args)
    with _pool().turns:
        return kernel(*args)


def _pool() -> Pool:
    """Return the pool of this process; it is started first, since Numba knows it only then."""
    process = os.getpid()
    if process not in _POOLS:
        layer = _started()
        if _POOLS and layer == "omp" and sys.platform == "linux":
            raise DeviceError(
                "this process was forked from one that had already computed, and GNU OpenMP's "
                "threads do not survive that; start processes with multiprocessing's 'spawn' or "
                "'forkserver', or predict for the first time after the fork"
            )
        # If two threads come here at once, setdefault keeps the first value: there is one lock.
        _POOLS.setdefault(
            process, Pool(layer, threading.Lock() if layer == "workqueue" else nullcontext())
        )
    return _POOLS[process]


def _started() -> str:
    """Start the pool if it has not been started, and return its name."""
    with _STARTING.here():
        try:
            return str(numba.threading_layer())
        except ValueError:  # Numba knows it only when it has been started
            pass
        try:
            with _asleep():
                numba.get_num_threads()
            return str(numba.threading_layer())
        except (ValueError, ImportError) as error:
            raise _no_pool(error) from error


@contextmanager
def _asleep() -> Iterator[None]:
    """Let threads sleep while they wait, if OpenMP is loaded in the ``with`` block.

    What the environment says about it counts. Nothing is left there for processes that this one
    starts later.
    """
    if any(name in os.environ for name in _WAITING):
        yield
        return
    os.environ[_WAITING[0]] = "passive"
    try:
        yield
    finally:
        os.environ.pop(_WAITING[0], None)


def _no_pool(error: Exception) -> DeviceError:
    """Return the error for a pool of threads that Numba cannot start: its settings ask for it."""
    settings = vars(config)
    layer, order = str(settings["THREADING_LAYER"]), list(settings["THREADING_LAYER_PRIORITY"])
    asked = []
    if layer != "default":
        asked.append(f"NUMBA_THREADING_LAYER is {layer!r}")
    if sorted(order) != ["omp", "tbb", "workqueue"]:
        asked.append(f"NUMBA_THREADING_LAYER_PRIORITY is {' '.join(order)!r}")
    found = " and ".join(asked) or " ".join(str(error).split())
    return DeviceError(
        f"Numba cannot start its threads: {found}, expected a pool that is installed (workqueue "
        "always is, omp and tbb may be), and all three in an order of priority; unset the "
        "environment variable, or compute without Numba on the device 'reference'"
    )
