"""Mini-batches of image files: prepared by threads while the network computes, of a good size."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...data.trees.sources import Source, as_path, as_source, check_several
from ...errors import ImageError
from ...images.checks import whole_number
from ...images.files import Contents
from ...system.threads import ahead

if TYPE_CHECKING:
    from distributed import Client

    from ..ensemble import Ensemble

__all__ = ["BatchSize", "batch_and_step", "grouped", "prepared", "sources_of", "worked"]

Item = TypeVar("Item")
Made = TypeVar("Made")
FIRST = 8  # images in the first mini-batch, where no size is given
_GOES_ON = 64  # images in a mini-batch of a run that can go on, off the processor
_TRIED = (8, 16, 32, 64)
_BETTER = 0.97  # of the time for an image: a larger size must be so much faster to be chosen
_PART = 8  # of the free memory, one in so many bytes may have prepared images
_UNKNOWN = 2**30  # bytes of free memory where the system does not tell


def sources_of(paths: Iterable[str | os.PathLike[str] | Source]) -> Iterator[Source]:
    """Return images, of which a path stands for itself.

    Raises
    ------
    UsageError
        At once: ``paths`` is one path, or no list. When its turn comes: an item is no path.
    """
    check_several(paths)
    return (one if isinstance(one, Source) else as_source(as_path(one)) for one in paths)


def worked(
    work: Callable[..., Generator[Made, None, None]],
    model: Ensemble,
    sources: Iterable[Source],
    batch: int | None,
    client: Client | None,
    image_bytes: int = 1,
) -> Generator[Made, None, None]:
    """Return what is made of images, in their order: by this process, or by workers of Dask.

    Parameters
    ----------
    work : callable
        Is given the model, some images, the number of them in a mini-batch, and the number of
        threads that prepare images.
    model : Ensemble
    sources : iterable of Source
    batch : int, optional
        By default this process finds a good one; workers, who see few images at a time, take 8.
    client : dask.distributed.Client, optional
    image_bytes : int
        What is made of an image takes so many.

    Raises
    ------
    UsageError, DeviceError
        ``batch`` is no whole number from 1, or as `cluster.check_client` raises; at once.
    """
    batch = batch if batch is None else whole_number("batch", batch, 1)
    if client is None:
        return work(model, sources, batch, model.loaders)
    from .cluster import check_client
    from .shards import of_whole, spread

    check_client(client)
    # A worker has several tasks at once, so one thread of each prepares its images.
    on_worker = partial(work, batch=batch or FIRST, loaders=1)
    return spread(client, on_worker, model, sources, of_whole(batch or FIRST, image_bytes))


def batch_and_step(device: str, batch: int | None) -> tuple[int | None, int]:
    """Return the size of the mini-batches of a run that can go on, and how many rows it keeps.

    The processor's kernels compute the same bits for an image in any mini-batch. Others may not, so
    a run that goes on has the mini-batches of one that was not stopped: of one size, which cannot
    depend on what was fast or on memory; and only rows of whole mini-batches are kept.

    Parameters
    ----------
    device : str
        Without the number of a GPU.
    batch : int, optional
        The size that is asked for.

    Returns
    -------
    int or None, int
        None lets the size be found. Rows are kept in whole groups of the second number.
    """
    if device == "cpu":
        return batch, 1
    size = _GOES_ON if batch is None else batch
    return size, size


@dataclass
class BatchSize:
    """How many images go through a network together: a given number, or one that is found.

    What is found is the size whose images take the least time, among those whose prepared images
    need at most an eighth of the free memory. Each size is tried with two mini-batches of the run
    itself. The first of them also makes the plan for its shape, so the second is measured.

    Parameters
    ----------
    given : int, optional

    Attributes
    ----------
    now : int
        The size of the next mini-batch.
    """

    given: int | None = None
    now: int = field(init=False)
    _seconds: dict[int, float] = field(default_factory=dict, init=False)  # for an image
    _seen: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.now = self.given or FIRST
        self._found = self.given is not None

    def took(self, count: int, seconds: float, image_bytes: int) -> None:
        """Take note of a mini-batch: its images, its time, and the memory of a prepared image."""
        if self._found or count != self.now or not image_bytes:
            return
        if self._seen != count:
            self._seen = count
            return
        self._seconds[count] = seconds / count
        most = free_memory() // _PART // 3 // max(1, image_bytes)  # three mini-batches are held
        larger = [size for size in _TRIED if count < size <= most]
        if larger:
            self.now = larger[0]
            return
        self._found, best = True, min(self._seconds.values())
        self.now = min(size for size, one in self._seconds.items() if one * _BETTER <= best)


def prepared(
    sources: Iterable[Source],
    make: Callable[[str | Contents], Made],
    batch: int | None,
    threads: int,
) -> Generator[list[tuple[str, Made | str]], None, None]:
    """Yield some image files at a time: the name of each, and what is made of it, or the error.

    Threads make the next ones while the caller computes. At most three mini-batches are held.

    Parameters
    ----------
    sources : iterable of Source
        Each is taken when its turn comes.
    make : callable
        Called from several threads.
    batch : int, optional
        The number of images in a mini-batch; by default it is found (see `BatchSize`).
    threads : int
    """

    def one(source: Source) -> tuple[str, Made | str]:
        try:
            return source.name, make(source.open())
        except ImageError as error:
            # Not the error: its traceback would keep the whole file in memory.
            return source.name, str(error)

    return grouped(one, sources, batch, threads)


def grouped(
    make: Callable[[Item], Made], items: Iterable[Item], batch: int | None, threads: int
) -> Generator[list[Made], None, None]:
    """Yield what is made of some items at a time, as `prepared` does with image files."""
    size = BatchSize(batch)
    made = ahead(make, items, threads, lambda: 2 * size.now + threads)
    with closing(made):
        while group := list(islice(made, size.now)):
            start = time.perf_counter()
            yield group
            size.took(len(group), time.perf_counter() - start, max(map(_bytes, group)))


def _bytes(made: Any) -> int:
    """Return the bytes of what was made of an image: an array, or arrays in a tuple."""
    return sum(map(_bytes, made)) if isinstance(made, tuple) else int(getattr(made, "nbytes", 0))


def free_memory(root: str | os.PathLike[str] = "/") -> int:
    """Return how many bytes are free: of the machine, or of the container if that has fewer."""
    found = [_UNKNOWN]
    if sys.platform == "linux":
        found = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    group = Path(root) / "sys/fs/cgroup"
    try:
        most, now = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        found.append(max(0, int(most) - int(now)))
    except (OSError, ValueError):  # no such files, or "max": there is no limit
        pass
    return min(found)
