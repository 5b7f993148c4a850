"""Count how often a network is right about images whose classes are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import ImageError, UsageError
from ..network.spec import Spec
from .ensemble import Ensemble, Seen
from .heads import (
    THRESHOLD,
    both,
    check_head,
    check_threshold,
    checked_logits,
    logit,
    sigmoid,
)
from .many.batches import grouped
from .model import Model
from .scores.answers import AnswerEvaluation, score_answers
from .scores.classes import match_classes, match_numbers
from .scores.evaluation import TOP, Evaluation, Within
from .scores.labels import LabelEvaluation
from .scores.precision import ranked

__all__ = ["evaluate", "judged", "score", "score_labels"]


def evaluate(
    model: Model | Ensemble | Iterable[Model],
    data: Dataset,
    *,
    batch: int | None = 64,
    by_number: bool = False,
    threshold: float | None = None,
    crops: int = 1,
    mirror: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation | LabelEvaluation | AnswerEvaluation:
    """Classify every image of a data set and compare the predictions with its labels.

    Parameters
    ----------
    model : Model, or iterable of Model
        Several predict together: the mean of their probabilities counts.
    data : data set
        As `tinyresnext.data.open_dataset` returns it. It may have fewer classes than the model.
    batch : int, optional
        The number of images in a mini-batch; None finds a good one.
    by_number : bool
        Match the data set's classes with the model's by their numbers, whatever their names are;
        there must be as many.
    threshold : float, optional
        For labels with probabilities of their own: the probability from which on a label is named;
        by default 0.5.
    crops, mirror
        The views of each image, as for `Ensemble`.
    progress : callable, optional
        Called after each mini-batch with the number of images so far.

    Returns
    -------
    Evaluation, or LabelEvaluation for a model of which an image has any number of labels, or
    AnswerEvaluation for a data set whose images have several right answers

    Raises
    ------
    UsageError
        The data set's classes are not the model's, the model has a single class, or there are no
        images.
    ImageError
        An image cannot be used.
    """
    together = Ensemble.of(model, crops, mirror)
    check_head(together.spec)
    check_threshold(together.spec, threshold)
    together.check_pictures()
    match = match_numbers if by_number else match_classes
    numbers = match(together.labels, data.classes)
    batches = _batches(data, together, batch)
    if data.any_is_right:
        return score_answers(together, batches, numbers=numbers, progress=progress)
    if data.labels.ndim == 2 and not together.spec.several:
        raise UsageError(
            "the images have any number of labels, and the model names one class for each; use a "
            "model of several labels (--head sigmoid)"
        )
    return judged(together, batches, numbers=numbers, threshold=threshold, progress=progress)


def judged(
    model: Model | Ensemble,
    batches: Iterable[tuple[Any, np.ndarray]],
    *,
    numbers: Sequence[int] | None = None,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation | LabelEvaluation:
    """Compare predictions with labels as the head of the model asks for; see `score`."""
    spec, limit = model.spec, THRESHOLD if threshold is None else threshold
    if spec.several:
        return score_labels(
            model, batches, model.labels, numbers=numbers, threshold=limit, progress=progress
        )
    if spec.head == "softmax":
        return score(model, batches, model.labels, numbers=numbers, progress=progress)

    def two(x: Any) -> np.ndarray:
        return both(model(x))

    return score(two, batches, model.labels, numbers=numbers, threshold=limit, progress=progress)


def score(
    logits: Callable[[Any], np.ndarray],
    batches: Iterable[tuple[Any, np.ndarray]],
    classes: Sequence[str],
    *,
    numbers: Sequence[int] | None = None,
    threshold: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compare predictions with labels, mini-batch by mini-batch.

    Of classes with equal logits, the one with the smaller number comes first, as in `Model.rank`.

    Parameters
    ----------
    logits : callable
        Takes x and returns [n, classes], as a `Model` does for float32 [n, h, w, channels].
    batches : iterable of (x, labels)
        ``labels``: int [n].
    classes : sequence of str
        The network's.
    numbers : sequence of int, optional
        The network's class for each label: ``numbers[label]``. By default, a label is the number
        of its class.
    threshold : float, optional
        For two classes: the probability from which on the second is predicted. Then the average
        precision of the second is found too.
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
    check_head(Spec(classes=len(classes)))
    shift = np.array([0.0, logit(threshold)]) if threshold is not None else 0.0
    ranks: list[tuple[float, bool]] = []
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    among = np.zeros(len(classes), np.int64)
    losses: list[float] = []
    meaning = np.arange(len(classes)) if numbers is None else np.asarray(numbers, np.int64)
    own_classes, right_within = np.unique(meaning), np.zeros(2, np.int64)
    for x, labels in batches:
        if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < len(meaning):
            raise UsageError(
                f"labels run from {np.min(labels)} to {np.max(labels)}, expected 0 to "
                f"{len(meaning) - 1}; use the labels of this data set"
            )
        truth = meaning[np.asarray(labels)]
        found = checked_logits(logits(x), (len(truth), len(classes)))
        losses += _cross_entropy(found, found[np.arange(len(truth)), truth][:, None])
        if threshold is not None:
            ranks += zip((found[:, 1] - found[:, 0]).tolist(), (truth == 1).tolist(), strict=True)
        found = found - shift
        own = found[np.arange(len(truth)), truth][:, None]
        before = (found > own) | ((found == own) & (np.arange(len(classes)) < truth[:, None]))
        np.add.at(confusion, (truth, found.argmax(1)), 1)
        np.add.at(among, truth, before.sum(1) < TOP)
        places = before[:, own_classes].sum(1)
        right_within += [(places < 1).sum(), (places < TOP).sum()]
        if progress is not None:
            progress(len(losses))
    if not losses:
        raise UsageError("there are no images to evaluate on; choose another data set or split")
    for array in (confusion, among):
        array.flags.writeable = False
    loss = math.fsum(losses) / len(losses)
    if threshold is None:
        within = None
        if 1 < len(own_classes) < len(classes):
            within = Within(len(own_classes), *(right_within / len(losses)).tolist())
        return Evaluation(tuple(classes), confusion, among, loss, within=within)
    values, second = np.array(ranks).T
    found_at = ranked(values, second == 1).average_precision
    return Evaluation(tuple(classes), confusion, among, loss, threshold, found_at)


def score_labels(
    logits: Callable[[Any], np.ndarray],
    batches: Iterable[tuple[Any, np.ndarray]],
    labels: Sequence[str],
    *,
    numbers: Sequence[int] | None = None,
    threshold: float = THRESHOLD,
    progress: Callable[[int], None] | None = None,
) -> LabelEvaluation:
    """Compare predictions with labels of which an image has any number.

    Parameters
    ----------
    logits, numbers, progress
        As for `score`.
    batches : iterable of (x, labels)
        ``labels``: int [n, of the data set], 0 or 1; or int [n], the only label of each image.
    labels : sequence of str
        The network's.
    threshold : float
        The probability from which on a label is named.

    Raises
    ------
    IntegrityError
        Logits are not finite.
    UsageError
        There are no images, or the logits have another shape.
    """
    meaning = np.arange(len(labels)) if numbers is None else np.asarray(numbers, np.int64)
    found, truth, count = [], [], 0
    for x, own in batches:
        rows = np.zeros((len(own), len(labels)), bool)
        if own.ndim == 1:
            rows[np.arange(len(own)), meaning[own]] = True
        else:
            rows[:, meaning] = own == 1
        found.append(checked_logits(logits(x), rows.shape))
        truth.append(rows)
        count += len(own)
        if progress is not None:
            progress(count)
    if not count:
        raise UsageError("there are no images to evaluate on; choose another data set or split")
    values, right = np.concatenate(found), np.concatenate(truth)
    losses = np.logaddexp(0, np.where(right, -values, values))
    return LabelEvaluation(tuple(labels), sigmoid(values), right, float(losses.mean()), threshold)


def _cross_entropy(logits: np.ndarray, own: np.ndarray) -> list[float]:
    """Return the loss of each row of logits [n, classes]; ``own`` [n, 1] are the right classes'."""
    largest = logits.max(1, keepdims=True)  # so that no exponential overflows
    exponentials = np.exp(logits - largest).sum(1, keepdims=True)
    losses: list[float] = (np.log(exponentials) + largest - own).ravel().tolist()
    return losses


def _batches(
    data: Dataset, model: Ensemble, batch: int | None
) -> Iterator[tuple[list[Seen], np.ndarray]]:
    """Yield prepared images and their labels, in order.

    Threads prepare the next mini-batches while the network computes.
    """

    def made(i: int) -> tuple[Seen, np.ndarray] | str:
        try:
            return model.prepare(data.picture(i)), data.labels[i]
        except ImageError as error:
            if not data.skips:
                raise
            return f"{error}; it is left out"

    for group in grouped(made, range(len(data)), batch, model.loaders):
        good = [one for one in group if not isinstance(one, str)]
        for one in group:
            if isinstance(one, str):
                data.warn(one)
        yield [seen for seen, _ in good], np.array([label for _, label in good], np.int64)
