"""A network with its weights, its labels and its way of looking at pictures: what `load` gives and people use."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..checkpoints.convert import opened_checkpoint
from ..errors import IntegrityError, UsageError
from ..hub import catalogue
from ..hub.bundled import shipped_model
from ..hub.catalogue import model_file
from ..images.decode import Picture
from ..images.prepare import prepare
from ..images.preprocess import Preprocess
from ..network.plan import Plan, Program, program
from ..network.resnext import forward
from ..network.spec import VARIANTS, Spec
from ..ops import backend
from ..store import store

PLANS_KEPT = 2  # one for whole batches, one for the rest of the last


class Prediction(NamedTuple):
    """One guess: the class's name, its number, and how sure the network is."""

    label: str
    index: int  # type: ignore[assignment]  # a field may hide the method of tuples
    probability: float


@dataclass(eq=False, repr=False)
class Model:
    """A network that can be called.

    Parameters
    ----------
    spec : Spec
    params : mapping of str to array
        float32, named and shaped as `tinyresnext.network.resnext.parameters` says.
    preprocess : Preprocess
    labels : tuple of str
        One for each class.
    provenance : dict of str to str
        Where the weights come from, and under which licence.
    ops : backend module
        Who computes; `load` chooses it by the name of a device.
    threads : int, optional
        How many to compute on; by default, as many cores as this process may use.
    """

    spec: Spec
    params: Mapping[str, np.ndarray]
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]
    ops: Any
    threads: int | None = None
    _program: Program | None = None
    _plans: OrderedDict[tuple[int, ...], Plan] = field(default_factory=OrderedDict)
    _lock: Any = field(default_factory=threading.Lock)

    def __repr__(self) -> str:
        values = sum(value.size for value in self.params.values())
        return f"Model({self.spec.name}, {self.spec.classes} classes, {values:,} values, {self.ops.__name__})"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Logits of normalised pictures.

        Parameters
        ----------
        x : [n, h, w, channels] float32
            What `tinyresnext.prepare` makes; any size that leaves something after
            the last stage.

        Returns
        -------
        [n, classes] float32

        Raises
        ------
        UsageError
            When ``x`` is something else.
        """
        x = self._checked(x)
        if len(x) == 0:
            return np.empty((0, self.spec.classes), np.float32)
        return self.plan(x.shape)(x)

    def predict(
        self, images: Picture | Sequence[Picture], top: int = 5, batch: int = 8
    ) -> list[list[Prediction]]:
        """Decode, resize, crop, normalise, run and rank.

        Parameters
        ----------
        images : picture or sequence of pictures
            Paths, PIL images or uint8 arrays [h, w, 3].
        top : int
            How many classes for each picture, the likeliest first.
        batch : int
            How many pictures go through the network together.

        Returns
        -------
        list of list of Prediction
            One list for each picture.

        Raises
        ------
        ImageError
            When a picture cannot be used; `tinyresnext.inference.classify` goes on with the others
            instead.
        """
        if isinstance(images, (str, os.PathLike, Image.Image)) or (
            isinstance(images, np.ndarray) and images.ndim < 4
        ):
            images = [images]
        for name, value in (("top", top), ("batch", batch)):
            if value < 1:
                raise UsageError(f"{name} is {value}: expected at least 1")
        self.check_pictures()
        found: list[list[Prediction]] = []
        for start in range(0, len(images), batch):
            x = np.stack(
                [prepare(image, self.preprocess) for image in images[start : start + batch]]
            )
            found += self.rank(self(x), top)
        return found

    def check_pictures(self) -> None:
        """Raise a `UsageError` when the preprocessing makes other pictures than the network takes."""
        if self.preprocess.channels != self.spec.channels:
            raise UsageError(
                f"the network takes {self.spec.channels} channels and the preprocessing makes {self.preprocess.channels}; "
                "call the model with an array of your own, or convert it with --mean and --std of one or three channels"
            )

    def rank(self, logits: np.ndarray, top: int = 5) -> list[list[Prediction]]:
        """The likeliest classes of each row of logits [n, classes]; of equals, the one with the smaller number first.

        Raises
        ------
        IntegrityError
            When logits are not finite: then the weights make the network overflow.
        """
        if not np.isfinite(logits).all():
            raise IntegrityError(
                "the network's logits are not finite: its weights make it overflow; use other weights"
            )
        ranked = []
        on_device = self.ops.upload(np.ascontiguousarray(logits, np.float32))
        for row in self.ops.download(self.ops.softmax(on_device)):
            best = np.argsort(-row, kind="stable")[:top]
            ranked.append([Prediction(self.labels[i], int(i), float(row[i])) for i in best])
        return ranked

    def features(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """What each stage makes of normalised pictures: a detector's backbone.

        Returns
        -------
        dict
            ``stem``, ``layer1``, ``layer2`` ... as [n, h, w, c], and ``pooled`` as [n, c].
        """
        names = {"stem", "pooled", *(f"layer{stage + 1}" for stage in range(len(self.spec.blocks)))}
        return {name: value for name, value in self.trace(x).items() if name in names}

    def trace(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every value on the way, under torchvision's name for it, computed op by op with nothing fused.

        Returns
        -------
        dict
            ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``stem``, ``layer1.0.conv1`` ... ``fc``.
        """
        found: dict[str, np.ndarray] = {}

        def at(name: str, value: Any) -> Any:
            found[name] = np.asarray(self.ops.download(value))
            return value

        params = {name: self.ops.upload(value) for name, value in self.params.items()}
        with self.ops.on_threads(self.ops.thread_count(self.threads)):
            self._try(
                lambda: forward(
                    params, self.spec, self.ops.upload(self._checked(x)), self.ops, at=at
                )
            )
        return found

    def plan(self, x_shape: Sequence[int]) -> Plan:
        """The fused steps for one input shape: ``print`` it, call it, ``profile`` it. The last few are kept."""
        shape, threads = tuple(x_shape), self.ops.thread_count(self.threads)
        with self._lock:
            if self._program is None:
                self._program = program(self.params, self.spec, self.ops)
            made = self._plans.pop(shape, None) or self._try(
                lambda: Plan(self._program, shape, self.ops, threads=threads)
            )
            self._plans[shape] = made
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
            return made

    def _checked(self, x: Any) -> np.ndarray:
        """The input, when it is what the network takes."""
        if (
            not isinstance(x, np.ndarray)
            or x.dtype != np.float32
            or x.ndim != 4
            or x.shape[3] != self.spec.channels
        ):
            found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise UsageError(
                f"the input is {found}, expected a float32 array [n, h, w, {self.spec.channels}] of normalised pictures; "
                "tinyresnext.prepare makes them, and model.predict takes pictures as they are"
            )
        return np.ascontiguousarray(x)

    @staticmethod
    def _try(run: Any) -> Any:
        """The ops speak in ValueErrors about shapes: here, the caller's input is what does not fit."""
        try:
            return run()
        except ValueError as error:
            raise UsageError(f"the network cannot take an input of this shape: {error}") from error


