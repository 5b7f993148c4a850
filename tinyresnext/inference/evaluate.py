"""How often a network is right about pictures whose classes are known, and what it takes them for when it is not."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from ..data.dataset import Dataset
from ..errors import ImageError, IntegrityError, UsageError
from ..images.prepare import prepare
from ..images.preprocess import Preprocess
from .model import Model

__all__ = ["ClassScore", "Evaluation", "evaluate", "match_classes", "score"]

TOP = 5
AHEAD = 2  # batches of pictures that are ready or in the making while the network computes


class ClassScore(NamedTuple):
    """One class: how many pictures, and the part of them that the network is right about; None where there are none."""

    name: str
    pictures: int
    top1: float | None
    top5: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome; printed, it is a table.

    Parameters
    ----------
    classes : tuple of str
        The network's, in its order.
    confusion : [classes, classes] int64
        How many pictures of the class of the row were taken for the class of the column.
    among : [classes] int64
        For how many pictures of each class it is among the five likeliest.
    loss : float
        Mean cross entropy, in natural units.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    among: np.ndarray
    loss: float

    @property
    def pictures(self) -> int:
        """How many there were."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """The part for which the likeliest class is the right one."""
        return int(self.confusion.trace()) / self.pictures

    @property
    def top5(self) -> float:
        """The part for which the right class is among the five likeliest; 1 where there are no more than five."""
        return int(self.among.sum()) / self.pictures

    @property
    def per_class(self) -> list[ClassScore]:
        """The same for each class."""
        counts = self.confusion.sum(1).tolist()
        right = zip(
            self.classes,
            counts,
            self.confusion.diagonal().tolist(),
            self.among.tolist(),
            strict=True,
        )
        return [
            ClassScore(name, n, *((first / n, five / n) if n else (None, None)))
            for name, n, first, five in right
        ]

    def to_json(self) -> dict[str, object]:
        """Everything as JSON has it."""
        head = {"pictures": self.pictures, "top1": self.top1, "top5": self.top5, "loss": self.loss}
        return head | {
            "classes": [one._asdict() for one in self.per_class],
            "confusion": self.confusion.tolist(),
        }

    def table(self) -> Iterator[list[str | int | float]]:
        """Rows for CSV: a heading, then for each class its name, pictures, accuracies, and a column for each answer."""
        yield ["class", "pictures", "top1", "top5", *self.classes]
        for one, answers in zip(self.per_class, self.confusion.tolist(), strict=True):
            yield [
                one.name,
                one.pictures,
                *("" if part is None else part for part in one[2:]),
                *answers,
            ]

    def __str__(self) -> str:
        scores = [one for one in self.per_class if one.pictures]
        wide, five = max(12, *(len(one.name) for one in scores)), len(self.classes) > TOP
        head = [f"{'pictures':{wide}} {self.pictures:8,}", f"{'top-1':{wide}} {self.top1:8.2%}"]
        head += [f"{'top-5':{wide}} {self.top5:8.2%}"] * five
        head += [
            f"{'loss':{wide}} {self.loss:8.4f}",
            "",
            f"{'class':{wide}} pictures    top-1{'    top-5' * five}  mistaken for",
        ]
        rows = []
        for number, one in enumerate(self.per_class):
            if one.pictures:
                parts = f"{one.top1:8.2%}" + f" {one.top5:8.2%}" * five
                rows.append(
                    f"{one.name:{wide}} {one.pictures:8,} {parts}  {self._mistakes(number)}".rstrip()
                )
        return "\n".join([*head, *rows])

    def _mistakes(self, number: int, most: int = 3) -> str:
        """What a class is most often taken for, and how often."""
        answers = self.confusion[number].copy()
        answers[number] = 0
        order = np.argsort(-answers, kind="stable")[:most]
        return ", ".join(f"{self.classes[i]} {answers[i]:,}" for i in order if answers[i])


def score(
    logits: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: Sequence[str],
    *,
    numbers: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Count how often the answers are right.

    Of classes with equal logits the one with the smaller number comes first, as in `Model.rank`.

    Parameters
    ----------
    logits : callable
        Of x, float32 [n, h, w, channels]: [n, classes]. A `Model` is one.
    batches : iterable of (x, labels)
        ``labels``: int [n].
    classes : sequence of str
        The network's.
    numbers : sequence of int, optional
        What a label stands for: the class ``numbers[label]`` of the network. By default the class
        ``label``.
    progress : callable, optional
        Told how many pictures are done, after each batch.

    Raises
    ------
    IntegrityError
        When logits are not finite.
    UsageError
        When there are no pictures, or a label stands for no class.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    among, losses, done = np.zeros(len(classes), np.int64), [], 0
    meaning = np.arange(len(classes)) if numbers is None else np.asarray(numbers, np.int64)
    for x, labels in batches:
        if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < len(meaning):
            raise UsageError(
                f"labels run from {np.min(labels)} to {np.max(labels)}, expected 0 to {len(meaning) - 1}"
            )
        found, truth = np.asarray(logits(x), np.float64), meaning[np.asarray(labels)]
        if found.shape != (len(truth), len(classes)):
            raise UsageError(
                f"the logits are {found.shape}, expected {(len(truth), len(classes))}: a row for each picture"
            )
        if not np.isfinite(found).all():
            raise IntegrityError(
                "the network's logits are not finite: its weights make it overflow; use other weights"
            )
        own = found[np.arange(len(truth)), truth][:, None]
        before = (found > own) | ((found == own) & (np.arange(len(classes)) < truth[:, None]))
        np.add.at(confusion, (truth, found.argmax(1)), 1)
        np.add.at(among, truth, before.sum(1) < TOP)
        largest = found.max(1, keepdims=True)  # so that no exponential overflows
        losses += (
            (np.log(np.exp(found - largest).sum(1, keepdims=True)) + largest - own).ravel().tolist()
        )
        done += len(truth)
        if progress is not None:
            progress(done)
    if not done:
        raise UsageError("there are no pictures to evaluate on; choose another data set or split")
    for array in (confusion, among):
        array.flags.writeable = False
    return Evaluation(tuple(classes), confusion, among, math.fsum(losses) / done)


def evaluate(
    model: Model,
    data: Dataset,
    *,
    batch: int = 64,
    by_number: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Classify every picture of a data set, prepared as the model wants it, and compare with what it is.

    Parameters
    ----------
    model : Model
    data : data set
        What `tinyresnext.data.open_dataset` gives. It may have fewer classes than the model.
    batch : int
        How many pictures go through the network together.
    by_number : bool
        Take the data set's first class for the model's first, and so on, whatever their names are.
    progress : callable, optional
        Told how many pictures are done, after each batch.

    Raises
    ------
    UsageError
        When the data set's classes are not the model's, or there are no pictures.
    ImageError
        When a picture cannot be used.
    """
    model.check_pictures()
    numbers = (
        _first_classes(model.labels, data.classes)
        if by_number
        else match_classes(model.labels, data.classes)
    )
    return score(
        model,
        _batches(data, model.preprocess, batch),
        model.labels,
        numbers=numbers,
        progress=progress,
    )


