"""A model as a function from columns to columns, for engines that pass batches between processes.

Ray Data's ``map_batches`` and Dask's ``map`` send such a function to other processes. It has to be
small there and to load the model once in each of them.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import ImageError, UsageError
from ...hub.catalogue import model_file
from ...images.checks import whole_number
from ...system.files import shown
from ...system.threads import OwnLock
from ..ensemble import Ensemble
from ..files import load
from ..heads import check_head
from ..model import Model
from .batches import grouped

__all__ = ["Bytes", "Predictor"]

_COLUMNS = ("image", "bytes", "path")  # the first of these that is there has the images
_KEPT = 2  # models that a process keeps besides those of the predictors that it has
_MOST_CHANNELS = 4  # of one image
_loading = OwnLock()  # threads of one process load a model once


class Predictor:
    """A model that takes and returns columns, and can be sent to other processes.

    A pickle of it has what it was made of: the name of the model, a few hundred bytes, or the bytes
    of its file. The process that unpickles it loads the model at the first call; it keeps the model
    as long as the predictor, and the last two for others that are made in the same way. As every
    pickle, it is to be loaded only from those whom one would let run a program.

    Parameters
    ----------
    model : str, path, bytes or Model, optional
        The name of a model or of a model file, which every process finds under that name; the bytes
        of a model file, for processes on machines that do not have it; or a model that is loaded,
        whose pickle has all its weights. By default the bundled model.
    device, threads, precision
        As for `tinyresnext.load`. By default, each process takes one thread for each core that it
        may use.
    top : int
        The number of classes for each image, the most probable first.
    batch : int
        The number of images that go through the network together.

    Raises
    ------
    UsageError
        There is no such model, or ``top`` or ``batch`` is no whole number from 1.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | Model | None = None,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "float32",
        *,
        top: int = 5,
        batch: int = 8,
    ) -> None:
        self._top, self._batch = whole_number("top", top, 1), whole_number("batch", batch, 1)
        self._how = (device, threads, precision)
        if isinstance(model, Model):
            if self._how != ("cpu", None, "float32"):
                raise UsageError(
                    "a model that is loaded has its device, threads and precision; give them to "
                    "tinyresnext.load, or give the name of the model here"
                )
        elif isinstance(model, bytes):
            self._digest = hashlib.sha256(model).hexdigest()
        elif model is not None:
            if not isinstance(model, (str, os.PathLike)):
                raise UsageError(
                    f"a model was expected, found {type(model).__name__}; give its name, a path, "
                    "the bytes of its file, or what tinyresnext.load returns"
                )
            model_file(model)
            model = os.fspath(model)
        self._model = model

    _own: tuple[tuple[int, ...], Ensemble] | None = None  # of which version, and the model

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle has: not the model that was loaded."""
        return {name: value for name, value in vars(self).items() if name != "_own"}

    def __repr__(self) -> str:
        of = f"{len(self._model):,} bytes" if isinstance(self._model, bytes) else repr(self._model)
        return f"Predictor({of})"

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict the classes of images.

        Parameters
        ----------
        batch : mapping of str to array
            Columns of one length. The images are in ``image`` (uint8 [n, h, w, c], or [n, h, w] if
            they are grey, or objects: an array of any size, or a Pillow image, in each), or else in
            ``bytes`` (contents of image files), or else in ``path``.

        Returns
        -------
        dict of str to array
            The columns of the batch but ``image`` and ``bytes``; ``error``, empty for an image that
            could be used; and for each rank, as in the tables of ``tinyresnext classify``,
            ``label1``, ``index1`` and ``probability1``, ``label2`` ... For an image that could not
            be used these are empty, -1 and NaN.

        Raises
        ------
        UsageError
            The batch has none of these columns, one with another type or length, or one that would
            be written over.
        """
        images = _images(batch)
        model = self._loaded()
        check_head(model.spec)
        model.check_pictures()
        top = min(self._top, model.spec.labels)
        found: list[tuple[str, list[tuple[str, int, float]]]] = []

        def make(image: Any) -> Any:
            try:
                return model.prepare(image)
            except (ImageError, UsageError) as error:
                return str(error)

        for group in grouped(make, images, self._batch, model.loaders):
            good = [x for x in group if not isinstance(x, str)]
            ranked = iter(model.rank(model(good), top) if good else [])
            missing = [("", -1, float("nan"))] * top
            for x in group:
                found.append((x, missing) if isinstance(x, str) else ("", list(next(ranked))))
        columns = {key: value for key, value in batch.items() if key not in ("image", "bytes")}
        added = {"error": np.array([error for error, _ in found], dtype=object)}
        for rank in range(top):
            added[f"label{rank + 1}"] = np.array([row[rank][0] for _, row in found], dtype=object)
            added[f"index{rank + 1}"] = np.array([row[rank][1] for _, row in found], np.int64)
            values = [row[rank][2] for _, row in found]
            added[f"probability{rank + 1}"] = np.array(values, np.float32)
        if twice := sorted(columns.keys() & added.keys()):
            raise UsageError(
                f"the batch has a column called {twice[0]!r}, which the predictions would write "
                "over; rename it"
            )
        return columns | added

    def _loaded(self) -> Ensemble:
        """Return the model, which is loaded once for each version of its file."""
        if isinstance(self._model, Model):
            return Ensemble.of(self._model)
        version = () if isinstance(self._model, bytes) else _version(self._model)
        own = self._own
        if own is None or own[0] != version:
            with _loading.here():
                if isinstance(self._model, bytes):
                    model = _from_bytes(Bytes(self._digest, self._model), *self._how)
                else:
                    model = _from_file(self._model, version, *self._how)
            own = self._own = version, model
        return own[1]