def load(
    name: str | os.PathLike[str] | None = None, device: str = "cpu", threads: int | None = None
) -> Model:
    """Read a model file.

    Parameters
    ----------
    name : str or path, optional
        A file that `save` or ``tinyresnext convert`` wrote, or the name of a model that
        ``tinyresnext pull`` fetched, such as ``resnext50_32x4d.a1h_in1k``; by default the model
        that comes with tinyresnext.
    device : {"cpu", "auto", "reference"}
        ``reference`` computes with plain NumPy.
    threads : int, optional
        How many to compute on; by default, as many cores as this process may use (affinity and
        quota).

    Raises
    ------
    WeightsError
        When the file is not there or cannot be used.
    UsageError
        When the name is that of a model that is not here, or there cannot be so many threads.
    DeviceError
        When the device is not there.
    """
    ops = backend(device)
    if name is None:
        name = shipped_model()
    count = ops.thread_count(threads)
    return Model(*store.read(model_file(name)), ops, count)


def load_checkpoint(
    path: str | os.PathLike[str],
    arch: str | Spec | None = None,
    device: str = "cpu",
    *,
    stem: str | None = None,
) -> Model:
    """Any supported foreign file -> a model, without writing anything. Parameters and errors as in `opened_checkpoint`."""
    ops = backend(device)
    with opened_checkpoint(path, arch=arch, stem=stem) as (stored, _):
        return Model(*stored._replace(params=dict(stored.params)), ops)


def save(model: Model, path: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write one self-contained HDF5 file: weights, architecture, labels, preprocessing and provenance.

    Parameters
    ----------
    model : Model
    path : path
    half : bool
        Keep the weights of convolutions and of the classifier in half precision: the file is half
        as large, and its predictions are those of the rounded weights.
    """
    contents = store.Stored(
        model.spec, dict(model.params), model.preprocess, model.labels, model.provenance
    )
    store.write(path, contents, half=half)


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a pattern such as ``resnext50*``: of the known architectures, then of the published models."""
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern)] + catalogue.names(
        pattern
    )
