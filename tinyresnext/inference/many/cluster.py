"""The workers of a Dask scheduler: they are found, and checked before anything is computed.

Only ``client=`` and ``--dask`` need this module, and the package distributed.
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import DeviceError, TinyResNeXtError, UsageError
from ...system.version import __version__

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["answering", "check_client", "connected", "none_left", "reason", "threads_of"]

CONNECTING = 30.0  # seconds in which a scheduler has to answer
PATIENCE = 60.0  # seconds without any worker after which a run ends
_VERSION = "tinyresnext.system.version:__version__"
_INSTALL = f"pip install 'tinyresnext[dask]=={__version__}'"


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connect to a scheduler, and check its workers.

    Raises
    ------
    DeviceError
        The package distributed is missing, or there is no scheduler, or as `check_client` raises.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise DeviceError(
            f"workers of Dask are asked for, and the package distributed cannot be used ({error}); "
            "install it: pip install 'tinyresnext[dask]'"
        ) from error
    # What is wrong is said in one error; lines of a log about it would stand before that.
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        asyncio.run(_answer(address))
        client = Client(address, timeout=CONNECTING, set_as_default=False)
    except Exception as error:  # an address of no kind that Dask knows, a server of another kind
        raise DeviceError(
            f"no scheduler of Dask answers at {address!r:.200} within {CONNECTING:.0f} seconds "
            f"({reason(error)}); start one (dask scheduler), and give the address that it prints, "
            "such as tcp://10.0.0.1:8786"
        ) from error
    with client:
        check_client(client)
        yield client


async def _answer(address: str) -> None:
    """Return when a server of Dask has answered; a client alone would wait for others for ever."""
    from distributed import Security
    from distributed.comm import connect

    how = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout=CONNECTING, **how), CONNECTING)
    await comm.close()


def check_client(client: Client) -> None:
    """Check that a client has workers, and that each of them has this version of the package.

    Raises
    ------
    UsageError
        It is no client, or an asynchronous one.
    DeviceError
        It is closed, there is no worker for a minute, or a worker has another version.
    """
    found = _workers(client)
    others = {worker: one for worker, one in found.items() if one != __version__}
    if not others:
        return
    worker, one = next(iter(others.items()))
    has = f"has version {one}" if isinstance(one, str) else f"has none ({reason(one)})"
    raise DeviceError(
        f"{len(others)} of {len(found)} workers have another tinyresnext than this process, which "
        f"has version {__version__}: {worker} {has}; install the same there ({_INSTALL}), and "
        "start these workers again"
    )


def _workers(client: Client) -> dict[str, Any]:
    """Return what each worker has as the version of this package: a text, or an error."""
    try:
        from distributed import Client
    except ImportError:
        Client = ()
    if not isinstance(client, Client) or client.asynchronous:
        raise UsageError(
            f"client is a {type(client).__name__}; expected a dask.distributed.Client that is not "
            "asynchronous"
        )
    with answering():
        try:
            if not client.nthreads():
                client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise none_left(client) from error
        # By a function of Python's own: a worker without this package can look, too.
        found = client.run(pkgutil.resolve_name, _VERSION, on_error="return")
    there = {worker: one for worker, one in found.items() if not isinstance(one, OSError)}
    if not there:  # the others have ended meanwhile
        raise none_left(client)
    return there


def none_left(client: Client) -> DeviceError:
    """Return the error for a scheduler that has no workers."""
    return DeviceError(
        f"the scheduler of Dask at {client.scheduler.address} has had no worker for "
        f"{PATIENCE:.0f} seconds; start some (dask worker {client.scheduler.address}), and where "
        "rows go to a file, go on with --resume"
    )


def threads_of(client: Client) -> int:
    """Return how many threads all workers have together: as many tasks run at once."""
    with answering():
        return sum(client.nthreads().values())


@contextmanager
def answering() -> Iterator[None]:
    """Raise `DeviceError` for what a client raises in the ``with`` block without a scheduler."""
    try:
        yield
    except TinyResNeXtError:
        raise
    except Exception as error:  # of many kinds, as the connection was lost
        raise DeviceError(
            f"the scheduler of Dask does not answer ({type(error).__name__}: {reason(error)}); "
            "start it again, and where rows go to a file, go on with --resume"
        ) from error


def reason(error: BaseException) -> str:
    """Return in one line what an error says."""
    return " ".join(str(error).split())[:300] or type(error).__name__
