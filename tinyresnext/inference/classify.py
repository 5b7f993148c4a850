"""Classify many image files. A file that cannot be read has an error in its row; the rest go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from ..data.trees.sources import Source
from .ensemble import Ensemble
from .heads import check_head, check_threshold
from .many.batches import prepared, sources_of
from .model import Model, Prediction


class Row(NamedTuple):
    """The result for one image: either ``predictions`` or an ``error``."""

    path: str
    predictions: list[Prediction]
    error: str | None


def classify(
    model: Model | Ensemble | Iterable[Model],
    paths: Iterable[str | Source],
    *,
    top: int = 5,
    batch: int | None = 8,
    threshold: float | None = None,
    crops: int = 1,
    mirror: bool = False,
    fast: bool = False,
) -> Iterator[Row]:
    """Classify image files in mini-batches, and return one row for each, in order.

    Threads decode the next images while the network computes, a few mini-batches ahead.

    Parameters
    ----------
    model : Model, or iterable of Model
        Several predict together: the mean of their probabilities counts.
    paths : iterable of str or Source
        Image files, or what `tinyresnext.data.trees.sources.Images` yields; each is taken from it
        when its turn comes.
    top : int
        The number of classes to return for each image, the most probable first.
    batch : int, optional
        The number of images in a mini-batch; None finds a good one (`many.batches.BatchSize`).
    threshold : float, optional
        As for `Model.predict`.
    crops, mirror
        The views of each image, as for `Ensemble`.
    fast : bool
        Decode large JPEGs at a reduced size, as `tinyresnext.images.prepare.views` says.

    Returns
    -------
    iterator of Row

    Raises
    ------
    UsageError
        At once: the preprocessing does not fit the network, it has a single class, or several
        models do not have the same labels.
    """
    together = Ensemble.of(model, crops, mirror)
    check_head(together.spec)
    check_threshold(together.spec, threshold)
    together.check_pictures()
    return _rows(together, sources_of(paths), top, batch, threshold, fast)


def _rows(
    model: Ensemble,
    sources: Iterator[Source],
    top: int,
    batch: int | None,
    threshold: float | None,
    fast: bool,
) -> Iterator[Row]:
    """Yield a row for each image."""
    make = partial(model.prepare, fast=fast)
    for group in prepared(sources, make, batch, model.loaders):
        good = [x for _, x in group if not isinstance(x, str)]
        ranked = iter(model.rank(model(good), top, threshold) if good else [])
        for path, x in group:
            if isinstance(x, str):
                yield Row(path, [], x)
            else:
                yield Row(path, next(ranked), None)
