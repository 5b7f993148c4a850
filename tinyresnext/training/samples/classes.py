"""The classes of a run: labels and validation images as its network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...data.dataset import Dataset
from ...errors import UsageError
from ...inference.scores.classes import match_classes
from .given import check_labels

__all__ = ["fitted", "names_one", "numbered", "other_than_one", "said_of_classes"]

_NAMED = 5  # classes that a line names; the others are counted


def fitted(
    one: bool, dataset: Dataset, validation: Dataset | None
) -> tuple[Dataset, Dataset | None]:
    """Return data sets with the classes of the first, and with classes for labels where they can.

    Parameters
    ----------
    one : bool
        Whether the network names one class for each image. Then a column for each class, with a
        single 1 in each row, is taken as the number of that class.
    dataset : Dataset
        To train on.
    validation : Dataset, optional
        Its classes are matched by name, in any order, and some may be missing.

    Raises
    ------
    UsageError
        The validation set has a class that the other has not, or lacks a label.
    """
    found = _matched(dataset, validation)
    if not one:
        return dataset, found
    return numbered(dataset), None if found is None else numbered(found)


def names_one(head: str | None, dataset: Dataset) -> bool:
    """Return whether a network with a head that was asked for names one class for each image."""
    return head == "softmax" or (head is None and dataset.labels.ndim == 1)


def exactly_one(images: Dataset) -> bool:
    """Return whether the labels are columns of 0 and 1, with a single 1 for each image."""
    labels = images.labels
    if labels.ndim != 2 or images.any_is_right or not len(labels):
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def numbered(images: Dataset) -> Dataset:
    """Return a data set with the numbers of classes as labels, if each image has exactly one."""
    if not exactly_one(images):
        return images
    return replace(images, labels=images.labels.argmax(1).astype(np.int64))


def other_than_one(images: Dataset) -> str:
    """Return which image has none or several of its labels, where they are columns."""
    counts = np.count_nonzero(images.labels, 1)
    odd = np.flatnonzero(counts != 1)[:1].tolist()
    return " and ".join(f"{images.names[i]!r:.200} has {counts[i]}" for i in odd) or "in columns"


def without_images(images: Dataset) -> list[str]:
    """Return the classes that no image has."""
    if images.labels.ndim == 2:
        counts = np.count_nonzero(images.labels, 0)
    else:
        counts = np.bincount(images.labels, minlength=len(images.classes))
    return [name for name, count in zip(images.classes, counts, strict=True) if not count]


def said_of_classes(
    several: bool, dataset: Dataset, validation: Dataset | None
) -> tuple[list[str], list[str]]:
    """Return warnings, and other lines, about labels and about classes without images.

    ``several`` says whether the network gives each label a probability of its own.
    """
    warnings, lines = [], []
    if missing := without_images(dataset):
        warnings.append(
            f"no training image has {_some(missing, several)}, which the network cannot learn so: "
            "add images, or, if the class has another name elsewhere, give it one name"
        )
    if validation is not None and (missing := without_images(validation)):
        lines.append(f"no validation image has {_some(missing, several)}")
    if several and exactly_one(dataset) and (validation is None or exactly_one(validation)):
        lines.append(
            "every image has exactly one label, and the network gives each label a probability of "
            'its own: --head softmax (head="softmax") makes the labels classes that exclude each '
            "other"
        )
    return warnings, lines


def _matched(dataset: Dataset, validation: Dataset | None) -> Dataset | None:
    """Return the validation set with the classes of the data set."""
    if validation is None or tuple(validation.classes) == tuple(dataset.classes):
        return validation
    check_labels("validation set", validation)
    numbers = match_classes(
        dataset.classes,
        validation.classes,
        "the validation set",
        "the data set to train on",
        "rename it as it is called there, or take its images out of the validation set",
    )
    labels = validation.labels
    if labels.ndim == 1:
        labels = np.asarray(numbers, np.int64)[labels]
    elif len(numbers) == len(dataset.classes):
        labels = labels[:, np.argsort(numbers)]
    else:
        missing = next(name for i, name in enumerate(dataset.classes) if i not in numbers)
        raise UsageError(
            f"the validation set has no column for the label {missing!r}, which the data set to "
            "train on has; add one, with 0 for the images without the label"
        )
    return replace(validation, classes=dataset.classes, labels=labels)


def _some(names: Sequence[str], several: bool) -> str:
    """Return classes, or labels, for a message: not too many."""
    one, many = ("label", "labels") if several else ("class", "classes")
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return f"the {one if len(names) == 1 else many} {', '.join(map(repr, names[:_NAMED]))}{more}"
