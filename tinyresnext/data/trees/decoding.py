"""Data sets of image files, decoded at once if all fit into memory, else when they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, ImageError
from ...images.files import KINDS
from ..dataset import Dataset, Read, Reading, Weigh
from ..rules import image_kind, is_readable

__all__ = ["from_files", "no_images"]

_SAMPLE = 16  # images that are looked at to estimate the memory for all of them
_CHUNK = 64  # images that a thread decodes at a time


def from_files(
    classes: Sequence[str],
    labels: Sequence[int] | NDArray[np.int64],
    names: list[str],
    read: Read,
    weigh: Weigh,
    where: str,
    reading: Reading,
    left_out: Mapping[str, int],
) -> Dataset:
    """Build the data set of images that have to be decoded.

    They are decoded at once, if a sample shows that all of them fit into `reading.memory`, and
    otherwise each time they are read. ``weigh`` returns the bytes of one, which is not decoded for
    that.

    Raises
    ------
    FormatError
        There is no image.
    ImageError
        An image is broken and `reading.skips` is False, or all images are broken.
    """
    n = len(names)
    if not n:
        raise no_images(where)
    every = np.asarray(labels, np.int64)
    # The estimate comes last: it looks at images out of their order.
    early = not reading.keeps and reading.memory > 0 and _estimate(weigh, n) <= reading.memory
    decoded = _decode_all(read, n, reading) if early else None
    if decoded is None:
        kept = list(range(n)) if reading.keeps else _without_unreadable(read, names, reading)
        later = read
        read, pixels = (lambda i: later(kept[i])), None
    else:
        kept, images = decoded
        read, pixels = images.__getitem__, images if isinstance(images, np.ndarray) else None
    if not kept:
        raise ImageError(f"{where}: none of the {n} images of this split can be used")
    broken = [names[i] for i in sorted(set(range(n)).difference(kept))]
    gone = Counter(
        "broken image" if is_readable(name) else image_kind(name) or "other file" for name in broken
    )
    lost = sorted(_present(every) - _present(every[kept]))
    if lost:
        reading.warn(
            f"{where} has no image that can be used of the classes "
            f"{', '.join(repr(classes[i]) for i in lost[:10])} in this split"
        )
    return Dataset(
        tuple(classes),
        every[kept],
        [names[i] for i in kept],
        read,
        pixels,
        reading.skips,
        reading.warn,
        gone + Counter(left_out),
        keeps=reading.keeps,
        decoded=decoded is not None,
    )


def no_images(where: str) -> FormatError:
    """Return the error of a data set without images."""
    return FormatError(
        f"{where} has no images in this split; expected {KINDS} files in class folders"
    )


def _present(labels: NDArray[np.int64]) -> set[int]:
    """Return the numbers of the classes that an image has."""
    if labels.ndim == 2:
        return set(np.flatnonzero(labels.any(0)).tolist())
    return set(labels.tolist())


def _without_unreadable(read: Read, names: list[str], reading: Reading) -> list[int]:
    """Return the numbers of all images but those that are of no format that is read.

    They are decoded once for that, before any training begins: what is inside decides.
    """
    kept = []
    for i, name in enumerate(names):
        try:
            if not is_readable(name):
                read(i)
            kept.append(i)
        except ImageError as error:
            if not reading.skips:
                raise
            reading.warn(f"skipped: {error}")
    return kept


def _estimate(weigh: Weigh, n: int) -> int:
    """Estimate the bytes of all decoded images from a few of them."""
    sizes = []
    for i in range(0, n, -(-n // _SAMPLE)):
        try:
            sizes.append(weigh(i))
        except ImageError:
            continue  # the error is raised, or warned of, when this image is read in its turn
    return sum(sizes) * n // max(len(sizes), 1)


def _decode_all(
    read: Read, n: int, reading: Reading
) -> tuple[list[int], NDArray[np.uint8] | list[NDArray[np.uint8]]] | None:
    """Decode all images within `reading.memory`.

    Returns
    -------
    The numbers of the images that are not broken, and these images: one array if all have one size.
    None if they do not fit into memory after all.
    """

    def decode(start: int) -> list[NDArray[np.uint8] | ImageError]:
        found: list[NDArray[np.uint8] | ImageError] = []
        for i in range(start, min(start + _CHUNK, n)):
            try:
                found.append(read(i))
            except ImageError as error:
                if not reading.skips:
                    raise
                # A new one: with its traceback, this one would keep the whole file in memory.
                found.append(ImageError(str(error)))
        return found

    kept: list[int] = []
    images: list[NDArray[np.uint8]] = []
    block: NDArray[np.uint8] | None = None
    total = 0
    pool = ThreadPoolExecutor(reading.threads)
    try:
        for chunk, start in zip(
            pool.map(decode, range(0, n, _CHUNK)), range(0, n, _CHUNK), strict=True
        ):
            for i, image in enumerate(chunk, start):
                if isinstance(image, ImageError):
                    reading.warn(f"skipped: {image}")
                    continue
                total += image.nbytes
                if total > reading.memory:
                    return None
                if not kept and n * image.nbytes <= reading.memory:
                    block = np.empty((n, *image.shape), np.uint8)
                if block is not None and image.shape != block.shape[1:]:
                    images, block = [each.copy() for each in block[: len(kept)]], None
                if block is None:
                    images.append(image)
                else:
                    block[len(kept)] = image
                kept.append(i)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return kept, images if block is None else block[: len(kept)]