class Bytes:
    """Bytes that are equal to others by their digest, such as those of a model file."""

    def __init__(self, digest: str, data: bytes) -> None:
        self.digest, self.data = digest, data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bytes) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=_KEPT)
def _from_bytes(contents: Bytes, device: str, threads: int | None, precision: str) -> Ensemble:
    """Return the model in the bytes of a file; its weights stay in memory, since no file has them.

    A prediction that has no memory may have let go of some, and the next one needs them.
    """
    with tempfile.TemporaryDirectory(prefix="tinyresnext-") as folder:
        path = Path(folder) / "model.h5"
        path.write_bytes(contents.data)
        model = load(path, device, threads, precision)
        model.params = dict(model.params)
        return Ensemble.of(model)


@lru_cache(maxsize=_KEPT)
def _from_file(
    name: str | None, version: tuple[int, ...], device: str, threads: int | None, precision: str
) -> Ensemble:
    """Return the model of a name, in the version that its file has now."""
    return Ensemble.of(load(name, device, threads, precision))


def _version(name: str | None) -> tuple[int, ...]:
    """Return what changes when another file gets the name of a model."""
    if name is None:
        return ()
    try:
        status = os.stat(model_file(name))
    except OSError:  # the reader says what is wrong
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _images(batch: Mapping[str, np.ndarray]) -> list[Any]:
    """Return the images of a batch.

    Raises
    ------
    UsageError
        There is none, or it has another type, or another column is longer or shorter.
    """
    name = next((one for one in _COLUMNS if one in batch), None)
    if name is None:
        found = ", ".join(map(repr, batch)) or "no columns"
        raise UsageError(
            f"the batch has {found:.300}; expected a column image (uint8 arrays), bytes (contents "
            "of image files) or path"
        )
    values = np.asarray(batch[name]) if name == "path" else _column(batch[name])
    if name == "image":
        # [h, w, 3] is one image of colours, and not h grey ones.
        images = values.ndim == 4 or (values.ndim == 3 and values.shape[-1] > _MOST_CHANNELS)
        right = values.dtype == object or (values.dtype == np.uint8 and images)
    else:
        right = values.ndim == 1 and values.dtype.kind in ("OS" if name == "bytes" else "OSU")
    if not values.ndim or (len(values) and not right):
        raise UsageError(
            f"the column {shown(name)} is {values.dtype} {list(values.shape)}; expected "
            + ("uint8 [n, h, w, c], or [n, h, w]" if name == "image" else "one object an image")
        )
    lengths = {key: len(column) for key, column in batch.items()}
    if other := next((key for key in lengths if lengths[key] != len(values)), None):
        raise UsageError(
            f"the column {shown(name)} has {len(values)} values, and {shown(other)} "
            f"{lengths[other]}; expected columns of one length"
        )
    if values.dtype.kind == "S" and name == "path":
        return [os.fsdecode(one) for one in values]
    return [_contents(one) for one in values] if name == "bytes" else list(values)


def _column(values: Any) -> np.ndarray:
    """Return a column as an array; NumPy would take the pixels of Pillow images out of a list."""
    kinds = bytes, bytearray, Image.Image
    if not isinstance(values, list | tuple) or not any(isinstance(one, kinds) for one in values):
        with suppress(ValueError):  # arrays of several sizes make no array: each is an object
            return np.asarray(values)
    found = np.empty(len(values), object)
    for number, one in enumerate(values):
        found[number] = one
    return found


def _contents(value: Any) -> bytes | None:
    """Return the contents of an image file; None, which is no image, for a value that is missing.

    Raises
    ------
    UsageError
        It is something else, such as the name of a file.
    """
    missing = value is None or (isinstance(value, float) and math.isnan(value))  # pandas' NaN
    if missing or isinstance(value, bytes | bytearray | memoryview):
        return None if missing else bytes(value)
    raise UsageError(
        f"the column bytes has an object of type {type(value).__name__}; expected the contents of "
        "image files, or None for one that is missing"
    )
