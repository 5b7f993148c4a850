"""How predictions are compared with labels: image by image, and then all images together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ImageError, UsageError
from ..heads import THRESHOLD, checked_logits
from .answers import AnswerEvaluation, answers_of
from .evaluation import Evaluation, evaluation_of
from .labels import LabelEvaluation, labels_of
from .single import ImageScore, answer_scores, class_scores, label_scores

__all__ = ["Found", "Rule"]

Found = Evaluation | LabelEvaluation | AnswerEvaluation


@dataclass(frozen=True, eq=False)
class Rule:
    """How predictions are compared with labels.

    Parameters
    ----------
    kind : {"class", "answers", "labels"}
        An image has one class; one class, for which several names are right; or any number of
        labels.
    classes : tuple of str
        The network's.
    numbers : sequence of int
        The network's class for each label of the data set: ``numbers[label]``.
    threshold : float, optional
        The probability from which on a label is named: of any number, or the second of two.
    """

    kind: str
    classes: tuple[str, ...]
    numbers: Sequence[int]
    threshold: float | None = None

    def check_columns(self) -> None:
        """Raise `UsageError` unless rows of 0 and 1 say of each label whether an image has it.

        What a data set does not know is neither there nor not there.
        """
        if self.kind == "labels" and (missing := set(range(len(self.classes))) - {*self.numbers}):
            raise UsageError(
                f"the data set has no column for the label {self.classes[min(missing)]!r}, which "
                "the model has; add one, with 0 for the images without the label, or use a model "
                "of the data set's labels"
            )

    def right(self, label: Any) -> tuple[int, ...]:
        """Return the network's classes that are right where the data set has a label.

        Parameters
        ----------
        label : int, or [of the data set] of 0 and 1
        """
        if np.ndim(label):
            found = {self.numbers[i] for i in np.flatnonzero(np.asarray(label) == 1).tolist()}
            return tuple(sorted(found))
        self._check(np.asarray([label]))
        return (int(self.numbers[int(label)]),)

    def scores(
        self, names: Sequence[str] | None, logits: np.ndarray, labels: Any
    ) -> Iterator[ImageScore]:
        """Yield how right the network is about each image of a mini-batch.

        Parameters
        ----------
        names : sequence of str, optional
            Of the images; None where they have none.
        logits : [n, classes]
        labels : int [n]; or [n, of the data set], 0 or 1

        Raises
        ------
        IntegrityError
            Logits are not finite.
        UsageError
            Labels are not such numbers or out of range, or the logits have another shape.
        """
        meaning, labels = np.asarray(self.numbers, np.int64), self._checked(labels)
        names = [""] * len(labels) if names is None else names
        found = checked_logits(logits, (len(labels), len(self.classes)))
        if self.kind == "class":
            own = np.unique(meaning)
            return class_scores(names, found, meaning[labels], own, self.threshold)
        rows = np.zeros(found.shape, bool)
        if labels.ndim == 1:
            rows[np.arange(len(labels)), meaning[labels]] = True
        else:
            rows[:, meaning] = labels
        if self.kind == "answers":
            return answer_scores(names, found, rows)
        return label_scores(names, found, rows, self._limit)

    def total(self, scores: Iterable[ImageScore], left_out: bool = False) -> Found:
        """Return the result for all images.

        An image that cannot be read counts as wrong: it is one of those of which a part is right.
        The loss and average precisions are those of the images that can be read.

        Parameters
        ----------
        scores : iterable of ImageScore
            Taken one by one, in any order.
        left_out : bool
            Whether images that cannot be read do not count at all.

        Raises
        ------
        UsageError
            There are no images.
        ImageError
            None of them can be read.
        """
        seen = [0, 0]

        def counted() -> Iterator[ImageScore]:
            for one in scores:
                seen[one.error is not None] += 1
                if one.error is None or not left_out:
                    yield one
            if not any(seen):
                raise UsageError(
                    "there are no images to evaluate on; choose another data set or split"
                )
            if not seen[0]:
                raise ImageError(f"none of the {seen[1]} images can be read")

        if self.kind == "answers":
            return answers_of(counted())
        if self.kind == "labels":
            return labels_of(counted(), self.classes, self._limit)
        return evaluation_of(counted(), self.classes, len(set(self.numbers)), self.threshold)

    @property
    def _limit(self) -> float:
        """Return the probability from which on a label is named."""
        return THRESHOLD if self.threshold is None else self.threshold

    def _checked(self, labels: Any) -> np.ndarray:
        """Return labels as int [n], or as bool [n, of the data set] where there may be several.

        Raises
        ------
        UsageError
            They are something else.
        """
        try:
            found = np.asarray(labels)
        except ValueError:  # rows of different lengths
            found = np.empty((), object)
        kind = found.dtype.kind
        if found.ndim == 1 and (kind in "biu" or not found.size):
            self._check(found)
            return found.astype(np.int64)
        wide = self.kind != "class" and found.ndim == 2 and found.shape[1] == len(self.numbers)
        if wide and kind in "biuf":
            self.check_columns()
            rows: np.ndarray = found == 1
            if (rows | (found == 0)).all():
                return rows
            other = found[~rows & (found != 0)][0]
            raise UsageError(
                f"a label is {other}: in a row of labels, expected 1 for each that the image has, "
                "and 0 for the others"
            )
        more = "" if self.kind == "class" else f", or rows of {len(self.numbers)} numbers 0 and 1"
        raise UsageError(
            f"the labels are {found.dtype} {found.shape}, expected a list of whole numbers, the "
            f"class of each image{more}"
        )

    def _check(self, labels: np.ndarray) -> None:
        """Raise `UsageError` if a label is that of no class."""
        if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < len(self.numbers):
            raise UsageError(
                f"labels run from {np.min(labels)} to {np.max(labels)}, expected 0 to "
                f"{len(self.numbers) - 1}; use the labels of this data set"
            )
