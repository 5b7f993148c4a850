"""The ranks that ``mpiexec`` started, by the package mpi4py. Only ``--mpi`` imports this module.

Every wait is a loop that asks whether the transfer is done, and soon sleeps between two questions:
so ranks that wait leave their cores to those that compute, Ctrl-C is noticed, and a rank that never
answers ends the run after `LIMIT`. ``mpiexec`` notices a rank that dies, and ends the others.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DeviceError

__all__ = ["LIMIT", "Mpi", "is_first", "started_by"]

LIMIT = 1800.0  # seconds without an answer after which a run ends
TOGETHER = 5.0  # seconds in which all ranks have ended, if they end for the same reason
BUSY = 1e-3  # seconds of a wait in which a rank asks without sleeping
# What the launchers of MPICH, Open MPI and Slurm say about the rank, and the number of ranks.
_NUMBERS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def started_by() -> int:
    """Return how many processes a launcher of MPI says that it has started; 1 without one."""
    found = [os.environ.get(name, "") for name in _SIZES]
    return max([int(text) for text in found if text.isascii() and text.isdecimal()], default=1)


def is_first() -> bool:
    """Return whether no launcher of MPI says that this process is another than the first."""
    return all(os.environ.get(name, "0").lstrip("0") == "" for name in _NUMBERS)


class Mpi:
    """The ranks of this run.

    Parameters
    ----------
    limit : float
        Seconds.

    Raises
    ------
    DeviceError
        The package mpi4py is not installed, or finds no MPI.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise DeviceError(
                f"--mpi needs the package mpi4py and an MPI ({error}); install both with pip "
                "install 'tinyresnext[mpi]', or mpi4py alone where the machine has an MPI"
            ) from error
        self._mpi, self._limit = MPI, limit
        self._world = MPI.COMM_WORLD.Dup()
        self._end = MPI.COMM_WORLD.Dup()  # on which nothing else is ever sent
        self._begun: list[Any] = []
        self.rank, self.count = self._world.Get_rank(), self._world.Get_size()
        self.sharing = self._neighbours()

    def _neighbours(self) -> int:
        """Return how many ranks of this machine may run on a core of this one."""
        here = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
        found = sum(bool(own & other) for other in here.allgather(own))
        here.Free()
        return found

    def sum(self, array: np.ndarray) -> None:
        """Replace the array by its sum over all ranks."""
        self._until(self._world.Iallreduce(self._mpi.IN_PLACE, array).Test, self._limit)

    def start(self, array: np.ndarray) -> None:
        """Begin what `sum` does, and let what was begun before go on."""
        self._begun.append(self._world.Iallreduce(self._mpi.IN_PLACE, array))
        self.progress()

    def progress(self) -> None:
        """Ask once, without waiting: MPI moves data in its calls."""
        self._mpi.Request.Testall(self._begun)

    def wait(self) -> None:
        """Return when all that was begun is done."""
        self._until(lambda: self._mpi.Request.Testall(self._begun), self._limit)
        self._begun.clear()

    def share(self, value: Any) -> Any:
        """Return what the first rank gives; it may be at work for long."""
        data = np.frombuffer(pickle.dumps(value) if self.rank == 0 else b"", np.uint8)
        length = np.array([data.size], np.int64)
        self._until(self._world.Ibcast(length).Test, None)
        data = data.copy() if self.rank == 0 else np.empty(int(length[0]), np.uint8)
        self._until(self._world.Ibcast(data).Test, self._limit)
        return value if self.rank == 0 else pickle.loads(data.tobytes())  # of this run itself

    def ended_together(self) -> bool:
        """Return whether all ranks come here within some seconds."""
        try:
            self._until(self._end.Ibarrier().Test, TOGETHER)
        except DeviceError:
            return False
        return True

    def abort(self, code: int) -> None:
        """End all ranks at once."""
        self._mpi.COMM_WORLD.Abort(code)

    def _until(self, done: Callable[[], bool], limit: float | None) -> None:
        """Return when ``done`` says so.

        Raises
        ------
        DeviceError
            It has not for ``limit`` seconds, or MPI has failed.
        """
        began = time.monotonic()
        try:
            while not done():
                waited = time.monotonic() - began
                if limit is not None and waited > limit:
                    raise DeviceError(
                        f"rank {self.rank} of {self.count} has waited {limit:.0f} seconds for the "
                        "others, so one of them has ended or hangs; go on with --resume"
                    )
                if waited > BUSY:
                    time.sleep(min(waited / 10, BUSY))
        except self._mpi.Exception as error:
            raise DeviceError(
                f"rank {self.rank} of {self.count} does not reach the others ({error}); go on with "
                "--resume"
            ) from error
