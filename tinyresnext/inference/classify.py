"""Classify many image files. A file that cannot be read has an error in its row; the rest go on."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..data.trees.sources import Source
from ..images.checks import whole_number
from .ensemble import Ensemble
from .heads import Prediction, check_head, check_threshold
from .many.batches import prepared, sources_of, worked
from .model import Model

if TYPE_CHECKING:
    from distributed import Client


class Row(NamedTuple):
    """The result for one image: either ``predictions`` or an ``error``."""

    path: str
    predictions: list[Prediction]
    error: str | None


def classify(
    model: Model | Ensemble | Iterable[Model],
    paths: Iterable[str | os.PathLike[str] | Source],
    *,
    top: int | None = None,
    batch: int | None = 8,
    threshold: float | None = None,
    crops: int = 1,
    mirror: bool = False,
    fast: bool = False,
    client: Client | None = None,
) -> Iterator[Row]:
    """Classify image files in mini-batches, and return one row for each, in order.

    Threads decode the next images while the network computes, a few mini-batches ahead. With a
    ``client``, workers of Dask do all of that, and read the images.

    Parameters
    ----------
    model : Model, or iterable of Model
        Several predict together: the mean of their probabilities counts.
    paths : iterable of path or Source
        Image files, or what `tinyresnext.data.trees.sources.Images` yields; each is taken from it
        when its turn comes.
    top : int, optional
        As for `Model.predict`.
    batch : int, optional
        The number of images in a mini-batch; None finds a good one (`many.batches.BatchSize`), or
        is 8 with a ``client``.
    threshold : float, optional
        As for `Model.predict`.
    crops, mirror
        The views of each image, as for `Ensemble`.
    fast : bool
        Decode large JPEGs at a reduced size, as `tinyresnext.images.prepare.views` says.
    client : dask.distributed.Client, optional
        Whose workers compute (`many.shards.spread`). They need the images under the same paths.
        Each computes on threads of its own; the number of threads of the models is not used.

    Returns
    -------
    iterator of Row

    Raises
    ------
    UsageError
        At once: ``paths`` is one path and no list; ``top`` or ``batch`` is no whole number from 1;
        the preprocessing does not fit the network, it has a single class, or several models do not
        have the same labels; ``client`` is none.
    MachineError
        Later: storage or a network fails, or too many files are open, so that no image is to blame.
    DeviceError
        At once: no worker is there, or one has another version of this package. Later: workers have
        no access to the images, or all of them were lost.
    """
    top = top if top is None else whole_number("top", top, 1)
    together = Ensemble.of(model, crops, mirror)
    check_classified(together, threshold)
    work = partial(_rows, top=top, threshold=threshold, fast=fast)
    return worked(work, together, sources_of(paths), batch, client)


def check_classified(model: Ensemble, threshold: float | None) -> None:
    """Raise `UsageError` unless a model can classify images, with this threshold."""
    check_head(model.spec)
    check_threshold(model.spec, threshold)
    model.check_pictures()


def _rows(
    model: Ensemble,
    sources: Iterable[Source],
    batch: int | None,
    loaders: int,
    *,
    top: int | None,
    threshold: float | None,
    fast: bool,
) -> Generator[Row, None, None]:
    """Yield a row for each image."""
    make = partial(model.prepare, fast=fast)
    for group in prepared(sources, make, batch, loaders):
        good = [x for _, x in group if not isinstance(x, str)]
        ranked = iter(model.rank(model(good), top, threshold) if good else [])
        for path, x in group:
            if isinstance(x, str):
                yield Row(path, [], x)
            else:
                yield Row(path, next(ranked), None)
