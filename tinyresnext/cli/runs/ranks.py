"""`--mpi`: this process as one of several that train together."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import UsageError
from ...system.console import plain, tell

if TYPE_CHECKING:
    from ...system.ranks import Ranks

CARRY = 1.0  # seconds for mpiexec to print the last line of a rank, which an abort discards


def add_ranks(c: argparse.ArgumentParser) -> None:
    """Add the options of a run in several processes."""
    c.add_argument(
        "--mpi",
        action="store_true",
        help="share each mini-batch with the other processes that mpiexec has started",
    )
    c.add_argument(
        "--sync-norm",
        action="store_true",
        help="with --mpi: batch norms see the whole mini-batch, as in one process",
    )


@contextmanager
def ranks_of(a: argparse.Namespace) -> Iterator[Ranks]:
    """Return the processes that train together; in the ``with`` block, the first alone talks.

    An error that all of them raise is left to the caller. One that some do not raise, who would
    wait for ever, ends all of them at once.

    Raises
    ------
    UsageError
        The options do not fit how the process was started.
    DeviceError
        There is no MPI.
    """
    if not a.mpi:
        from ...system.ranks import ALONE

        _check_alone(a)
        yield ALONE
        return
    from ...system.mpi import Mpi

    ranks, stderr = Mpi(), sys.stderr
    if ranks.rank:  # until the process ends: the errors of all ranks are those of the first
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        yield ranks
    except BaseException as error:
        if not ranks.ended_together():
            sys.stderr = stderr
            said = str(error) or type(error).__name__
            tell(f"tinyresnext: rank {ranks.rank} of {ranks.count}: {plain(said)}")
            time.sleep(CARRY)
            ranks.abort(1)
        raise


def _check_alone(a: argparse.Namespace) -> None:
    """Refuse what only several processes can mean."""
    from ...system.mpi import started_by

    if a.sync_norm and not a.resume:
        raise UsageError("--sync-norm is for several processes that train together: give --mpi too")
    if (count := started_by()) > 1:
        raise UsageError(
            f"{count} processes were started together, and each would train by itself; give --mpi, "
            "and they share each mini-batch"
        )
