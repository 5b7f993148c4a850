"""The result of an evaluation where several classes may be right for an image, as in ReaL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UsageError
from ..ensemble import Ensemble
from ..heads import checked_logits
from .evaluation import TOP

__all__ = ["AnswerEvaluation", "score_answers"]


@dataclass(frozen=True)
class AnswerEvaluation:
    """How often a predicted class is one of the right ones; ``print`` shows it.

    Beyer et al., "Are we done with ImageNet?" (2020), count so: images without a right answer are
    left out.

    Parameters
    ----------
    pictures : int
        Images with at least one right answer.
    first, among : int
        Images of which the most probable class is right, and of which one of the five most probable
        is.
    """

    pictures: int
    first: int
    among: int

    @property
    def top1(self) -> float:
        """Return the top-1 accuracy, from 0 to 1."""
        return self.first / self.pictures

    @property
    def top5(self) -> float:
        """Return the top-5 accuracy, from 0 to 1: one of the five is a right answer."""
        return self.among / self.pictures

    def to_json(self) -> dict[str, object]:
        """Return everything as a JSON object."""
        return {"pictures": self.pictures, "top1": self.top1, "top5": self.top5}

    def table(self) -> Iterator[list[str | int | float]]:
        """Yield the rows of a CSV table: a heading, and one row."""
        yield list(self.to_json())
        yield [self.pictures, self.top1, self.top5]

    def __str__(self) -> str:
        return (
            f"images       {self.pictures:8,}  with at least one right answer\n"
            f"top-1        {self.top1:8.2%}  is a right answer\n"
            f"top-5        {self.top5:8.2%}  one of them is a right answer"
        )


def score_answers(
    model: Ensemble,
    batches: Iterable[tuple[Any, np.ndarray]],
    *,
    numbers: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> AnswerEvaluation:
    """Count how often a predicted class is one of the right answers. Parameters are as for `score`.

    Raises
    ------
    IntegrityError
        Logits are not finite.
    UsageError
        There are no images, or the model names labels and not one class.
    """
    if model.spec.head != "softmax":
        raise UsageError(
            "the images have one class each, of which several names may be right; use a model that "
            "names one class (--head softmax)"
        )
    right, count = np.zeros(2, np.int64), 0
    for x, own in batches:
        if len(own):
            rows = np.zeros((len(own), len(model.labels)), bool)
            rows[:, list(numbers)] = own == 1
            order = np.argsort(-checked_logits(model(x), rows.shape), axis=1, kind="stable")[
                :, :TOP
            ]
            hits = np.take_along_axis(rows, order, 1)
            right += [hits[:, 0].sum(), hits.any(1).sum()]
            count += len(own)
        if progress is not None:
            progress(count)
    if not count:
        raise UsageError("there are no images to evaluate on; choose another data set or split")
    return AnswerEvaluation(count, int(right[0]), int(right[1]))