def match_classes(labels: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Which of a model's labels each class of a data set is, by name.

    Where no name is the same, case, and ``_`` or ``-`` for a space, are overlooked.

    Raises
    ------
    UsageError
        When a class is none of the labels, or several.
    """
    if tuple(labels) == tuple(classes):  # some of ImageNet's names stand for two classes
        return tuple(range(len(labels)))
    exact, plain = _places(labels), _places(map(_plain, labels))
    found = []
    for name in classes:
        same = exact.get(name) or plain.get(_plain(name), [])
        if len(same) != 1:
            what = (
                f"{len(same)} of the model's labels have that name"
                if same
                else "the model has no such label"
            )
            some = ", ".join(map(repr, labels[:10])) + (" ..." if len(labels) > 10 else "")
            remedy = "give a model of these classes, or match them by number (by_number=True, --labels-by-number)"
            raise UsageError(
                f"the data set has a class {name!r}, and {what} ({some:.300}); {remedy}"
            )
        found.append(same[0])
    if len(set(found)) < len(found):
        raise UsageError(
            f"two of the data set's classes are one of the model's ({', '.join(classes):.300}); rename one of them"
        )
    return tuple(found)


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Where each name is."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return found


def _first_classes(labels: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """The numbers of the first labels, one for each class."""
    if len(classes) > len(labels):
        raise UsageError(
            f"the data set has {len(classes)} classes, and the model {len(labels)}; they cannot be matched by number"
        )
    return tuple(range(len(classes)))


def _plain(name: str) -> str:
    """A name without what people write in different ways."""
    return name.replace("_", " ").replace("-", " ").casefold().strip()


def _batches(
    data: Dataset, preprocess: Preprocess, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prepared pictures and their labels in order, made by another thread while the network computes."""

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
