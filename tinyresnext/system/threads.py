"""Work that threads do ahead, within bounds, and a lock that is free after a fork."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

__all__ = ["OwnLock", "ahead"]

Item = TypeVar("Item")
Made = TypeVar("Made")


class OwnLock:
    """A lock that each process has for itself.

    A process that is forked while a thread of its parent holds a plain lock has that lock, held,
    and not the thread, which would free it.
    """

    def __init__(self) -> None:
        self._locks: dict[int, AbstractContextManager[Any]] = {}

    def here(self) -> AbstractContextManager[Any]:
        """Return the lock of this process; a thread that holds it may take it again."""
        return self._locks.setdefault(os.getpid(), threading.RLock())


def ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int, most: Callable[[], int]
) -> Generator[Made, None, None]:
    """Yield what a function makes of each item, in order; threads compute the next ones meanwhile.

    Parameters
    ----------
    make : callable
        Called from several threads at once. What it raises is raised here, in the item's turn.
    items : iterable
        Taken one by one, by the thread that takes the results; it may be endless.
    threads : int
    most : callable
        Returns how many results may wait or be in the making; asked again for every result.
    """
    waiting: deque[Future[Made]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tinyresnext-ahead")
    try:
        ended = False
        while True:
            while not ended and len(waiting) < max(1, most()):
                try:
                    waiting.append(pool.submit(make, next(remaining)))
                except StopIteration:
                    ended = True
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
