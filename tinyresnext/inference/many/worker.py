"""What a worker of Dask does: it gets a model once, and then names of images, a shard at a time."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

from ...data.trees.sources import Source
from ...errors import DeviceError, ImageError, WeightsError
from ...images.files import Contents, contents_of
from ...system.files import shown
from ...system.version import __version__
from ..ensemble import Ensemble
from .predictor import Bytes

__all__ = ["Known", "Packed", "Work", "contents", "pack", "shard", "without_access"]

Made = TypeVar("Made")
Work = Callable[[Ensemble, Iterable[Source]], Iterable[Made]]
"""Returns what a model makes of some images."""

Packed = tuple[str, str, bytes]
"""The version of the package, a digest, and a pickle of the work, the model and a `Known` image.
A worker of another version can read the first, and then need not try the last."""

_KEPT = 2  # models that a worker keeps
_loading = threading.Lock()  # threads of one worker load a model once


class Known(NamedTuple):
    """An image that the sender of a shard can read, for a worker to compare."""

    name: str
    digest: str
    sent: bytes


def pack(work: Work[Any], model: Ensemble, sources: Iterable[Source]) -> Packed:
    """Return what is sent to every worker.

    Parameters
    ----------
    work : callable
    model : Ensemble
    sources : iterable of Source
        The first of these that can be read is the one that workers compare.
    """
    import cloudpickle  # the pickles of Dask

    known = None
    for source in sources:
        try:
            digest = hashlib.sha256(contents(source).data).hexdigest()
        except ImageError:
            continue
        known = Known(source.name, digest, cloudpickle.dumps((os.getcwd(), source)))
        break
    data = cloudpickle.dumps((work, model, known))
    return __version__, hashlib.sha256(data).hexdigest(), data


def shard(packed: Packed, sent: bytes) -> tuple[list[Any], list[int]]:
    """Return what was made of images, and the numbers of those that could not be opened.

    Parameters
    ----------
    packed : Packed
    sent : bytes
        A pickle of the folder in which relative paths begin, and of the images.

    Raises
    ------
    DeviceError
        The worker has another version, or other files than the process that sent this.
    TinyResNeXtError
        As the work raises it.
    """
    from distributed import get_worker

    worker = get_worker()
    version, digest, data = packed
    if version != __version__:
        raise DeviceError(
            f"the worker {worker.address} has version {__version__} of tinyresnext, and the "
            f"process that sends it images version {version}; install the same everywhere"
        )
    with _loading:
        work, model = _unpacked(Bytes(digest, data), worker.state.nthreads, worker.address)
    try:
        folder, sources = pickle.loads(sent)
    except WeightsError as error:  # of an archive
        raise DeviceError(
            f"the worker {worker.address} cannot open the archive of its images ({error}); give "
            "paths of a file system that all workers share"
        ) from error
    unread: list[int] = []
    here = [
        one._replace(open=partial(_opened, one, folder, unread, number))
        for number, one in enumerate(sources)
    ]
    return list(work(model, here)), sorted(unread)


@lru_cache(maxsize=_KEPT)
def _unpacked(packed: Bytes, threads: int, address: str) -> tuple[Work[Any], Ensemble]:
    """Return the work, and the model on the threads of this worker.

    Dask gives each worker its share of a machine's cores as threads of its own; affinity and the
    quota of a container may leave it fewer.

    Raises
    ------
    DeviceError
        The worker does not see the same files.
    """
    work, model, known = pickle.loads(packed.data)
    if known is not None:
        _check_known(known, address)
    models = [replace(one, threads=min(one.ops.thread_count(), threads)) for one in model.models]
    return work, replace(model, models=tuple(models))


def _check_known(known: Known, address: str) -> None:
    """Raise `DeviceError` unless an image has the same contents here."""
    digest, why = "", "it has other contents there"
    try:
        folder, source = pickle.loads(known.sent)
        digest = hashlib.sha256(contents(source, folder).data).hexdigest()
    except (ImageError, WeightsError) as error:
        why = str(error)
    if digest != known.digest:
        raise without_access(known.name, f"the worker {address}", why)


def without_access(name: str, worker: str, why: str) -> DeviceError:
    """Return the error for a worker that does not see the same files."""
    return DeviceError(
        f"{worker} does not see {shown(name)} as the process that sends it images ({why}); workers "
        "read the images themselves, so give paths of a file system that all of them share, under "
        "the same names"
    )


def contents(source: Source, folder: str = "") -> Contents:
    """Return the contents of an image file; a relative path begins in the folder."""
    found = source.open()
    return contents_of(found, folder) if isinstance(found, str) else found


def _opened(source: Source, folder: str, unread: list[int], number: int) -> Contents:
    """Return the contents of an image, and take note of one that cannot be opened."""
    try:
        return contents(source, folder)
    except ImageError:
        unread.append(number)
        raise
