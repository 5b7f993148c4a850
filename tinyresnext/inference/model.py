"""A network with its weights, its labels and its preprocessing: what `load` returns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from math import prod
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from ..errors import UsageError
from ..images.decode import Picture
from ..images.preprocess import Preprocess
from ..network.buffers import with_room
from ..network.plan import Plan, Program, Quantisation, chosen_stages, planned, program
from ..network.resnext import forward, parameters
from ..network.spec import Spec
from ..ops import Backend, backend_module
from ..store.weights import Weights, released
from ..system.threads import OwnLock
from .heads import Prediction, check_ranking, check_rows, chosen, sigmoid
from .inputs import check_not_quantised, check_precision, checked, complete, kept, shapes_that_fit

Made = TypeVar("Made")
PLANS_KEPT = 2  # one for whole mini-batches, one for the smaller last one


@dataclass(eq=False, repr=False)
class Model:
    """A network that can be called.

    It can be copied and pickled: the copy has the same weights, names its backend, and makes plans
    of its own. Unpickle only what comes from whom one would let run a program; `load` is safe.

    Parameters
    ----------
    spec : Spec
    params : mapping of str to array
        float32, with the names and shapes of `tinyresnext.network.resnext.parameters`. The model
        refuses changes of them, and has copies of arrays that others can write into: set all of
        them (`store.weights`). Those of a model file are in memory until the first prediction has
        laid them out anew. Who asks for one later has it read from the file again, which must
        still have it.
    preprocess : Preprocess
    labels : tuple of str
        The name of each class; both names for a single output under a sigmoid.
    provenance : dict of str to str
        Where the weights come from, and under which licence.
    ops : Backend
        The backend that computes; `load` chooses it by the name of a device.
    threads : int, optional
        The number of threads to compute on; by default, one for each usable core.
    quantisation : Quantisation, optional
        Of a quantised model: ``params`` are what its integer weights stand for.
    """

    spec: Spec
    params: Mapping[str, np.ndarray]
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]
    ops: Backend
    threads: int | None = None
    quantisation: Quantisation | None = None
    _program: Program | None = field(default=None, init=False)
    _plans: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict, init=False)
    _lock: Any = field(default_factory=OwnLock, init=False)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, after the plan that is being made; all plans of before are dropped."""
        if name in (known := [one.name for one in fields(Model)]) or type(self) is Model:
            value = kept(name, value, known)  # a subclass may have other attributes
        with self._lock.here() if "_lock" in vars(self) else nullcontext():
            super().__setattr__(name, value)
            if name in ("spec", "params", "ops", "threads", "quantisation"):
                vars(self).update(_program=None, _plans=OrderedDict())

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle has: the fields, and instead of the backend its name."""
        state = {name: value for name, value in vars(self).items() if name[0] != "_"}
        state["params"] = dict(self.params)
        if isinstance(self.ops, ModuleType):
            state["ops"] = self.ops.__name__
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = state | {"params": Weights(state["params"])}
        if isinstance(ops := state["ops"], str):
            state["ops"] = backend_module(ops)
        own = {one.name: state.pop(one.name) for one in fields(Model) if one.name in state}
        Model.__init__(self, **own)
        vars(self).update(state)  # what a subclass has more

    def __repr__(self) -> str:
        values = sum(map(prod, parameters(self.spec).values()))
        return (
            f"Model({self.spec.name}, {self.spec.classes} classes, {values:,} values, "
            f"{self.ops.__name__}{', int8' * (self.quantisation is not None)})"
        )

    @property
    def precision(self) -> str:
        """Return what its convolutions compute with: ``int8``, or the precision of the backend."""
        return self.ops.precision if self.quantisation is None else "int8"

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
        PrecisionError
            A value is too large for float16.
        """
        x = checked(x, self.spec.channels)
        y = self.plan(x.shape)(x) if len(x) else np.empty((0, self.spec.outputs), np.float32)
        check_precision(self.ops.precision, x, y)
        return y

    def predict(
        self,
        images: Picture | Iterable[Picture],
        top: int | None = None,
        batch: int = 8,
        threshold: float | None = None,
        crops: int = 1,
        mirror: bool = False,
    ) -> list[list[Prediction]]:
        """Prepare images, compute their logits and rank the classes.

        Parameters
        ----------
        images : image or iterable of images
            Paths, Pillow images, uint8 arrays (colour [h, w, 3], grey or RGBA), or the contents of
            image files: bytes, or files open in binary mode. Of an iterable, ``batch`` at a time.
        top : int, optional
            The number of classes to return for each image, the most probable first: by default 5,
            and of several labels with a threshold all that reach it.
        batch : int
            The number of images in a mini-batch.
        threshold : float, optional
            Of several labels: the least probability of those that are returned. Of a single output:
            the probability from which on the second label comes first, by default one half.
        crops, mirror
            The views of each image, as for `Ensemble`: the mean of their probabilities counts.

        Returns
        -------
        list of list of Prediction
            One list for each image.

        Raises
        ------
        ImageError
            An image cannot be used. `tinyresnext.inference.classify` skips such images instead.
        UsageError
            ``images``, ``top``, ``batch``, ``threshold``, ``crops`` or ``mirror`` is something
            else, or the network has fewer than two classes, or other channels than the images.
        """
        from .ensemble import Ensemble  # late: it is made of models

        return Ensemble((self,), crops, mirror).predict(images, top, batch, threshold)

    def check_pictures(self) -> None:
        """Raise `UsageError` if the preprocessed images do not have the network's channels."""
        if why := self.preprocess.misfit(self.spec.channels):
            raise UsageError(why)

    def rank(
        self, logits: np.ndarray, top: int | None = None, threshold: float | None = None
    ) -> list[list[Prediction]]:
        """Return the most probable labels of each row of logits [n, classes].

        Of labels with equal logits, the one with the smaller number comes first. Under a
        sigmoid, a single output has two labels, of which the second comes first from one half on,
        and the probabilities of several need not sum to one.

        Raises
        ------
        IntegrityError
            Logits are not finite.
        UsageError
            The network has a single class, the logits are not [n, classes], ``top`` is no whole
            number from 1, or the threshold has nothing to decide.
        """
        check_ranking(spec := self.spec, self.labels, logits, top, threshold)
        return [
            [Prediction(self.labels[i], i, float(p[i])) for i in chosen(spec, z, p, top, threshold)]
            for z, p in zip(np.asarray(logits), self.probabilities(logits), strict=True)
        ]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of each label [n, labels] for logits [n, classes]."""
        check_rows(self.spec, logits)
        if self.spec.head == "sigmoid":
            return sigmoid(logits if self.spec.several else np.concatenate([-logits, logits], 1))
        on_device = self.ops.upload(np.ascontiguousarray(logits, np.float32))
        with self.ops.on_threads(self.ops.thread_count(self.threads)):
            return self.ops.download(self.ops.softmax(on_device))

    def features(self, x: np.ndarray, stages: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Compute the output of stages for normalised images, as a detector's backbone.

        Parameters
        ----------
        x : [n, h, w, channels]
        stages : iterable of str, optional
            ``stem``, ``layer1`` ..., ``pooled``; by default all. Later ones are not computed.

        Returns
        -------
        dict
            Each stage's output [n, h, w, c], in the order of the network; ``pooled`` is [n, c].

        Raises
        ------
        UsageError
            ``x`` or a stage is something else.
        PrecisionError
            A value is too large for float16.
        """
        x = checked(x, self.spec.channels)
        names = chosen_stages(self.spec, stages)
        shape, threads = (max(1, len(x)), *x.shape[1:]), self.ops.thread_count(self.threads)
        plans = self._kept((shape, names), lambda p: planned(p, names, shape, self.ops, threads))
        found = {}
        for name, plan in zip(names, plans, strict=True):
            y = plan(x) if len(x) else np.empty((0, *plan.shapes[-1][1:]), x.dtype)
            check_precision(self.ops.precision, x, y)
            x = found[name] = y
        return found

    def trace(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Compute every intermediate value, op by op with nothing fused, under torchvision's names.

        Returns
        -------
        dict
            ``conv1``, ``bn1``, ``relu``, ``maxpool``, ``stem``, ``layer1.0.conv1`` ... ``fc``.
        """
        found: dict[str, np.ndarray] = {}

        def at(name: str, value: Any) -> Any:
            found[name] = np.asarray(self.ops.download(value), np.float32)
            return value

        check_not_quantised(self.quantisation, "`trace`, which computes op by op")
        x = checked(x, self.spec.channels)
        right = complete(self.params, self.spec)
        params = {name: self.ops.upload(value) for name, value in right.items()}
        with self.ops.on_threads(self.ops.thread_count(self.threads)), shapes_that_fit(self.spec):
            inputs = self.ops.upload(x, out=self.ops.empty(x.shape, self.ops.precision))
            forward(params, self.spec, inputs, self.ops, at=at)
        check_precision(self.ops.precision, x, found["fc"] if "fc" in found else found["avgpool"])
        return found

    def plan(self, x_shape: Sequence[int]) -> Plan:
        """Return the fused steps for one input shape; ``print`` it, call it or ``profile`` it.

        Raises
        ------
        UsageError
            It is no (n, h, w, channels), or the network leaves nothing of an image of that size.
        """
        shape, threads = Plan.input_shape(x_shape), self.ops.thread_count(self.threads)
        return self._kept(shape, lambda whole: Plan(whole, shape, self.ops, threads=threads))

    def _kept(self, key: Hashable, make: Callable[[Program], Made]) -> Made:
        """Return what is made of the program under a key; the last `PLANS_KEPT` are kept."""
        with self._lock.here():
            if self._program is None:
                params = released(complete(self.params, self.spec))
                with self.ops.on_threads(self.ops.thread_count(self.threads)):
                    self._program = program(params, self.spec, self.ops, self.quantisation)
            whole, plans = self._program, self._plans
            made: Made | None = plans.pop(key, None)
            if made is None:
                while len(plans) >= PLANS_KEPT:  # first: the new one may need its memory
                    plans.popitem(last=False)
                with shapes_that_fit(self.spec):
                    made = with_room(lambda: make(whole), plans)
            plans[key] = made
            return made
