"""Write what a stage computes of images to an HDF5 file; a run that was killed can go on.

An HDF5 file that a killed process was writing cannot be read. So a run writes plain rows: the
values to ``FILE.part.rows``, and then for each image a line to the `journal`, with a checksum of
its values. The file is made of them when all are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
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
from ...system.files import regular, shown
from ...system.writing import opened, present, replacing
from ..ensemble import Ensemble
from ..heads import check_finite
from ..model import Model
from .batches import prepared, sources_of, worked
from .journal import Journal, dropped, journal, json_form, records

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["save_features"]

Group = list[tuple[str, np.ndarray | str]]  # of a mini-batch: names, and features or errors
CHUNK = 256 * 2**10  # bytes of a file of features that are read together
_NAMES = "images_sha256"  # of the names of all images, also of those that cannot be used


def save_features(
    model: Model,
    paths: Iterable[str | Source],
    file: str | os.PathLike[str],
    stage: str = "pooled",
    *,
    batch: int | None = 8,
    fast: bool = False,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    force: bool = True,
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
    paths : iterable of str or Source
    file : path
    stage : str
        As in `Model.features`.
    batch : int, optional
        The number of images in a mini-batch; None finds a good one.
    fast : bool
        Decode large JPEGs at a reduced size, as `tinyresnext.images.prepare.views` says.
    settings : mapping, optional
        What else the values depend on, such as the digest of the model; without it, its weights,
        architecture, precision and device. If it is given, a run that is stopped leaves its rows,
        and can go on; otherwise nothing is left of it.
    resume : bool
        Go on with a run that was stopped, if there is one. Its settings have to be the same.
    force : bool
        Drop the rows of a run that was stopped.
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
        At the first image: there is no such stage, the preprocessing does not fit the network, the
        file cannot be written, or the run cannot go on.
    DeviceError
        As for `tinyresnext.inference.classify.classify` with a ``client``.
    """
    chosen_stages(model.spec, [stage])
    model.check_pictures()
    shape = (1, model.preprocess.crop, model.preprocess.crop, model.spec.channels)
    one = model.features(np.zeros(shape, np.float32), [stage])[stage][0]
    path, rows = os.fspath(file), f"{os.fspath(file)}.part.rows"
    asked = {"stage": stage, "preprocess": model.preprocess.to_json(), "fast_decode": fast}
    asked |= _computing(model) if settings is None else dict(settings)
    counts = {} if counts is None else counts
    if resume and present(path) and not present(f"{path}.part"):
        counts |= _check_whole(path, asked, sources_of(paths))
        return
    present(rows)
    ends = False
    with opened(rows) as values:
        place = [0]
        form = json_form(partial(_has_values, values, one.nbytes, place))
        with journal(path, asked, form, resume, force) as kept:
            try:
                ends = settings is None
                remaining = _cut(values, place, kept.remaining(sources_of(paths)))
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
                with nullcontext() if ends else _resumable(rows):
                    _assemble(path, values, one.shape, attributes)
                ends = True
            finally:
                if ends:
                    dropped(path)
                    with suppress(FileNotFoundError):
                        os.unlink(rows)


def _computing(model: Model) -> dict[str, Any]:
    """Return what the values depend on of a model; GPUs of one machine are taken as alike."""
    device = model.ops.__name__.rpartition(".")[2].partition(":")[0]
    found = {"precision": model.precision, "device": device, "spec": model.spec.to_json()}
    if model.quantisation is not None:  # the scales of values are not among the weights
        found["quantisation"] = text_digest(json_text(value_of(model.quantisation)))
    return found | {"weights": digest_of(model.params)}


def _cut(values: BinaryIO, place: list[int], sources: Iterator[Source]) -> Iterator[Source]:
    """Yield the images without a row; before the first, cut off values that have none."""
    for number, source in enumerate(sources):
        if not number:
            values.truncate(place[0])
            values.seek(place[0])
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
            values.write(data)
            row["crc32"] = zlib.crc32(data)
        lines.append((json.dumps(row).encode() + b"\n", row.get("error")))
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


@contextmanager
def _resumable(rows: str) -> Iterator[None]:
    """Say how to go on, if the file cannot be written in the ``with`` block."""
    try:
        yield
    except UsageError as error:
        raise UsageError(
            f"{error}; {shown(rows)} has all values, so that the run can be resumed (--resume)"
        ) from error


def _assemble(
    path: str, values: BinaryIO, shape: tuple[int, ...], attributes: Mapping[str, Any]
) -> None:
    """Write the HDF5 file from the rows of the run."""
    import h5py

    size = 4 * int(np.prod(shape))
    with regular(f"{path}.part") as file:
        every = (json.loads(record) for record, _ in records(file))
        count = sum("error" not in row for row in every)
        digest = hashlib.sha256()
        # `replacing` holds a lock of its own on the file.
        with replacing(path) as temporary, h5py.File(temporary, "w", locking=False) as out:
            names = out.create_dataset("paths", (count,), h5py.string_dtype("utf-8"))
            chunk = max(1, CHUNK // size)
            rows = out.create_dataset(
                "features",
                (count, *shape),
                "f4",
                maxshape=(None, *shape),
                chunks=(chunk, *shape),
            )
            values.seek(0)
            block: list[bytes] = []
            first = 0
            for record, _ in records(file):
                row = json.loads(record)
                digest.update(json.dumps(row["path"]).encode() + b"\n")
                if "error" not in row:
                    block.append(os.fsencode(row["path"]))
                if len(block) == chunk or (block and first + len(block) == count):
                    data = np.frombuffer(values.read(len(block) * size), "<f4")
                    names[first : first + len(block)] = block
                    rows[first : first + len(block)] = data.reshape(len(block), *shape)
                    first, block = first + len(block), []
            out.attrs.update({**attributes, _NAMES: digest.hexdigest()})


def _check_whole(path: str, asked: Mapping[str, Any], sources: Iterable[Source]) -> dict[str, int]:
    """Return the counts of a file, if it is what this run would make.

    Raises
    ------
    UsageError
        It is not.
    """
    import h5py

    try:
        with regular(path) as file, h5py.File(file, "r") as found:
            settings = json.loads(found.attrs["settings"])
            names = found.attrs[_NAMES]
            images, failed = int(found.attrs["images"]), int(found.attrs["failed"])
    except (OSError, KeyError, ValueError, TypeError):
        settings, names, images, failed = None, None, 0, 0
    digest = hashlib.sha256()
    for source in sources:
        digest.update(json.dumps(source.name).encode() + b"\n")
    if settings != json.loads(json.dumps(dict(asked))) or names != digest.hexdigest():
        raise UsageError(
            f"{shown(path)} is whole, and was made of other images or with other settings; give "
            "another name, or --force to write over it"
        )
    return {"before": images, "done": images, "failed": failed}
