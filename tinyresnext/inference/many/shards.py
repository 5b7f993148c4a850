"""Images shared among the workers of a Dask scheduler: shards of them as tasks, results in order.

Dask places the tasks and runs those of a lost worker again. Here is what it cannot know. The model
is sent to every worker once, not with each task. The tasks in flight are a few for each thread of
the workers, whatever the number of images. A task has names of images, and the worker reads them;
whether it reads the same files as this process is checked.
"""

from __future__ import annotations

import os
import time
from asyncio import CancelledError as Cancelled
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ...data.trees.sources import Source
from ...errors import DeviceError, ImageError, TinyResNeXtError
from ...system.files import shown
from ..ensemble import Ensemble
from .cluster import PATIENCE, answering, check_client, none_left, reason, threads_of
from .worker import Packed, Work, contents, pack, shard, without_access

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["of_whole", "spread"]

Made = TypeVar("Made")
SHARD = 64  # images of a task, in which the time that Dask takes for a task is small
MOST = 16 << 20  # bytes of the results of a task, of which workers hold a few
EACH = 3  # tasks in flight for each thread of a worker: one that runs, two that wait
LOOK = 5.0  # seconds between two looks at how many workers there are
TRIES = 3  # times that all tasks are lost, one after the other, before a run ends


def of_whole(batch: int, image_bytes: int = 1) -> int:
    """Return how many images a shard has: whole mini-batches, as one process would form them.

    Parameters
    ----------
    batch : int
        The number of images in a mini-batch.
    image_bytes : int
        What the result for an image takes.
    """
    return max(1, min(SHARD, MOST // image_bytes) // batch) * batch


def spread(
    client: Client, work: Work[Made], model: Ensemble, sources: Iterable[Source], size: int
) -> Generator[Made, None, None]:
    """Yield what workers make of images, in the order of the images.

    Parameters
    ----------
    client : Client
        As `check_client` accepts it.
    work : callable
        Returns what a model makes of some images. It is pickled, with the model.
    model : Ensemble
        Its number of threads is not used: a worker computes on as many as it has for Dask's tasks,
        or as it may use cores if these are fewer.
    sources : iterable of Source
        Each is taken from it when its shard is sent.
    size : int
        The number of images in a shard.

    Raises
    ------
    DeviceError
        There is no worker for a minute, the scheduler ends, or a worker has no access to the files,
        or another version, or fails.
    TinyResNeXtError
        As ``work`` raises it.
    """
    images = iter(sources)
    groups = iter(lambda: list(islice(images, size)), [])
    first = next(groups, None)
    if first is None:
        return
    run = _Run(client, pack(work, model, first))
    try:
        left = chain([first], groups)
        while run.fill(left):
            yield from run.next()
    finally:
        run.end()


class _Shard(NamedTuple):
    """Images whose results have not come yet."""

    sources: list[Source]
    future: Future


class _Run:
    """The shards in flight, in order, and the model that every worker has."""

    def __init__(self, client: Client, packed: Packed) -> None:
        self._client, self._packed, self._folder = client, packed, os.getcwd()
        self._waiting: deque[_Shard] = deque()
        self._losses, self._threads = 0, 1
        self._looked, self._had_workers = float("-inf"), time.monotonic()
        self._send()

    def fill(self, groups: Iterator[list[Source]]) -> bool:
        """Send shards, as many as may be in flight; return whether there are any."""
        if time.monotonic() - self._looked > LOOK:
            self._look()
        while len(self._waiting) < EACH * self._threads:
            group = next(groups, None)
            if group is None:
                break
            self._waiting.append(_Shard(group, self._begin(group)))
        return bool(self._waiting)

    def next(self) -> list[Any]:
        """Return what was made of the images of the next shard."""
        while True:
            sources, future = self._waiting[0]
            try:
                made, unread = future.result(timeout=LOOK)
                break
            except (Cancelled, CancelledError):
                self._again()
            except TinyResNeXtError:
                raise
            except Exception as error:
                if future.status in ("lost", "cancelled"):
                    self._again()
                elif isinstance(error, TimeoutError) and future.status != "error":
                    self._look()
                else:
                    raise _explained(error, sources) from error
        self._losses = 0
        self._waiting.popleft()
        future.release()
        _check_unread([sources[number] for number in unread])
        found: list[Any] = made
        return found

    def end(self) -> None:
        """Give up what is in flight."""
        for _, future in self._waiting:
            future.release()
        self._model.release()

    def _send(self) -> None:
        """Send the model to every worker; those that come later get it from another one."""
        with answering():
            [self._model] = self._client.scatter([self._packed], broadcast=True, hash=False)

    def _begin(self, sources: list[Source]) -> Future:
        """Send a shard."""
        import cloudpickle  # the pickles of Dask

        sent = cloudpickle.dumps((self._folder, sources))
        with answering():
            return self._client.submit(shard, self._model, sent, pure=False)

    def _look(self) -> None:
        """Count the workers' threads; raise `DeviceError` if there was none for a minute."""
        self._looked = time.monotonic()
        if threads := threads_of(self._client):
            self._threads, self._had_workers = threads, self._looked
        elif self._looked - self._had_workers > PATIENCE:
            raise none_left(self._client)

    def _again(self) -> None:
        """Begin all shards again that have not ended: the last worker with the model was lost."""
        self._losses += 1
        if self._losses > TRIES:
            raise DeviceError(
                f"all workers of Dask were lost {self._losses} times while they computed the same "
                f"images, {_range(self._waiting[0].sources)}; look into the logs of the workers, "
                "which may have too little memory, and go on with --resume where rows go to a file"
            )
        check_client(self._client)
        self._send()
        for number, (sources, future) in enumerate(self._waiting):
            if future.status not in ("finished", "error"):
                future.release()
                self._waiting[number] = _Shard(sources, self._begin(sources))


def _check_unread(sources: list[Source]) -> None:
    """Raise `DeviceError` if this process can read an image that a worker could not."""
    for source in sources:
        try:
            contents(source)
        except ImageError:
            continue
        raise without_access(source.name, "a worker of Dask", "it cannot be read there")


def _explained(error: Exception, sources: list[Source]) -> DeviceError:
    """Return the error for what a worker could not do, and what no image is to blame for."""
    return DeviceError(
        f"the workers of Dask failed with {_range(sources)} ({type(error).__name__}: "
        f"{reason(error)}); look into the logs of the workers, and go on with --resume where rows "
        "go to a file"
    )


def _range(sources: list[Source]) -> str:
    """Return which images a shard has, for a message."""
    return f"{len(sources)} images from {shown(sources[0].name)} on"
