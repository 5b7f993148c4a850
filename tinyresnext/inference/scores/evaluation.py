"""The result of an evaluation: accuracies, loss and confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ...errors import UsageError
from ..heads import percent
from .precision import Calibration, calibration, ranked
from .single import ImageScore

__all__ = [
    "TOP",
    "ClassScore",
    "Evaluation",
    "Within",
    "broken_line",
    "check_matrix",
    "evaluation_of",
]

MOST_CLASSES = 4096  # of a confusion matrix that is written: 17 million numbers

TOP = 5  # classes among which the right one counts for the top-5 accuracy


class ClassScore(NamedTuple):
    """One class: its number of images and its accuracies, from 0 to 1; None without images."""

    name: str
    pictures: int
    top1: float | None
    top5: float | None


class Within(NamedTuple):
    """Accuracies, from 0 to 1, if only the logits of the data set's own classes count."""

    classes: int
    top1: float
    top5: float


def check_matrix(classes: int) -> None:
    """Refuse to write a confusion matrix that is too large; ask before the evaluation.

    Raises
    ------
    UsageError
    """
    if classes > MOST_CLASSES:
        raise UsageError(
            f"a confusion matrix of {classes:,} classes has {classes**2:,} numbers; at most "
            f"{MOST_CLASSES:,} classes are written as a table, as JSON or as an image: leave out "
            "--csv, --json and --picture"
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of an evaluation; ``print`` shows it as a table.

    Parameters
    ----------
    classes : tuple of str
        The network's, in its order.
    confusion : [classes, classes] int64
        ``confusion[i, j]`` counts the images of class i that the network predicts as class j.
    among : [classes] int64
        For each class, the number of its images for which it is among the five most probable
        classes.
    loss : float
        Mean cross entropy, in natural units.
    threshold : float, optional
        For a single output: the probability from which on the second label is predicted.
    average_precision : float, optional
        For a single output: that of the second label; None if no image has it.
    within : Within, optional
        For a data set of fewer classes than the network: the accuracies among these classes, as
        they are published for ImageNet-A and -R.
    broken : tuple of int
        For each class, the number of its images that could not be read; nothing if there are none.
        They count as wrong, and are not in ``confusion``. ``loss``, ``average_precision`` and
        ``calibration`` are those of the others.
    calibration : Calibration, optional
        The mean probability of the class that is named, and how far it is from the part that is
        right; None where no image could be read.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    among: np.ndarray
    loss: float
    threshold: float | None = None
    average_precision: float | None = None
    within: Within | None = None
    broken: tuple[int, ...] = ()
    calibration: Calibration | None = None

    @property
    def pictures(self) -> int:
        """Return the number of images, those that could not be read among them."""
        return int(self.confusion.sum()) + sum(self.broken)

    @property
    def top1(self) -> float:
        """Return the top-1 accuracy, from 0 to 1."""
        return int(self.confusion.trace()) / self.pictures

    @property
    def top5(self) -> float:
        """Return the top-5 accuracy, from 0 to 1: 1 for at most five classes, if none is broken."""
        return int(self.among.sum()) / self.pictures

    @property
    def per_class(self) -> list[ClassScore]:
        """Return the number of images and the accuracies of each class."""
        counts = (self.confusion.sum(1) + np.array(self.broken or 0, np.int64)).tolist()
        right = self.confusion.diagonal().tolist()
        return [
            ClassScore(name, n, *((first / n, five / n) if n else (None, None)))
            for name, n, first, five in zip(
                self.classes, counts, right, self.among.tolist(), strict=True
            )
        ]

    @property
    def score(self) -> float:
        """Return what is to be as high as possible, from 0 to 1."""
        return self.top1

    def measures(self) -> dict[str, float]:
        """Return what the log of a training has after each epoch."""
        found = {"top1": self.top1, "top5": self.top5}
        if self.average_precision is not None:
            found["average_precision"] = self.average_precision
        return found

    def to_json(self) -> dict[str, object]:
        """Return everything as a JSON object.

        Raises
        ------
        UsageError
            There are too many classes; see `check_matrix`.
        """
        check_matrix(len(self.classes))
        head: dict[str, object] = {
            "pictures": self.pictures,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
        }
        if self.calibration is not None:
            head |= {
                "confidence": self.calibration.confidence,
                "calibration_error": self.calibration.error,
            }
        if self.threshold is not None:
            head |= {"threshold": self.threshold, "average_precision": self.average_precision}
        if self.within is not None:
            head["within"] = self.within._asdict()
        if self.broken:
            head["broken"] = sum(self.broken)
        return head | {
            "classes": [one._asdict() for one in self.per_class],
            "confusion": self.confusion.tolist(),
        }

    def table(self) -> Iterator[list[str | int | float]]:
        """Yield the rows of a CSV table: a heading, then one row for each class.

        A row has the name of the class, its number of images, its accuracies, and its row of the
        confusion matrix. Errors are those of `to_json`.
        """
        check_matrix(len(self.classes))
        yield ["class", "pictures", "top1", "top5", *self.classes]
        for one, answers in zip(self.per_class, self.confusion.tolist(), strict=True):
            accuracies = ("" if part is None else part for part in (one.top1, one.top5))
            yield [one.name, one.pictures, *accuracies, *answers]

    def __str__(self) -> str:
        scores = [one for one in self.per_class if one.pictures]
        least = 12 if self.average_precision is None else len("average precision")
        wide, five = max(least, *(len(one.name) for one in scores)), len(self.classes) > TOP
        head = [f"{'images':{wide}} {self.pictures:8,}"]
        head += broken_line(sum(self.broken), wide).splitlines()
        head += [f"{'top-1':{wide}} {self.top1:8.2%}"]
        head += [f"{'top-5':{wide}} {self.top5:8.2%}"] * five
        if self.within is not None:
            among = f"among the {self.within.classes} classes of the data"
            head += [f"{'top-1':{wide}} {self.within.top1:8.2%}  {among}"]
            few = self.within.classes <= TOP
            head += [] if few else [f"{'top-5':{wide}} {self.within.top5:8.2%}  {among}"]
        if self.threshold is not None:
            head += [f"{'threshold':{wide}} {percent(self.threshold):>8}  for {self.classes[1]}"]
        if self.average_precision is not None:
            what = f"{'average precision':{wide}} {self.average_precision:8.2%}"
            head += [f"{what}  for {self.classes[1]}"]
        head += [f"{'loss':{wide}} {self.loss:8.4f}"]
        if self.calibration is not None:
            confidence, error = self.calibration
            what = "mean probability of what is named; calibration error"
            head += [f"{'confidence':{wide}} {confidence:8.2%}  {what} {error:.2%}"]
        head += [
            "",
            f"{'class':{wide}}   images    top-1{'    top-5' * five}  mistaken for",
        ]
        rows = []
        for number, one in enumerate(self.per_class):
            if one.pictures:
                parts = f"{one.top1:8.2%}" + f" {one.top5:8.2%}" * five
                row = f"{one.name:{wide}} {one.pictures:8,} {parts}  {self._mistakes(number)}"
                rows.append(row.rstrip())
        return "\n".join([*head, *rows])

    def _mistakes(self, number: int, most: int = 3) -> str:
        """Return the classes that are most often predicted for a class instead, with counts."""
        answers = self.confusion[number].copy()
        answers[number] = 0
        order = np.argsort(-answers, kind="stable")[:most]
        return ", ".join(f"{self.classes[i]} {answers[i]:,}" for i in order if answers[i])


def evaluation_of(
    scores: Iterable[ImageScore], classes: Sequence[str], own: int, threshold: float | None = None
) -> Evaluation:
    """Return the result for images of one class each, given the score of each image.

    Parameters
    ----------
    scores : iterable of ImageScore
    classes : sequence of str
        The network's.
    own : int
        The number of the data set's classes.
    threshold : float, optional
        For two classes: the probability from which on the second is predicted.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    among, broken = np.zeros(len(classes), np.int64), np.zeros(len(classes), np.int64)
    count, loss, within, values = 0, Fraction(0), [0, 0], list[tuple[float, bool]]()
    named = list[tuple[float, bool]]()
    for one in scores:
        [right] = one.right
        count += 1
        if one.rank is None or one.loss is None or one.probability is None:
            broken[right] += 1
            continue
        confusion[right, one.named[0]] += 1
        named.append((one.probability, one.named[0] == right))
        among[right] += one.rank <= TOP
        loss += Fraction(one.loss)  # exactly, so that the order of the images does not matter
        if one.within is not None:
            within = [within[0] + (one.within == 1), within[1] + (one.within <= TOP)]
        values += [(value, right == 1) for value in one.values]
    for array in (confusion, among):
        array.flags.writeable = False
    lost = tuple(broken.tolist()) if broken.any() else ()
    mean, precision = float(loss) / (count - sum(lost)), None
    if threshold is not None:
        found, second = np.array(values).T
        precision = ranked(found, second == 1).average_precision
    few = Within(own, within[0] / count, within[1] / count) if 1 < own < len(classes) else None
    return Evaluation(
        tuple(classes), confusion, among, mean, threshold, precision, few, lost, calibration(named)
    )


def broken_line(broken: int, wide: int) -> str:
    """Return the line about images that could not be read, or nothing if there are none."""
    return f"{'broken':{wide}} {broken:8,}  of them, which count as wrong\n" if broken else ""
