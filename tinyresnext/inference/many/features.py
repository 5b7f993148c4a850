"""Write what a stage computes of images to an HDF5 file; a run that was killed can go on.

An HDF5 file that a killed process was writing cannot be read. So a run writes plain rows: the
values to ``FILE.part.rows``, and then for each image a line to the `journal`, with a checksum of
its values. The file is made of them when all are there.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ...data.trees.sources import Source
from ...errors import UsageError
from ...images.files import Contents
from ...images.prepare import views
from ...network.plan import chosen_stages
from ...store.contents import json_text
from ...store.digest import text_digest
from ...store.integers import value_of
from ...store.weights import digest_of
from ...system.checks import check_ending
from ...system.files import shown
from ...system.version import __version__
from ...system.writing import opened, present
from ..ensemble import Ensemble
from ..heads import check_finite
from ..model import Model
from .batches import batch_and_step, prepared, sources_of, worked
from .rows.assembled import assemble, check_whole
from .rows.forms import json_form
from .rows.journal import Journal, journal
from .rows.settings import as_json, computed_on
from .rows.stopped import changing

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["save_features"]

ENDINGS = (".h5", ".hdf5")
Group = list[tuple[str, np.ndarray | str]]  # of a mini-batch: names, and features or errors


def save_features(
    model: Model,
    paths: Iterable[str | os.PathLike[str] | Source],
    file: str | os.PathLike[str],
    stage: str = "pooled",
    *,
    batch: int | None = 8,
    fast: bool = False,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    force: bool = False,
    counts: dict[str, int] | None = None,
    client: Client | None = None,
) -> Iterator[tuple[str, str | None]]:
    """Write what a stage computes of image files to an HDF5 file, a mini-batch at a time.

    Its datasets are ``features``, float32 [n, ...], and ``paths``, [n] texts; its attributes
    ``stage``, ``architecture`` and ``preprocess`` say what was computed. An image that cannot be
    used is not in it. The file appears, whole, when the iterator has ended.

    Parameters
    ----------
    model : Model
    paths : iterable of path or Source
    file : path
        Its name ends in ``.h5`` or ``.hdf5``.
    stage : str
        As in `Model.features`.
    batch : int, optional
        The number of images in a mini-batch; None finds a good one on the processor, and is 64 on
        other devices, where values may depend on it.
    fast : bool
        Decode large JPEGs at a reduced size, as `tinyresnext.images.prepare.views` says.
    settings : mapping, optional
        What else the values depend on beside the version of this package, such as the digest of the
        model; without it, its weights, architecture, precision and device, and off the processor
        the size of mini-batches. If it is
        given, or with ``resume``, a run that is stopped leaves its rows, and can go on; otherwise
        nothing is left of it, unless another process has made the file meanwhile.
    resume : bool
        Go on with a run that was stopped, if there is one. Its settings have to be the same. If it
        computed on another kind of processor, a warning says so.
        Off the processor only whole mini-batches are kept.
    force : bool
        Write over a file of this name, and drop the rows of a run that was stopped.
    counts : dict, optional
        Receives how many images had a row ``before``, are ``done`` and ``failed``.
    client : dask.distributed.Client, optional
        Whose workers compute, as for `tinyresnext.inference.classify.classify`; this process writes
        the file.

    Yields
    ------
    (path, error)
        For each image that had no row yet; the error is None for one that is in the file.

    Raises
    ------
    UsageError
        At the first image: ``paths`` is one path, there is no such stage, the preprocessing does
        not fit the network, the file is there or cannot be written, its name ends otherwise, or
        the run cannot go on. Later: the disk is
        full, another process has made the file, or what should be a path is none.
    MachineError
        Later: storage or a network fails, or too many files are open, so that no image is to blame.
    DeviceError
        As for `tinyresnext.inference.classify.classify` with a ``client``.
    """
    check_ending(file, ENDINGS, "a file of features (HDF5)")
    chosen_stages(model.spec, [stage])
    model.check_pictures()
    shape = (1, model.preprocess.crop, model.preprocess.crop, model.spec.channels)
    one = model.features(np.zeros(shape, np.float32), [stage])[stage][0]
    path, rows, sources = os.fspath(file), f"{os.fspath(file)}.part.rows", sources_of(paths)
    asked = {"stage": stage, "preprocess": model.preprocess.to_json(), "fast_decode": fast}
    asked["version"] = __version__
    batch, step = batch_and_step(_device(model), batch)
    asked |= _computing(model, batch) if settings is None else as_json(settings)
    counts = {} if counts is None else counts
    if resume and present(path) and not present(f"{path}.part"):
        counts |= check_whole(path, asked, sources)
        return
    if not (resume or force) and present(path):
        raise UsageError(f"{shown(path)} exists; give another name, or force=True to write over it")
    present(rows)
    ends, stays, at = False, resume or settings is not None, [0]
    form = json_form(lambda row: _has_values(values, one.nbytes, at, row))
    place = computed_on(model.ops) if client is None else ""
    with (
        journal(path, asked, form, resume, force, stays, place) as kept,
        changing(opened(rows), path, stays) as values,  # while other processes are kept out
    ):
        try:
            remaining = _cut(values, kept, kept.remaining(sources, step), one.nbytes)
            work = partial(_computed, stage=stage, fast=fast)
            made = worked(work, Ensemble.of(model), remaining, batch, client, one.nbytes)
            with closing(made) as groups:
                for group in groups:
                    counts.setdefault("before", kept.done)
                    _add(group, kept, values)
                    yield from ((name, x if isinstance(x, str) else None) for name, x in group)
            kept.sync()
            counts |= {"done": kept.done, "failed": kept.failed}
            attributes: dict[str, Any] = {"stage": stage, "architecture": model.spec.name}
            attributes["preprocess"] = json.dumps(model.preprocess.to_json())
            attributes["settings"] = json.dumps(asked)
            attributes |= {"images": kept.done, "failed": kept.failed}
            with kept.writing() if stays else nullcontext():
                assemble(path, kept, values, one.shape, attributes)
            ends = True
        finally:
            if ends or not kept.stays:
                if sys.platform == "win32":  # no open file can be removed there
                    with suppress(OSError):
                        values.close()
                with suppress(FileNotFoundError):
                    os.unlink(rows)
                kept.drop()


def _device(model: Model) -> str:
    """Return the device of a model; GPUs of one machine are taken as alike."""
    return model.ops.__name__.rpartition(".")[2].partition(":")[0]


def _computing(model: Model, batch: int | None) -> dict[str, Any]:
    """Return what the values depend on: the model, and where it computes."""
    found: dict[str, Any] = {"precision": model.precision, "device": _device(model)}
    found["spec"] = model.spec.to_json()
    if found["device"] != "cpu":  # as `batch_and_step` says
        found["batch"] = batch
    if model.quantisation is not None:  # the scales of values are not among the weights
        found["quantisation"] = text_digest(json_text(value_of(model.quantisation)))
    return found | {"weights": digest_of(model.params)}


def _cut(values: BinaryIO, kept: Journal, sources: Iterator[Source], size: int) -> Iterator[Source]:
    """Yield the images without a row; before the first, cut off values that have none."""
    for number, source in enumerate(sources):
        if not number:
            with kept.writing():
                values.truncate(end := (kept.done - kept.failed) * size)
                values.seek(end)
        yield source


def _see(model: Model, fast: bool, image: str | Contents) -> np.ndarray:
    """Return one image as the network takes it."""
    [x] = views(image, model.preprocess, fast=fast)
    found: np.ndarray = x
    return found


def _computed(
    model: Ensemble,
    sources: Iterable[Source],
    batch: int | None,
    loaders: int,
    *,
    stage: str,
    fast: bool,
) -> Generator[Group, None, None]:
    """Yield mini-batches."""
    [one] = model.models
    with closing(prepared(sources, partial(_see, one, fast), batch, loaders)) as groups:
        for group in groups:
            good = [x for _, x in group if not isinstance(x, str)]
            found = iter(one.features(np.stack(good), [stage])[stage] if good else ())
            yield [(name, x if isinstance(x, str) else next(found)) for name, x in group]


def _add(group: Group, kept: Journal, values: BinaryIO) -> None:
    """Write the features of a mini-batch, values first."""
    lines = []
    for name, features in group:
        row: dict[str, Any] = {"path": name}
        if isinstance(features, str):
            row["error"] = features
        else:
            check_finite(features)
            data = features.astype("<f4").tobytes()
            with kept.writing():
                values.write(data)
            row["crc32"] = zlib.crc32(data)
        lines.append((json.dumps(row).encode() + b"\n", row.get("error")))
    with kept.writing():
        values.flush()
    for line, error in lines:
        kept.write(line, error)
    kept.flush()


def _has_values(values: BinaryIO, size: int, place: list[int], row: dict[str, Any]) -> bool:
    """Return whether the values of a row are on the disk, one row after the other."""
    if row.get("error") is not None:
        return True
    values.seek(place[0])
    data = values.read(size)
    right = len(data) == size and zlib.crc32(data) == row.get("crc32")
    if right:
        place[0] += size
    else:
        values.seek(place[0])
    return right
