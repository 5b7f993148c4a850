"""Ranks that are threads of this process, for tests of what they do together."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

PATIENCE = 60  # seconds; a rank that is alone fails then


class Threads:
    """One of several ranks; what it gives is copied when a sum begins, as if it were sent then."""

    def __init__(self, rank: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.count, self.sharing = rank, len(slots), len(slots)
        self._barrier, self._slots = barrier, slots
        self._begun: list[tuple[np.ndarray, np.ndarray]] = []
        self.started: list[int] = []  # lengths of what was begun, for tests

    def _all(self, value: Any) -> list[Any]:
        self._slots[self.rank] = value
        self._barrier.wait(PATIENCE)
        found = list(self._slots)
        self._barrier.wait(PATIENCE)
        return found

    def sum(self, array: np.ndarray) -> None:
        found = self._all(array.copy())
        assert len({each.shape for each in found}) == 1, "ranks add up different things"
        array[...] = sum(found[1:], start=found[0])

    def start(self, array: np.ndarray) -> None:
        self.started.append(array.size)
        self._begun.append((array, array.copy()))

    def progress(self) -> None:
        pass

    def wait(self) -> None:
        for array, sent in self._begun:
            self.sum(sent)
            array[...] = sent
        self._begun.clear()

    def share(self, value: Any) -> Any:
        sent = self._all(pickle.dumps(value) if self.rank == 0 else None)[0]
        return value if self.rank == 0 else pickle.loads(sent)


def together(count: int, work: Callable[[Threads], Any]) -> list[Any]:
    """Return what each of the ranks returns; the first error is raised."""
    barrier, slots = threading.Barrier(count), [None] * count
    found: list[Any] = [None] * count
    errors: list[BaseException] = []

    def one(rank: int) -> None:
        try:
            found[rank] = work(Threads(rank, barrier, slots))
        except BaseException as error:
            if not isinstance(error, threading.BrokenBarrierError):
                errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
