"""The result of an evaluation where several classes may be right for an image, as in ReaL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .evaluation import TOP, broken_line
from .single import ImageScore

__all__ = ["AnswerEvaluation", "answers_of"]


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
    broken : int
        Images that could not be read. They count as wrong.
    """

    pictures: int
    first: int
    among: int
    broken: int = 0

    @property
    def top1(self) -> float:
        """Return the top-1 accuracy, from 0 to 1."""
        return self.first / self.pictures

    @property
    def top5(self) -> float:
        """Return the top-5 accuracy, from 0 to 1: one of the five is a right answer."""
        return self.among / self.pictures

    def to_json(self) -> dict[str, int | float]:
        """Return everything as a JSON object."""
        found: dict[str, int | float] = {
            "pictures": self.pictures,
            "top1": self.top1,
            "top5": self.top5,
        }
        return found | ({"broken": self.broken} if self.broken else {})

    def table(self) -> Iterator[list[str | int | float]]:
        """Yield the rows of a CSV table: a heading, and one row."""
        yield list(self.to_json())
        yield list(self.to_json().values())

    def __str__(self) -> str:
        return (
            f"images       {self.pictures:8,}  with at least one right answer\n"
            f"{broken_line(self.broken, 12)}"
            f"top-1        {self.top1:8.2%}  is a right answer\n"
            f"top-5        {self.top5:8.2%}  one of them is a right answer"
        )


def answers_of(scores: Iterable[ImageScore]) -> AnswerEvaluation:
    """Return the result for images, given the score of each."""
    first = among = count = broken = 0
    for one in scores:
        count += 1
        if one.rank is None:
            broken += 1
        else:
            first += one.rank == 1
            among += one.rank <= TOP
    return AnswerEvaluation(count, first, among, broken)
