"""Any number of images whose classes are known: how right a model is about each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...data.trees.sources import Source
from ...errors import ImageError, UsageError
from ..ensemble import Ensemble, Seen
from ..heads import THRESHOLD, both, check_head, check_threshold
from ..scores.classes import match_classes, match_numbers
from ..scores.rule import Found, Rule
from ..scores.single import ImageScore
from .batches import grouped

__all__ = ["Comparison", "Labelled"]


class Labelled(Protocol):
    """Images with labels: a `Dataset`, or `data.dataset.LabelledImages`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""

    @property
    def validation(self) -> bool:
        """Return whether all are called as ImageNet's validation images are."""

    @property
    def several(self) -> bool:
        """Return whether a label is an array of 0 and 1 for each class."""

    @property
    def any_is_right(self) -> bool:
        """Return whether an image has one class, and each of its labels is a right answer."""

    @property
    def skips(self) -> bool:
        """Return whether an image that cannot be read is left out."""

    @property
    def keeps(self) -> bool:
        """Return whether an image that cannot be read counts as wrong."""

    @property
    def warn(self) -> Callable[[str], None]:
        """Return a function that takes one line of warning."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __iter__(self) -> Iterator[Source]:
        """Yield the images with their labels, as often as they are asked for."""


class _Made(NamedTuple):
    """An image with its label: what its models see, or the error."""

    source: Source
    seen: Seen
    error: str | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """The comparison of a model's predictions with the labels of images.

    Parameters
    ----------
    model : Ensemble
    data : Dataset, or LabelledImages
    rule : Rule
    """

    model: Ensemble
    data: Labelled
    rule: Rule

    @classmethod
    def of(
        cls, model: Ensemble, data: Labelled, by_number: bool, threshold: float | None
    ) -> Comparison:
        """Match the classes of a data set with a model's. Errors are those of `evaluate`."""
        check_head(model.spec)
        check_threshold(model.spec, threshold)
        model.check_pictures()
        match = match_numbers if by_number else match_classes
        numbers = match(model.labels, data.classes)
        if data.any_is_right and model.spec.head != "softmax":
            raise UsageError(
                "the images have one class each, of which several names may be right; use a model "
                "that names one class (--head softmax)"
            )
        if data.several and not data.any_is_right and not model.spec.several:
            raise UsageError(
                "the images have any number of labels, and the model names one class for each; use "
                "a model of several labels (--head sigmoid)"
            )
        kind = "answers" if data.any_is_right else "labels" if model.spec.several else "class"
        if threshold is None and model.spec.head != "softmax":
            threshold = THRESHOLD
        return cls(model, data, Rule(kind, model.labels, numbers, threshold))

    def digest(self) -> str:
        """Return 16 digits that are others for other images and for other right classes."""
        found = hashlib.sha256()
        for one in self.data:
            found.update(f"{one.name!r} {self.rule.right(one.label)}\n".encode())
        return found.hexdigest()[:16]

    def groups(
        self, sources: Iterable[Source], batch: int | None, fast: bool = False
    ) -> Generator[list[ImageScore], None, None]:
        """Yield how right the model is about some images at a time, in order.

        Threads prepare the next images while the network computes.

        Raises
        ------
        ImageError
            An image cannot be read, and the data set was not opened to count it or to leave it out.
        """
        make = partial(self._made, partial(self.model.prepare, fast=fast))
        made = grouped(make, sources, batch, self.model.loaders)
        with closing(made) as groups:
            for group in groups:
                good = [one for one in group if one.error is None]
                scores = iter(self._scores(good) if good else ())
                yield [next(scores) if one.error is None else self._broken(one) for one in group]

    def scores(
        self, sources: Iterable[Source], batch: int | None, fast: bool = False
    ) -> Iterator[ImageScore]:
        """Yield how right the model is about each image; as `groups`."""
        with closing(self.groups(sources, batch, fast)) as groups:
            for group in groups:
                yield from group

    def total(self, scores: Iterable[ImageScore]) -> Found:
        """Return the result for all images, as `Rule.total` does."""
        return self.rule.total(scores, left_out=self.data.skips)

    def _made(self, prepare: Callable[[Any], Seen], source: Source) -> _Made:
        """Prepare an image."""
        try:
            return _Made(source, prepare(source.open()), None)
        except ImageError as error:
            if not (self.data.skips or self.data.keeps):
                raise
            # Not the error: its traceback would keep the whole file in memory.
            return _Made(source, (), str(error))

    def _scores(self, good: list[_Made]) -> Iterator[ImageScore]:
        """Yield how right the model is about images of one mini-batch."""
        logits = self.model([one.seen for one in good])
        if self.model.spec.head != "softmax" and not self.model.spec.several:
            logits = both(logits)
        labels = np.array([one.source.label for one in good], np.int64)
        return self.rule.scores([one.source.name for one in good], logits, labels)

    def _broken(self, one: _Made) -> ImageScore:
        """Return the score of an image that cannot be read."""
        return ImageScore(one.source.name, self.rule.right(one.source.label), one.error)
