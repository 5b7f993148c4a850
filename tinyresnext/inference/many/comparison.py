"""Any number of images whose classes are known: how right a model is about each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...data.dataset import Dataset
from ...data.pixels.checks import no_dataset
from ...data.trees.archives import fails
from ...data.trees.sources import Source
from ...errors import ImageError, UsageError
from ...system.files import shown
from ..ensemble import Ensemble, Seen
from ..heads import THRESHOLD, both, check_head, check_threshold
from ..scores.classes import match_classes, match_numbers
from ..scores.rule import Found, Rule
from ..scores.single import ImageScore
from .batches import grouped, worked

if TYPE_CHECKING:
    from distributed import Client

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
        if not hasattr(data, "classes"):
            raise no_dataset("data set", data)
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
            _check_single(data)
        kind = "answers" if data.any_is_right else "labels" if model.spec.several else "class"
        if threshold is None and model.spec.head != "softmax":
            threshold = THRESHOLD
        rule = Rule(kind, model.labels, numbers, threshold)
        if data.several:
            rule.check_columns()
        return cls(model, data, rule)

    def digest(self) -> str:
        """Return 16 digits: others for other images, other right classes, or other classes."""
        among = sorted({int(number) for number in self.rule.numbers})  # ranks `within` are of these
        found = hashlib.sha256(f"{among}\n".encode())
        for one in self.data:
            found.update(f"{one.name!r} {self.rule.right(one.label)}\n".encode())
        return found.hexdigest()[:16]

    def groups(
        self,
        sources: Iterable[Source],
        batch: int | None,
        fast: bool = False,
        client: Client | None = None,
    ) -> Generator[list[ImageScore], None, None]:
        """Return how right the model is about some images at a time, in order.

        Threads prepare the next images while the network computes. Workers of Dask do all of that
        with a ``client``. Images that are in memory, such as those of CIFAR, are sent to them.

        Raises
        ------
        ImageError
            An image cannot be read, and the data set was not opened to count it or to leave it out.
        UsageError, DeviceError
            As `worked` raises.
        """
        work = partial(_compared, rule=self.rule, fast=fast)
        if client is not None and isinstance(self.data, Dataset):
            sources = map(_with_pixels, sources)
        made = worked(work, self.model, sources, batch, client)
        return made if self.data.skips or self.data.keeps else _unbroken(made)

    def scores(
        self,
        sources: Iterable[Source],
        batch: int | None,
        fast: bool = False,
        client: Client | None = None,
    ) -> Iterator[ImageScore]:
        """Yield how right the model is about each image; as `groups`."""
        with closing(self.groups(sources, batch, fast, client)) as groups:
            for group in groups:
                yield from group

    def total(self, scores: Iterable[ImageScore]) -> Found:
        """Return the result for all images, as `Rule.total` does."""
        return self.rule.total(scores, left_out=self.data.skips)


def _check_single(data: Labelled) -> None:
    """Refuse images of several labels for a model that names one class for each of them."""
    for one in data:
        if (count := np.count_nonzero(np.asarray(one.label))) != 1:
            raise UsageError(
                f"the images have any number of labels ({shown(one.name)} has {count}), and the "
                "model names one class for each; use a model of several labels (--head sigmoid)"
            )


def _compared(
    model: Ensemble,
    sources: Iterable[Source],
    batch: int | None,
    loaders: int,
    *,
    rule: Rule,
    fast: bool,
) -> Generator[list[ImageScore], None, None]:
    """Yield how right a model is about some images at a time."""
    make = partial(_made, partial(model.prepare, fast=fast))
    with closing(grouped(make, sources, batch, loaders)) as groups:
        for group in groups:
            good = [(source, seen) for source, seen in group if not isinstance(seen, str)]
            scores = iter(_scores(model, rule, good) if good else ())
            yield [
                ImageScore(source.name, rule.right(source.label), seen)
                if isinstance(seen, str)
                else next(scores)
                for source, seen in group
            ]


def _made(prepare: Callable[[Any], Seen], source: Source) -> tuple[Source, Seen | str]:
    """Return an image with what its models see, or with the error."""
    try:
        return source, prepare(source.open())
    except ImageError as error:
        # Not the error: its traceback would keep the whole file in memory.
        return source, str(error)


def _scores(
    model: Ensemble, rule: Rule, good: Sequence[tuple[Source, Seen]]
) -> Iterator[ImageScore]:
    """Yield how right a model is about images of one mini-batch."""
    logits = model([seen for _, seen in good])
    if model.spec.head != "softmax" and not model.spec.several:
        logits = both(logits)
    labels = np.array([source.label for source, _ in good], np.int64)
    if rule.kind == "class" and labels.ndim == 2:
        labels = labels.argmax(1)  # `_check_single` has seen that each row has a single 1
    return rule.scores([source.name for source, _ in good], logits, labels)


def _unbroken(
    groups: Generator[list[ImageScore], None, None],
) -> Generator[list[ImageScore], None, None]:
    """Yield the groups; raise `ImageError` for the first image that cannot be read."""
    with closing(groups):
        for group in groups:
            for one in group:
                if one.error is not None:
                    raise ImageError(one.error)
            yield group


def _with_pixels(source: Source) -> Source:
    """Return an image that another process can open, since its pixels, or its error, are there."""
    try:
        return source._replace(open=partial(np.ascontiguousarray, source.open()))
    except ImageError as error:
        return source._replace(open=fails(str(error)))
