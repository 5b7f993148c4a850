"""`--dask`: the workers of a Dask scheduler compute, and this process writes what they find."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import UsageError
from ..output.progress import say

if TYPE_CHECKING:
    from distributed import Client


def add_dask(c: argparse.ArgumentParser) -> None:
    """Add ``--dask``."""
    c.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="let the workers of the Dask scheduler at this address compute, such as "
        "tcp://10.0.0.1:8786; they read the images themselves, under the same paths",
    )


def with_workers(
    run: Callable[[argparse.Namespace, Client | None], int],
) -> Callable[[argparse.Namespace], int]:
    """Return a command that is also given a client of the scheduler that was typed, or None.

    The scheduler and its workers are looked at before anything else.

    Raises
    ------
    UsageError
        The command does: the number of threads was typed, too.
    DeviceError
        The command does, as `inference.many.cluster.connected` raises.
    """

    def command(a: argparse.Namespace) -> int:
        if a.dask is None:
            _say_not_shared()
            return run(a, None)
        if a.threads is not None:
            raise UsageError(
                "--threads is for this process, and with --dask each worker takes the number that "
                "Dask gives it; leave out --threads, and start workers with --nthreads N"
            )
        from ...inference.many.cluster import connected

        with connected(a.dask) as client:
            found = client.nthreads()
            workers = f"{len(found)} worker{'' if len(found) == 1 else 's'}"
            say(f"{workers} of Dask compute, {sum(found.values())} tasks at once")
            return run(a, client)

    return command


def _say_not_shared() -> None:
    """Say that processes which ``mpiexec`` has started share nothing, in the first of them.

    It is no error: each may have been given images of its own.
    """
    from ...system.mpi import is_first, started_by

    if (count := started_by()) > 1 and is_first():
        say(
            f"{count} processes were started together, and each does by itself what it was given; "
            "MPI is for training (train --mpi), and workers of Dask share images (--dask)"
        )
