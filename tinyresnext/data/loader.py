"""Batches, made ahead of the network in threads of their own.

What a batch holds depends on the seed, the epoch and the number of the batch, and on nothing else.
Each batch has its own random numbers, from Philox, a generator that counts (Salmon et al. 2011):
NumPy promises that its bits stay the same. So threads may finish in any order, and a run that
begins in the middle of an epoch sees what the whole one would have seen.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, UsageError
from ..images.augment import Augment
from ..system.files import shown
from .dataset import Dataset

__all__ = ["Loader"]

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]

_AHEAD = 2  # batches that wait, beyond the one that each thread is at
_ORDER, _CONTENT, _SIDE = 0, 1, 2  # three families of random numbers


class Loader:
    """Batches of a data set; a context manager, because threads work for it until it is left.

    Parameters
    ----------
    dataset
        The pictures.
    augment
        What happens to them.
    batch
        Pictures in a batch.
    seed
        At least 0. The same seed, the same batches.
    threads
        How many decode and augment beside the one that takes the batches.
    shuffle
        Whether every epoch has an order of its own; otherwise it is that of the data set.
    drop_last
        Whether what is left over at the end of an epoch, less than a batch, is left out. Then every
        batch is full: the place of a broken picture that is to be skipped is taken by the next good
        one in the data set. Otherwise batches with such a picture in them are shorter, and one of
        nothing else is left out.
    broken
        The broken pictures that have been told of, by their numbers; those that are found are
        added.

    Raises
    ------
    UsageError
        A value is out of range, or there is no whole batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment,
        batch: int,
        seed: int = 0,
        threads: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
        broken: dict[int, ImageError] | None = None,
    ) -> None:
        for name, value, least in (("batch", batch, 1), ("seed", seed, 0), ("threads", threads, 1)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name} is {value!r}; give a whole number of at least {least}")
        if drop_last and len(dataset) < batch:
            raise UsageError(
                f"{len(dataset)} pictures make no batch of {batch}; give more pictures or a smaller batch"
            )
        self.dataset, self.augment, self.batch, self.seed = dataset, augment, int(batch), int(seed)
        self.shuffle, self.drop_last = shuffle, drop_last
        self._threads = int(threads)
        self._stopped = threading.Event()
        self._broken = {} if broken is None else broken
        self._sides = (
            self._philox(0, _SIDE).random_raw(len(dataset)) % 2 if augment.alternate else None
        )
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tinyresnext-loader")

    def __enter__(self) -> Loader:
        """The loader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads: each at the end of the picture that it is at."""
        self.close()

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 0 and not self.drop_last)

    def close(self) -> None:
        """Stop the threads; afterwards there are no more batches."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Parameters
        ----------
        epoch
            At least 0.
        first
            The batch to begin with, 0 to ``len(self)``.

        Yields
        ------
        x : float32 [n, size, size, channels]
        labels : int64 [n]

        Raises
        ------
        ImageError
            A picture is broken, or not of the size that `augment` needs.
        UsageError
            `epoch` or `first` is out of range, or the loader is closed.
        """
        for name, value, most in (("epoch", epoch, 2**32 - 1), ("first", first, len(self))):
            if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value <= most:
                raise UsageError(f"{name} is {value!r}; give a whole number from 0 to {most}")
        if self._stopped.is_set():
            raise UsageError("the loader is closed; take batches inside its with block")
        return self._batches(int(epoch), int(first))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The pictures of an epoch in the order in which they are taken: int64 [len(dataset)]."""
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        keys = self._philox(epoch, _ORDER).random_raw(n)
        return np.argsort(keys, kind="stable")

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Hand batches to the threads a few at a time, and what they made to the caller in order."""
        order = self.order(epoch)
        numbers = iter(range(first, len(self)))
        waiting: deque[Future[Batch]] = deque()

        def submit_next() -> None:
            for number in numbers:
                chosen = order[number * self.batch : (number + 1) * self.batch]
                waiting.append(self._pool.submit(self._make, chosen, epoch, number))
                return

        try:
            for _ in range(self._threads + _AHEAD):
                submit_next()
            while waiting:
                batch = waiting.popleft().result()
                submit_next()
                if len(batch[1]):
                    yield batch
        finally:
            for future in waiting:
                future.cancel()

    def _make(self, chosen: NDArray[np.int64], epoch: int, number: int) -> Batch:
        """One batch; runs in a thread."""
        augment, pixels = self.augment, self.dataset.pixels
        rng = np.random.Generator(self._philox(epoch, _CONTENT, number))
        if pixels is not None and augment.leaves(pixels.shape[1:]):
            return augment.finish(
                pixels[chosen], rng, self._mirrored(chosen, epoch)
            ), self.dataset.labels[chosen]
        block = np.empty((len(chosen), augment.size, augment.size, augment.channels), np.uint8)
        taken = np.empty(len(chosen), np.int64)
        filled = 0
        for i in chosen.tolist():
            found = self._good_picture(i)
            if found is not None:
                picture, which = found
                block[filled], taken[filled] = self._fitted(picture, which, rng), which
                filled += 1
        taken = taken[:filled]
        return augment.finish(
            block[:filled], rng, self._mirrored(taken, epoch)
        ), self.dataset.labels[taken]

    def _mirrored(self, pictures: NDArray[np.int64], epoch: int) -> NDArray[np.bool_] | None:
        """Which of them are mirrored in this epoch, where that alternates."""
        return None if self._sides is None else (self._sides[pictures] + epoch) % 2 == 1

    def _fitted(
        self, picture: NDArray[np.uint8], i: int, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """A picture at the network's size; an error names it."""
        try:
            return self.augment.fit(picture, rng)
        except ImageError as error:
            raise ImageError(f"{shown(self.dataset.names[i])}: {error}") from error

    def _good_picture(self, i: int) -> tuple[NDArray[np.uint8], int] | None:
        """Picture i and its number; if it is broken and that is to be skipped, the next good one, or None."""
        n = len(self.dataset)
        for step in range(n):
            which = (i + step) % n
            if self._stopped.is_set():
                raise UsageError("the loader was closed")
            if which not in self._broken:
                try:
                    return self.dataset.picture(which), which
                except ImageError as error:
                    if not self.dataset.skips:
                        raise
                    self._broken[which] = ImageError(
                        str(error)
                    )  # without its traceback, which holds the file
                    self.dataset.warn(f"skipped: {error}")
            if not self.drop_last:
                return None
        raise ImageError(
            f"none of the {n} pictures can be used; the last says: {self._broken[which]}"
        )

    def _philox(self, *key: int) -> np.random.Philox:
        """The bits for one purpose."""
        return np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key))
