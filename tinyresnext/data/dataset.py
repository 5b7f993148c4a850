"""What a data set is, wherever its pictures come from: numbered pictures with a label and a name each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, ImageError

__all__ = ["Dataset", "Read", "Reading", "from_files", "to_stderr"]

Read = Callable[[int], NDArray[np.uint8]]

_SAMPLE = 16  # pictures that are decoded to estimate what all of them need
_CHUNK = 64  # pictures that a thread decodes at a time


def to_stderr(line: str) -> None:
    """How a data set warns if nothing else is asked for."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures with labels.

    Parameters
    ----------
    classes
        Names of the classes; a label is an index into them.
    labels
        int64 [n].
    names
        n names, for messages and reports: paths below the root of a folder or archive, or what the
        archive calls them.
    read
        Gives picture i as uint8 [h, w, c]; safe to call from several threads at once.
    pixels
        uint8 [n, h, w, c], if all pictures are in memory and of one size; then ``read(i)`` is
        ``pixels[i]``.
    skips
        Whether a picture that turns out to be broken when it is read is to be left out with a
        warning.
    warn
        Takes one line of warning.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: Sequence[str]
    read: Read
    pixels: NDArray[np.uint8] | None = None
    skips: bool = False
    warn: Callable[[str], None] = to_stderr

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.labels)

    def picture(self, i: int) -> NDArray[np.uint8]:
        """Picture i: uint8 [h, w, c], not to be written to.

        Raises
        ------
        ImageError
            Its file is broken. Only pictures that are not kept in memory are read as late as this.
        """
        return self.read(i)


@dataclass(frozen=True)
class Reading:
    """How files are to be read: whether broken ones are skipped, who hears of it, bytes to keep in memory, threads."""

    skips: bool
    warn: Callable[[str], None]
    memory: int
    threads: int


def from_files(
    classes: Sequence[str],
    labels: Sequence[int],
    names: list[str],
    read: Read,
    where: str,
    reading: Reading,
) -> Dataset:
    """The data set of pictures that have to be decoded: now, if a sample says that they fit in memory, or when needed.

    Raises
    ------
    FormatError
        There is no picture.
    ImageError
        A picture is broken and not to be skipped, or none is left.
    """
    n = len(names)
    if not n:
        raise FormatError(
            f"{where} has no pictures in this split; expected JPEG, PNG, WebP, BMP or GIF files in class folders"
        )
    every = np.asarray(labels, np.int64)
    decoded = _decode_all(read, n, reading) if _estimate(read, n) <= reading.memory else None
    if decoded is None:
        return Dataset(tuple(classes), every, names, read, None, reading.skips, reading.warn)
    kept, pictures = decoded
    if not kept:
        raise ImageError(f"{where}: none of the {n} pictures of this split can be used")
    if len(kept) < n:
        every, names = every[kept], [names[i] for i in kept]
    pixels = pictures if isinstance(pictures, np.ndarray) else None
    return Dataset(
        tuple(classes), every, names, pictures.__getitem__, pixels, reading.skips, reading.warn
    )


def _estimate(read: Read, n: int) -> int:
    """Bytes of all pictures when decoded, from a few of them."""
    sizes = []
    for i in range(0, n, -(-n // _SAMPLE)):
        try:
            sizes.append(read(i).nbytes)
        except ImageError:
            continue  # it is named when its turn comes
    return sum(sizes) * n // max(len(sizes), 1)


def _decode_all(
    read: Read, n: int, reading: Reading
) -> tuple[list[int], NDArray[np.uint8] | list[NDArray[np.uint8]]] | None:
    """The numbers of the good pictures, and these: one array if all have one size. None if they do not fit after all."""

    def decode(start: int) -> list[NDArray[np.uint8] | ImageError]:
        found: list[NDArray[np.uint8] | ImageError] = []
        for i in range(start, min(start + _CHUNK, n)):
            try:
                found.append(read(i))
            except ImageError as error:
                if not reading.skips:
                    raise
                found.append(error)
        return found

    kept: list[int] = []
    pictures: list[NDArray[np.uint8]] = []
    block: NDArray[np.uint8] | None = None
    total = 0
    pool = ThreadPoolExecutor(reading.threads)
    try:
        for chunk, start in zip(
            pool.map(decode, range(0, n, _CHUNK)), range(0, n, _CHUNK), strict=True
        ):
            for i, picture in enumerate(chunk, start):
                if isinstance(picture, ImageError):
                    reading.warn(f"skipped: {picture}")
                    continue
                total += picture.nbytes
                if total > reading.memory:
                    return None
                if not kept and n * picture.nbytes <= reading.memory:
                    block = np.empty((n, *picture.shape), np.uint8)
                if block is not None and picture.shape != block.shape[1:]:
                    pictures, block = [each.copy() for each in block[: len(kept)]], None
                if block is None:
                    pictures.append(picture)
                else:
                    block[len(kept)] = picture
                kept.append(i)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return kept, pictures if block is None else block[: len(kept)]
