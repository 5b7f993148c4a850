"""Count how often a network is right about images whose classes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..network.spec import Spec
from .ensemble import Ensemble
from .heads import THRESHOLD, both, check_head, check_probability
from .many.comparison import Comparison, Labelled
from .model import Model
from .scores.evaluation import Evaluation
from .scores.labels import LabelEvaluation
from .scores.rule import Found, Rule
from .scores.single import ImageScore

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["evaluate", "judged", "score", "score_labels"]


def evaluate(
    model: Model | Ensemble | Iterable[Model],
    data: Labelled,
    *,
    batch: int | None = 64,
    by_number: bool = False,
    threshold: float | None = None,
    crops: int = 1,
    mirror: bool = False,
    fast: bool = False,
    progress: Callable[[int], None] | None = None,
    client: Client | None = None,
) -> Found:
    """Classify every image of a data set and compare the predictions with its labels.

    Threads prepare the next images while the network computes, a few mini-batches ahead. With a
    ``client``, workers of Dask do all of that, and read the images.

    Parameters
    ----------
    model : Model, or iterable of Model
        Several predict together: the mean of their probabilities counts.
    data : data set
        As `tinyresnext.data.open_dataset` returns it, or `tinyresnext.data.from_arrays` for arrays.
        It may have fewer classes than the model; but where an image has any number of labels, all
        of the model's. How it was opened says what becomes of an image
        that cannot be read: "wrong" counts it as wrong, with a warning.
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
    fast : bool
        Decode large JPEGs at a reduced size, as `tinyresnext.images.prepare.views` says; not those
        that `open_dataset` decodes.
    progress : callable, optional
        Called after each mini-batch with the number of images so far.
    client : dask.distributed.Client, optional
        Whose workers compute, as for `tinyresnext.inference.classify.classify`. ``data`` is to be
        what `tinyresnext.data.open_labelled` returns: workers then read the images, while those of
        a `Dataset` are opened here, and their pixels sent.

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
    DeviceError
        As for `tinyresnext.inference.classify.classify` with a ``client``.
    """
    comparison = Comparison.of(Ensemble.of(model, crops, mirror), data, by_number, threshold)

    def told() -> Iterator[ImageScore]:
        count = 0
        for group in comparison.groups(data, batch, fast, client):
            for one in group:
                if one.error is not None:
                    what = "it is left out" if data.skips else "it counts as wrong"
                    data.warn(f"{one.error}; {what}")
            yield from group
            count += len(group)
            if progress is not None:
                progress(count)

    return comparison.total(told())


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

    Of classes with equal logits, the one with the smaller number comes first, as in `Model.rank`;
    with a threshold, the second of two comes first from this probability on.

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
        There are no images, labels are of another form or out of range, the logits have another
        shape, there is a single class, or the threshold is no probability or has more than two
        classes to decide between.
    """
    check_head(Spec(classes=len(classes)))
    meaning = range(len(classes)) if numbers is None else numbers
    if len(classes) == 2:
        check_probability(threshold)
    elif threshold is not None:
        raise UsageError(
            f"a threshold decides between two classes, and there are {len(classes)}; leave it out"
        )
    rule = Rule("class", tuple(classes), meaning, threshold)
    found = rule.total(_scores(rule, logits, batches, progress))
    assert isinstance(found, Evaluation)
    return found


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
        ``labels``: int [n, of the data set], 0 or 1, with a column for each label of the network;
        or int [n], the only label of each image.
    labels : sequence of str
        The network's.
    threshold : float
        The probability from which on a label is named.

    Raises
    ------
    IntegrityError
        Logits are not finite.
    UsageError
        There are no images, labels are of another form or out of range, a label of the network has
        no column, the logits have another shape, or the threshold is no probability.
    """
    meaning = range(len(labels)) if numbers is None else numbers
    check_probability(threshold)
    rule = Rule("labels", tuple(labels), meaning, threshold)
    found = rule.total(_scores(rule, logits, batches, progress))
    assert isinstance(found, LabelEvaluation)
    return found


def _scores(
    rule: Rule,
    logits: Callable[[Any], np.ndarray],
    batches: Iterable[tuple[Any, np.ndarray]],
    progress: Callable[[int], None] | None,
) -> Iterator[ImageScore]:
    """Yield how right a network is about each image of mini-batches without names."""
    count = 0
    for x, labels in batches:
        for one in rule.scores(None, logits(x), labels):
            count += 1
            yield one
        if progress is not None:
            progress(count)
