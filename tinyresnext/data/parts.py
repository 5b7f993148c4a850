"""Part of a data set: some of its images, such as those that are held out for validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .dataset import Dataset

__all__ = ["held_out", "some_of"]

_HELD_OUT = 3  # the loader's streams of random numbers are 0, 1 and 2


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
