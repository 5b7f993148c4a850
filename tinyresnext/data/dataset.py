"""`Dataset`: numbered images with a label and a name each, wherever they come from; and parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..system.console import plain, tell
from .pixels.checks import check_arrays
from .published.flat import is_validation
from .trees.archives import Source

__all__ = ["ALL", "Dataset", "LabelledImages", "Read", "Reading", "Weigh", "counted", "held_out"]
__all__ += ["some_of", "to_stderr"]

Read = Callable[[int], NDArray[np.uint8]]
Weigh = Callable[[int], int]

ALL = "all images"
"""What `Dataset.part` calls a data set without splits."""

_HELD_OUT = 3  # the key of a stream of random numbers: the loader's keys have two numbers or more


def to_stderr(line: str) -> None:
    """Print a warning to stderr."""
    tell(f"warning: {plain(line)}")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels; other types or numbers of them than these are a `UsageError`.

    Parameters
    ----------
    classes
        Names of the classes; a label is an index into them.
    labels
        Integers [n], kept as int64; or [n, classes] of 0 and 1: an image has any number of them.
    names
        n names, for messages and reports: paths below the root, or what an archive calls them.
    read
        Returns image i as uint8 [h, w, c]; safe to call from several threads at once.
    pixels
        uint8 [n, h, w, c], if all images are in memory and of one size; then ``read(i)`` is
        ``pixels[i]``.
    skips
        Whether an image that turns out to be broken when it is read is left out with a warning.
    warn
        A function that takes one line of warning.
    left_out
        How many files and folders were found and left out, by what they are.
    any_is_right
        Whether an image has one class, and each of its labels is a right answer.
    part
        What was taken where no split was asked for.
    keeps
        Whether an image that turns out to be broken is kept: an evaluation counts it as wrong.
    root
        What names begin behind: a folder or an archive; nothing if they are no paths.
    decoded
        Whether all images are in memory though `pixels` is None: they have several sizes.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: Sequence[str]
    read: Read
    pixels: NDArray[np.uint8] | None = None
    skips: bool = False
    warn: Callable[[str], None] = to_stderr
    left_out: Mapping[str, int] = field(default_factory=dict)
    any_is_right: bool = False
    part: str = "test"
    keeps: bool = False
    root: str = ""
    decoded: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.classes, np.ndarray):
            object.__setattr__(self, "classes", tuple(self.classes.tolist()))
        check_arrays(self.classes, self.labels, self.names, self.pixels)
        if self.labels.ndim == 1:  # NumPy counts and adds no numbers of uint64 as it does others
            object.__setattr__(self, "labels", self.labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        """Return whether all images are in memory, so that what looks at all of them is quick."""
        return self.decoded or self.pixels is not None

    @property
    def validation(self) -> bool:
        """Return whether all images are called as ImageNet's validation images are."""
        return is_validation(self.names)

    @property
    def several(self) -> bool:
        """Return whether an image may have any number of labels."""
        return self.labels.ndim == 2

    def __iter__(self) -> Iterator[Source]:
        """Yield the images by their whole names, with their labels."""
        for i, name in enumerate(self.names):
            yield Source(os.path.join(self.root, name), partial(self.picture, i), self.labels[i])

    def picture(self, i: int) -> NDArray[np.uint8]:
        """Return image i as uint8 [h, w, c]; the caller must not write to it.

        Raises
        ------
        ImageError
            Its file is broken. Only images that are not kept in memory are read this late.
        """
        return self.read(i)

    def found(self) -> str:
        """Return in one line what was found, and what was left out."""
        return _found(self) + _left_out(self.left_out)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.found()}>"


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with labels of which nothing is kept: each is found when its turn comes.

    Parameters
    ----------
    each
        Yields all images with their labels, in order; it adds to a counter what is no image.
    classes
        Names of the classes; a label is an index into them.
    count
        The number of images.
    left_out
        How many files and folders were found and left out, by what they are.
    validation
        Whether all are called as ImageNet's validation images are.
    skips, keeps, warn, several, any_is_right, part
        As for `Dataset`.
    how
        How labels were found, where that is to be said.
    """

    each: Callable[[Counter[str]], Iterator[Source]]
    classes: tuple[str, ...]
    count: int
    left_out: Mapping[str, int]
    validation: bool
    skips: bool = False
    keeps: bool = False
    warn: Callable[[str], None] = to_stderr
    several: bool = False
    any_is_right: bool = False
    part: str = ALL
    how: str = ""

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    def __iter__(self) -> Iterator[Source]:
        """Yield the images with their labels."""
        return self.each(Counter())

    def found(self) -> str:
        """Return in one line what was found, and what was left out."""
        return _found(self) + _left_out(self.left_out) + (f"; {self.how}" if self.how else "")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.found()}>"


def counted(sources: Iterable[Source]) -> tuple[int, bool]:
    """Return how many images there are, and whether all are called as those of `is_validation`."""
    count, validation = 0, True
    for one in sources:
        count, validation = count + 1, validation and is_validation([one.name])
    return count, validation


def _found(data: Dataset | LabelledImages) -> str:
    """Return in words how many images of how many classes there are."""
    images, labels = _count(len(data), "image"), f"{len(data.classes):,} labels"
    if not data.several:
        return f"{images} in {_count(len(data.classes), 'class')}"
    return f"{images} with {'right answers among' if data.any_is_right else 'any of'} {labels}"


def _left_out(kinds: Mapping[str, int]) -> str:
    """Return in words what was left out; nothing if there is nothing."""
    parts = [_count(n, kind) for kind, n in kinds.items() if n]
    total = _count(sum(kinds.values()), "file")
    return f"; {total} left out: {', '.join(parts)}" if parts else ""


def _count(n: int, what: str) -> str:
    """Return a number and what is counted, in the plural where it has one."""
    if n != 1 and what == "class":
        what = "classes"
    elif n != 1 and (what.startswith("image") or what.endswith("image")):
        what = what.replace("image", "images", 1)
    elif n != 1 and what.endswith(("file", "folder", "archive", "list")):
        what += "s"
    return f"{n:,} {what}"


@dataclass(frozen=True)
class Reading:
    """How image files are read, and which of them where no split is named.

    Parameters
    ----------
    skips
        Whether broken images are left out.
    warn
        A function that takes one line for each image that is left out.
    memory, threads
        Bytes of pixels that may be kept in memory, and the number of threads that decode.
    least
        The shorter side that is needed, if JPEGs may be decoded at a reduced size (`load_image`).
    keeps
        Whether broken images are kept, and images are decoded only when they are read.
    first
        As for `data.open_dataset`.
    """

    skips: bool
    warn: Callable[[str], None]
    memory: int
    threads: int
    least: int | None = None
    keeps: bool = False
    first: str = "test"


def held_out(dataset: Dataset, part: float, seed: int) -> tuple[Dataset, Dataset]:
    """Divide a data set at random into images to train on and images that are held out.

    Parameters
    ----------
    dataset : Dataset
    part : float
        The part of each class that is held out, between 0 and 1; of a class of two images or more,
        at least one image, and never all. With several labels for each image, the part of all
        images.
    seed : int
        The random seed; the same seed holds out the same images.

    Returns
    -------
    training, held out : Dataset

    Raises
    ------
    UsageError
        The part is out of range, or there would be no image to hold out.
    """
    if not 0 < part < 1:
        raise UsageError(f"the part for validation is {part!r}: expected a number such as 0.2")
    philox = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_HELD_OUT,)))
    order = np.argsort(philox.random_raw(len(dataset)), kind="stable")
    groups = np.zeros_like(order) if dataset.labels.ndim == 2 else dataset.labels[order]
    out = np.zeros(len(order), bool)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = min(max(1, round(part * len(members))), len(members) - 1)
        out[order[members[:count]]] = True
    if not out.any():
        raise UsageError(
            f"no class has two images, so none of the {len(dataset)} can be held out for "
            "validation; give more images, or leave the validation out"
        )
    return some_of(dataset, np.flatnonzero(~out)), some_of(dataset, np.flatnonzero(out))


def some_of(dataset: Dataset, numbers: NDArray[np.int64]) -> Dataset:
    """Return the data set of the images with these numbers, with all classes."""
    kept, read = numbers.tolist(), dataset.read
    pixels = None if dataset.pixels is None else dataset.pixels[numbers]
    return replace(
        dataset,
        labels=dataset.labels[numbers],
        names=[dataset.names[i] for i in kept],
        read=(lambda i: read(kept[i])) if pixels is None else pixels.__getitem__,
        pixels=pixels,
        left_out={},
    )
