"""The result of an evaluation where an image has any number of labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..heads import percent, sigmoid
from .evaluation import broken_line
from .precision import Ranked, ranked, shortest
from .single import ImageScore

__all__ = ["LabelEvaluation", "LabelScore", "labels_of"]


class LabelScore(NamedTuple):
    """One label: how many images have it, and how right naming it is; None where undefined.

    ``precision`` and ``recall`` are at the threshold of the evaluation. ``best_threshold`` is the
    probability from which on naming the label has the highest F1, and ``best_f1`` that F1.
    """

    name: str
    pictures: int
    precision: float | None
    recall: float | None
    average_precision: float | None
    best_threshold: float | None
    best_f1: float | None


@dataclass(frozen=True, eq=False)
class LabelEvaluation:
    """The result of an evaluation of several labels; ``print`` shows it as a table.

    Parameters
    ----------
    labels : tuple of str
        The network's, in its order.
    values : [n, labels] float64
        The logits.
    truth : [n, labels] bool
        Which labels each image has.
    loss : float
        Mean binary cross entropy over images and labels, in natural units.
    threshold : float
        The probability from which on a label is named.
    broken : int
        Images that could not be read. In ``exact`` they count as wrong; everything else is of the
        others.
    """

    labels: tuple[str, ...]
    values: np.ndarray
    truth: np.ndarray
    loss: float
    threshold: float
    broken: int = 0

    @property
    def pictures(self) -> int:
        """Return the number of images, those that could not be read among them."""
        return len(self.truth) + self.broken

    @property
    def exact(self) -> float:
        """Return the part of the images of which all labels are right, from 0 to 1."""
        return int((self._named == self.truth).all(1).sum()) / self.pictures

    @property
    def mean_average_precision(self) -> float | None:
        """Return the mean average precision over the labels that an image has, from 0 to 1.

        It is None where no image has a label.
        """
        found = [one.average_precision for one in self._ranked]
        known = [part for part in found if part is not None]
        return float(np.mean(known)) if known else None

    @property
    def per_label(self) -> list[LabelScore]:
        """Return how right each label is."""
        named, right = self._named.sum(0), (self._named & self.truth).sum(0)
        have = self.truth.sum(0)
        return [
            LabelScore(
                name, int(have[i]), _part(right[i], named[i]), _part(right[i], have[i]), *one
            )
            for i, (name, one) in enumerate(zip(self.labels, self._ranked, strict=True))
        ]

    @property
    def score(self) -> float:
        """Return what is to be as high as possible, from 0 to 1; 0 where no image has a label."""
        return self.mean_average_precision or 0.0

    def measures(self) -> dict[str, float]:
        """Return what the log of a training has after each epoch."""
        return {"average_precision": self.score, "exact": self.exact}

    @property
    def probabilities(self) -> np.ndarray:
        """Return the probability of each label [n, labels] float64."""
        return sigmoid(self.values)

    @property
    def _named(self) -> np.ndarray:
        """Return which labels the network names [n, labels]."""
        named: np.ndarray = self.probabilities >= self.threshold
        return named

    @property
    def _ranked(self) -> list[Ranked]:
        """Return what each label's logits are worth, and from which probability on to name it.

        Large logits have one order and the same probability, which is 1.
        """
        columns = zip(self.values.T, self.probabilities.T, self.truth.T, strict=True)
        return [
            ranked(parts, truth)._replace(average_precision=ranked(values, truth).average_precision)
            for values, parts, truth in columns
        ]

    def to_json(self) -> dict[str, object]:
        """Return everything but the single images as a JSON object."""
        return {
            "pictures": self.pictures,
            "mean_average_precision": self.mean_average_precision,
            "exact": self.exact,
            "loss": self.loss,
            "threshold": self.threshold,
            **({"broken": self.broken} if self.broken else {}),
            "labels": [one._asdict() for one in self.per_label],
        }

    def table(self) -> Iterator[list[str | int | float]]:
        """Yield the rows of a CSV table: a heading, then one row for each label."""
        yield list(LabelScore._fields)
        for one in self.per_label:
            yield ["" if value is None else value for value in one]

    def __str__(self) -> str:
        scores, mean = self.per_label, self.mean_average_precision
        precision = "       -  no image has a label" if mean is None else f"{mean:8.2%}"
        wide = max(22, *(len(one.name) for one in scores))
        lines = [
            f"{'images':{wide}} {self.pictures:8,}",
            *broken_line(self.broken, wide).splitlines(),
            f"{'mean average precision':{wide}} {precision}",
            f"{'all labels right':{wide}} {self.exact:8.2%}",
            f"{'loss':{wide}} {self.loss:8.4f}",
            "",
            f"labels of at least {percent(self.threshold)}:",
            f"{'label':{wide}}   images precision   recall average precision  best F1 from",
        ]
        for one, column in zip(scores, self.probabilities.T, strict=True):
            parts = [_percent(part) for part in (one.precision, one.recall, one.average_precision)]
            best = ""
            if one.best_threshold is not None:
                best = f"{one.best_f1:8.2%} {percent(shortest(one.best_threshold, column))}"
            row = (
                f"{one.name:{wide}} {one.pictures:8,}  {parts[0]} {parts[1]} {parts[2]:>17} {best}"
            )
            lines.append(row.rstrip())
        return "\n".join(lines)


def labels_of(
    scores: Iterable[ImageScore], labels: Sequence[str], threshold: float
) -> LabelEvaluation:
    """Return the result for images of any number of labels, given the score of each image.

    The logits of all images are kept, since average precisions sort them.
    """
    logits, right, broken = [], [], 0
    for one in scores:
        if one.error is not None:
            broken += 1
            continue
        logits.append(np.array(one.values))
        right.append(np.isin(np.arange(len(labels)), one.right))
    values, truth = np.array(logits), np.array(right)
    losses = np.logaddexp(0, np.where(truth, -values, values))
    loss = float(losses.mean())
    return LabelEvaluation(tuple(labels), values, truth, loss, threshold, broken)


def _part(right: int, of: int) -> float | None:
    """Return a part, or None of nothing."""
    return float(right / of) if of else None


def _percent(part: float | None) -> str:
    """Return a part in eight columns."""
    return " " * 8 if part is None else f"{part:8.2%}"
