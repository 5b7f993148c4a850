"""Mini-batches, computed ahead of the network in threads.

The content of a mini-batch depends on the random seed, the epoch and the number of the mini-batch,
and on nothing else. Each mini-batch has its own random numbers, from Philox, a counter-based
generator (Salmon et al. 2011): NumPy promises that its bits stay the same. What draws for one image
after the other has random numbers of that place in the mini-batch. So threads may finish in any
order, a part of a mini-batch can be made alone, and a run that resumes in the middle of an epoch
sees the same mini-batches as a run that was never interrupted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, UsageError
from ..images.augmentation.augment import Augment
from ..images.checks import whole_number
from ..system.files import shown
from .dataset import Dataset

__all__ = ["Loader"]

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]

_AHEAD = 2  # mini-batches that wait, beyond the one that each thread computes
_ORDER, _CONTENT, _SIDE, _IMAGE = 0, 1, 2, 3  # what a key of random numbers has behind the epoch


class Loader:
    """Mini-batches of a data set; a context manager, which stops its threads when it is left.

    Parameters
    ----------
    dataset
        The images.
    augment
        The random changes, and the normalisation.
    batch
        Number of images in a mini-batch.
    seed
        Random seed, at least 0. The same seed gives the same mini-batches.
    threads
        Number of threads that decode and augment, beside the thread that takes the mini-batches.
    shuffle
        Whether the order of the images is random and different in every epoch; otherwise it is that
        of the data set.
    drop_last
        Whether the last images of an epoch are left out when they do not fill a mini-batch. Then
        every mini-batch is full: the next good image of the data set replaces a broken image that
        is skipped. Otherwise a mini-batch with broken images is shorter, and one without any good
        image is left out.
    broken
        The broken images that have already been reported, by their numbers; those that are found
        are added to it.
    balanced
        Whether an epoch has as many images of each class as of the others, and as many in all as
        the data set: of large classes, some are left out at random; of small ones, all come several
        times.
    repeats
        How often an image comes, each time augmented anew (Hoffer et al. 2020). An epoch has as
        many samples as before, so it leaves images out. A mini-batch begins where the last ended.
    places
        Which images of each mini-batch are made, by their places in it, in this order; by default
        all. Each is what it is in the whole mini-batch, and no other is read. Only for `drop_last`.
    numbers
        Whether mini-batches have the numbers of their images in the data set in place of labels.

    Raises
    ------
    UsageError
        A value is out of range, or the data set is smaller than one mini-batch.
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
        balanced: bool = False,
        repeats: int = 1,
        places: Sequence[int] | None = None,
        numbers: bool = False,
    ) -> None:
        batch, seed = whole_number("batch", batch, 1), whole_number("seed", seed, 0)
        threads = whole_number("threads", threads, 1)
        if drop_last and len(dataset) < batch:
            raise UsageError(
                f"{len(dataset)} images are fewer than one mini-batch of {batch}; "
                "give more images or a smaller batch"
            )
        self.dataset, self.augment, self.batch, self.seed = dataset, augment, batch, seed
        self.shuffle, self.drop_last, self.balanced = shuffle, drop_last, balanced
        self.repeats = whole_number("repeats", repeats, 1)
        self._says = np.arange(len(dataset)) if numbers else dataset.labels
        self._threads = threads
        self._places = None if places is None else np.asarray(places, np.int64)
        self._stopped = threading.Event()
        self._broken = {} if broken is None else broken
        self._sides = (
            self._philox(0, _SIDE).random_raw(len(dataset)) % 2 if augment.alternate else None
        )
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tinyresnext-loader")

    def __enter__(self) -> Loader:
        """Return the loader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads, each at the end of its current image."""
        self.close()

    def __len__(self) -> int:
        """Return the number of mini-batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch)
        return whole + (rest > 0 and not self.drop_last)

    def close(self) -> None:
        """Stop the threads; afterwards `epoch` raises `UsageError`."""
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Iterate over the mini-batches of one epoch.

        Parameters
        ----------
        epoch
            At least 0.
        first
            Number of the mini-batch to begin with, 0 to ``len(self)``.

        Yields
        ------
        x : float32 [n, size, size, channels]
        labels, or with `numbers` these : int64 [n]

        Raises
        ------
        ImageError
            An image is broken, or does not have the size that `augment` needs.
        UsageError
            `epoch` or `first` is out of range, or the loader is closed.
        """
        epoch = whole_number("epoch", epoch, 0, 2**32 - 1)
        first = whole_number("first", first, 0, len(self))
        if self._stopped.is_set():
            raise UsageError("the loader is closed; take batches inside its with block")
        return self._batches(epoch, first)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the images in the order of an epoch: int64 [len(dataset)]."""
        drawn, n = self._drawn(epoch), len(self.dataset)
        if self.repeats == 1:
            return drawn
        # In a mini-batch first copies come first, so that neighbours, which mixup mixes, differ.
        places = np.arange(n)
        order = np.lexsort((places % self.repeats, places // self.batch))
        return np.repeat(drawn[: -(-n // self.repeats)], self.repeats)[:n][order]

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of all images, as if each came once."""
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        philox = self._philox(epoch, _ORDER)
        order = np.argsort(philox.random_raw(n), kind="stable")
        if not self.balanced:
            return order
        labels = self.dataset.labels[order]
        groups = [order[labels == label] for label in np.unique(labels)]
        first = epoch % len(groups)  # the images that are left over go to other classes each time
        groups = groups[first:] + groups[:first]
        quotas = [len(range(i, n, len(groups))) for i in range(len(groups))]
        drawn = [np.resize(group, count) for group, count in zip(groups, quotas, strict=True)]
        return np.concatenate(drawn)[np.argsort(philox.random_raw(n), kind="stable")]

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Submit mini-batches to the threads a few at a time, and yield the results in order."""
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
        """Compute one mini-batch, in a thread."""
        augment, pixels = self.augment, self.dataset.pixels
        rng: Any = np.random.Generator(self._philox(epoch, _CONTENT, number))
        places = np.arange(len(chosen))
        if self._places is not None:
            rng, places = _Part(rng, self._places, len(chosen)), self._places
        chosen = chosen[places]
        each = [rng] * len(chosen)
        if _one_by_one(augment):
            streams = (self._philox(epoch, _IMAGE, number, place) for place in places.tolist())
            each = [np.random.Generator(stream) for stream in streams]
        if pixels is not None and augment.leaves(pixels.shape[1:]):
            x = augment.finish(pixels[chosen], rng, self._mirrored(chosen, epoch), each)
            return x, self._says[chosen]
        block = np.empty((len(chosen), augment.size, augment.size, augment.channels), np.uint8)
        taken = np.empty(len(chosen), np.int64)
        kept: list[Any] = []
        for i, own in zip(chosen.tolist(), each, strict=True):
            found = self._good_image(i)
            if found is not None:
                image, which = found
                block[len(kept)], taken[len(kept)] = self._fitted(image, which, own), which
                kept.append(own)
        filled = len(kept)
        taken = taken[:filled]
        x = augment.finish(block[:filled], rng, self._mirrored(taken, epoch), kept)
        return x, self._says[taken]

    def _mirrored(self, images: NDArray[np.int64], epoch: int) -> NDArray[np.bool_] | None:
        """Return which images are mirrored in this epoch; None without `augment.alternate`."""
        return None if self._sides is None else (self._sides[images] + epoch) % 2 == 1

    def _fitted(
        self, image: NDArray[np.uint8], i: int, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Bring image i to the network's size; put its name into any error."""
        try:
            return self.augment.fit(image, rng)
        except ImageError as error:
            raise ImageError(f"{shown(self.dataset.names[i])}: {error}") from error

    def _good_image(self, i: int) -> tuple[NDArray[np.uint8], int] | None:
        """Return image i and its number, or what replaces it where broken images are skipped.

        With `drop_last` this is the next good image, and otherwise None.
        """
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
                    # A new error without the traceback, which would keep the file in memory.
                    self._broken[which] = ImageError(str(error))
                    self.dataset.warn(f"skipped: {error}")
            if not self.drop_last:
                return None
        raise ImageError(
            f"none of the {n} images can be used; the error of the last is: {self._broken[which]}"
        )

    def _philox(self, *key: int) -> np.random.Philox:
        """Return the random bits of one purpose, a stream that `key` names."""
        return np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key))


class _Part:
    """The random numbers of some rows, out of those that all rows of a mini-batch draw."""

    def __init__(self, rng: np.random.Generator, places: NDArray[np.int64], whole: int) -> None:
        self._rng, self._places, self._whole = rng, places, whole

    def random(self, size: int | tuple[int, ...]) -> NDArray[np.float64]:
        """Draw an array whose first axis is that of the rows."""
        _, *others = (size,) if isinstance(size, int) else size
        return self._rng.random((self._whole, *others))[self._places]


def _one_by_one(augment: Augment) -> bool:
    """Return whether a step draws for one image after the other, as often as each needs."""
    jitter = augment.brightness or augment.contrast or augment.saturation or augment.hue
    return bool(augment.scale or augment.policy or jitter or augment.erase)
