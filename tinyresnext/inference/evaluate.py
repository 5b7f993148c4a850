"""Count how often a network is right about images whose classes are known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from ..data.dataset import Dataset
from ..errors import ImageError, UsageError
from ..images.prepare import prepare
from ..images.preprocess import Preprocess
from .classes import match_classes, match_numbers
from .evaluation import TOP, Evaluation
from .model import Model, check_classes, check_finite

__all__ = ["evaluate", "score"]

AHEAD = 2  # mini-batches that are prepared, or being prepared, while the network computes


def evaluate(
    model: Model,
    data: Dataset,
    *,
    batch: int = 64,
    by_number: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Classify every image of a data set and compare the predictions with its labels.

    Parameters
    ----------
    model : Model
    data : data set
        As `tinyresnext.data.open_dataset` returns it. It may have fewer classes than the model.
    batch : int
        The number of images in a mini-batch.
    by_number : bool
        Match the data set's classes with the model's by their numbers, whatever their names are;
        there must be as many.
    progress : callable, optional
        Called after each mini-batch with the number of images so far.

    Raises
    ------
    UsageError
        The data set's classes are not the model's, the model has a single class, or there are no
        images.
    ImageError
        An image cannot be used.
    """
    check_classes(model.spec.classes)
    model.check_pictures()
    match = match_numbers if by_number else match_classes
    numbers = match(model.labels, data.classes)
    batches = _batches(data, model.preprocess, batch)
    return score(model, batches, model.labels, numbers=numbers, progress=progress)


def score(
    logits: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    *,
    numbers: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compare predictions with labels, mini-batch by mini-batch.

    Of classes with equal logits, the one with the smaller number comes first, as in `Model.rank`.

    Parameters
    ----------
    logits : callable
        Takes x, float32 [n, h, w, channels], and returns [n, classes], as a `Model` does.
    batches : iterable of (x, labels)
        ``labels``: int [n].
    classes : sequence of str
        The network's.
    numbers : sequence of int, optional
        The network's class for each label: ``numbers[label]``. By default, a label is the number
        of its class.
    progress : callable, optional
        Called after each mini-batch with the number of images so far.

    Raises
    ------
    IntegrityError
        Logits are not finite.
    UsageError
        There are no images, a label is out of range, the logits have another shape, or there is a
        single class.
    """
    check_classes(len(classes))
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    among = np.zeros(len(classes), np.int64)
    losses: list[float] = []
    meaning = np.arange(len(classes)) if numbers is None else np.asarray(numbers, np.int64)
    for x, labels in batches:
        if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < len(meaning):
            raise UsageError(
                f"labels run from {np.min(labels)} to {np.max(labels)}, expected 0 to "
                f"{len(meaning) - 1}; use the labels of this data set"
            )
        truth = meaning[np.asarray(labels)]
        found = _checked(logits(x), (len(truth), len(classes)))
        own = found[np.arange(len(truth)), truth][:, None]
        before = (found > own) | ((found == own) & (np.arange(len(classes)) < truth[:, None]))
        np.add.at(confusion, (truth, found.argmax(1)), 1)
        np.add.at(among, truth, before.sum(1) < TOP)
        losses += _cross_entropy(found, own)
        if progress is not None:
            progress(len(losses))
    if not losses:
        raise UsageError("there are no images to evaluate on; choose another data set or split")
    for array in (confusion, among):
        array.flags.writeable = False
    return Evaluation(tuple(classes), confusion, among, math.fsum(losses) / len(losses))


def _checked(logits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return logits in float64, if they have the expected shape and are finite."""
    found = np.asarray(logits, np.float64)
    if found.shape != shape:
        raise UsageError(
            f"the logits are {found.shape}, expected {shape}: a row for each image, and a column "
            "for each class; name the classes of this network"
        )
    check_finite(found)
    return found


def _cross_entropy(logits: np.ndarray, own: np.ndarray) -> list[float]:
    """Return the loss of each row of logits [n, classes]; ``own`` [n, 1] are the right classes'."""
    largest = logits.max(1, keepdims=True)  # so that no exponential overflows
    exponentials = np.exp(logits - largest).sum(1, keepdims=True)
    losses: list[float] = (np.log(exponentials) + largest - own).ravel().tolist()
    return losses


def _batches(
    data: Dataset, preprocess: Preprocess, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield prepared images and their labels, in order.

    Another thread prepares the next mini-batches while the network computes.
    """

    def made(first: int) -> tuple[np.ndarray, np.ndarray]:
        prepared, labels = [], []
        for i in range(first, min(first + batch, len(data))):
            try:
                prepared.append(prepare(data.picture(i), preprocess))
                labels.append(data.labels[i])
            except ImageError as error:
                if not data.skips:
                    raise
                data.warn(f"{error}; it is left out")
        shape = (len(prepared), preprocess.crop, preprocess.crop, preprocess.channels)
        return np.array(prepared, np.float32).reshape(shape), np.array(labels, np.int64)

    with ThreadPoolExecutor(1) as pool:
        beginnings = iter(range(0, len(data), batch))
        waiting = deque(pool.submit(made, first) for first in islice(beginnings, AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(made, first) for first in islice(beginnings, 1))
