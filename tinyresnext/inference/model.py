"""A network with its weights, its labels and its preprocessing: what `load` returns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..errors import IntegrityError, UsageError
from ..images.checks import whole_number
from ..images.decode import Picture
from ..images.prepare import prepare
from ..images.preprocess import Preprocess
from ..network.plan import Plan, Program, program
from ..network.resnext import forward
from ..network.spec import Spec
from ..ops import Backend, backend_module
from .inputs import each_image

PLANS_KEPT = 2  # one for whole mini-batches, one for the smaller last one


class Prediction(NamedTuple):
    """One predicted class: its name, its number and its probability."""

    label: str
    index: int  # type: ignore[assignment]  # a field may hide the method of tuples
    probability: float


@dataclass(eq=False, repr=False)
class Model:
    """A network that can be called.

    It can be copied and pickled, so also be sent to another process: the copy has the same
    weights, names its backend, and makes plans of its own. As every pickle, that of a model is to
    be loaded only from those whom one would let run a program; `load` reads model files safely.

    Parameters
    ----------
    spec : Spec
    params : mapping of str to array
        float32, with the names and shapes of `tinyresnext.network.resnext.parameters`.
    preprocess : Preprocess
    labels : tuple of str
        The name of each class.
    provenance : dict of str to str
        Where the weights come from, and under which licence.
    ops : Backend
        The backend that computes; `load` chooses it by the name of a device.
    threads : int, optional
        The number of threads to compute on; by default, one for each core that this process may
        use.
    """

    spec: Spec
    params: Mapping[str, np.ndarray]
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]
    ops: Backend
    threads: int | None = None
    _program: Program | None = field(default=None, init=False)
    _plans: OrderedDict[tuple[int, ...], Plan] = field(default_factory=OrderedDict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle has: the fields, and instead of the backend its name."""
        made = ("_program", "_plans", "_lock")  # a copy makes these anew
        state = {name: value for name, value in vars(self).items() if name not in made}
        state["params"] = dict(self.params)
        if isinstance(self.ops, ModuleType):
            state["ops"] = self.ops.__name__
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        ops = state["ops"]
        if isinstance(ops, str):
            state = state | {"ops": backend_module(ops)}
        vars(self).update(state, _program=None, _plans=OrderedDict(), _lock=threading.Lock())

    def __repr__(self) -> str:
        values = sum(value.size for value in self.params.values())
        return (
            f"Model({self.spec.name}, {self.spec.classes} classes, {values:,} values, "
            f"{self.ops.__name__})"
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Compute the logits of normalised images.

        Parameters
        ----------
        x : [n, h, w, channels] float32
            Images as `tinyresnext.prepare` makes them, of any size that leaves something after the
            last stage.

        Returns
        -------
        [n, classes] float32
            The pooled features [n, features] if the network has no classifier.

        Raises
        ------
        UsageError
            ``x`` is something else.
        """
        x = self._checked(x)
        if len(x) == 0:
            return np.empty((0, self.spec.outputs), np.float32)
        return self.plan(x.shape)(x)

    def predict(
        self, images: Picture | Iterable[Picture], top: int = 5, batch: int = 8
    ) -> list[list[Prediction]]:
        """Prepare images, compute their logits and rank the classes.

        Parameters
        ----------
        images : image or iterable of images
            Paths, Pillow images, uint8 arrays (colour [h, w, 3], grey or RGBA), or the contents of
            image files: bytes, or files that are open in binary mode. Of an iterable, such as a
            list or a generator, ``batch`` images are taken at a time.
        top : int
            The number of classes to return for each image, the most probable first.
        batch : int
            The number of images in a mini-batch.

        Returns
        -------
        list of list of Prediction
            One list for each image.

        Raises
        ------
        ImageError
            An image cannot be used. `tinyresnext.inference.classify` skips such images instead.
        UsageError
            ``images`` is something else, ``top`` or ``batch`` is less than 1, or the network
            has fewer than two classes, or other channels than the preprocessing makes.
        """
        whole_number("top", top, 1)
        size = whole_number("batch", batch, 1)
        check_classes(self.spec.classes)
        self.check_pictures()
        remaining, found = each_image(images), list[list[Prediction]]()
        while group := list(islice(remaining, size)):
            x = np.stack([prepare(image, self.preprocess) for image in group])
            found += self.rank(self(x), top)
        return found

    def check_pictures(self) -> None:
        """Raise `UsageError` if the preprocessed images do not have the network's channels."""
        if self.preprocess.channels != self.spec.channels:
            raise UsageError(
                f"the network takes {self.spec.channels} channels and the preprocessing makes "
                f"{self.preprocess.channels}; call the model with an array of your own, or convert "
                "it with --mean and --std of one or three channels"
            )

    def rank(self, logits: np.ndarray, top: int = 5) -> list[list[Prediction]]:
        """Return the most probable classes of each row of logits [n, classes].

        Of classes with equal probabilities, the one with the smaller number comes first.

        Raises
        ------
        IntegrityError
            Logits are not finite.
        UsageError
            The network has a single class.
        """
        check_classes(self.spec.classes)
        check_finite(logits)
        ranked = []
        on_device = self.ops.upload(np.ascontiguousarray(logits, np.float32))
        for row in self.ops.download(self.ops.softmax(on_device)):
            best = np.argsort(-row, kind="stable")[:top]
            ranked.append([Prediction(self.labels[i], int(i), float(row[i])) for i in best])
        return ranked

    def features(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the output of each stage for normalised images, as a detector's backbone.

        Returns
        -------
        dict
            ``stem``, ``layer1``, ``layer2`` ... as [n, h, w, c], and ``pooled`` as [n, c].
        """
        names = {"stem", "pooled", *(f"layer{stage + 1}" for stage in range(len(self.spec.blocks)))}
        return {name: value for name, value in self.trace(x).items() if name in names}

    def trace(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Compute every intermediate value, op by op with nothing fused, under torchvision's names.

        Returns
        -------
        dict
            ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``stem``, ``layer1.0.conv1`` ... ``fc``.
        """
        found: dict[str, np.ndarray] = {}

        def at(name: str, value: Any) -> Any:
            found[name] = np.asarray(self.ops.download(value))
            return value

        x = self._checked(x)
        params = {name: self.ops.upload(value) for name, value in self.params.items()}
        with self.ops.on_threads(self.ops.thread_count(self.threads)), shapes_that_fit():
            forward(params, self.spec, self.ops.upload(x), self.ops, at=at)
        return found

    def plan(self, x_shape: Sequence[int]) -> Plan:
        """Return the fused steps for one input shape; ``print`` it, call it or ``profile`` it.

        The plans of the last `PLANS_KEPT` shapes are kept.

        Raises
        ------
        UsageError
            The network leaves nothing of an image of that size.
        """
        shape, threads = tuple(x_shape), self.ops.thread_count(self.threads)
        with self._lock:
            if self._program is None:
                self._program = program(self.params, self.spec, self.ops)
            made = self._plans.pop(shape, None)
            if made is None:
                with shapes_that_fit():
                    made = Plan(self._program, shape, self.ops, threads=threads)
            self._plans[shape] = made
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
            return made

    def _checked(self, x: Any) -> np.ndarray:
        """Return the input in C order, if its dtype and shape are what the network takes."""
        if (
            not isinstance(x, np.ndarray)
            or x.dtype != np.float32
            or x.ndim != 4
            or x.shape[3] != self.spec.channels
        ):
            found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise UsageError(
                f"the input is {found}, expected a float32 array [n, h, w, {self.spec.channels}] "
                "of normalised images; tinyresnext.prepare makes them, and model.predict takes "
                "image files and Pillow images"
            )
        return np.ascontiguousarray(x)


def check_classes(count: int) -> None:
    """Raise `UsageError` unless there are classes to tell apart.

    A single class has 100 % under a softmax, whatever is seen.
    """
    if count == 0:
        raise UsageError(
            "the network has no classifier, so it names no classes; `tinyresnext finetune` gives "
            "it one for your images, and model.features(x) returns what it computes"
        )
    if count < 2:
        raise UsageError(
            "the network has a single output, and one class means nothing under a softmax: it "
            "would have 100 % for every image; if the network was trained with a sigmoid, "
            "1 / (1 + exp(-logit)) is its probability, and model(x) returns the logit; else use a "
            "model of at least two classes"
        )


def check_finite(logits: np.ndarray) -> None:
    """Raise `IntegrityError` if a logit is not finite."""
    if not np.isfinite(logits).all():
        raise IntegrityError(
            "the network's logits are not finite: its weights make it overflow; use other weights"
        )


@contextmanager
def shapes_that_fit() -> Iterator[None]:
    """Raise `UsageError` if an op in the ``with`` block refuses a shape: the caller chose it."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"the network cannot take an input of this shape: {error}") from error
