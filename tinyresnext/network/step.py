"""One training step, from a mini-batch to loss and gradients, as a straight line of kernel calls.

The forward pass is traced as for a `tinyresnext.network.plan.Plan`, and ends with the loss.
Additions and ReLUs are fused into the batch norms or scalings before them. Then the list is walked
backwards once, before there is any image, and each call that a gradient depends on is followed by
its ``_backward`` (the chain rule). Both lists together are placed in buffers: an intermediate value
is kept until the last gradient that needs it has been computed, and then its memory is used again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from ..errors import OutOfMemoryError
from ..ops.contract import Backend
from ..ops.distillation import Distillation
from ..system.ranks import ALONE, Ranks
from .buckets import Buckets
from .buffers import allocate, assign_by_kind, in_place, kept_as, too_large
from .resnext import Drop
from .rewrite import for_training
from .spec import Spec
from .tape import Call, Gradient, differentiate
from .trace import Trace, trace

Array = np.ndarray
Rows = np.ndarray | None
_GIVEN = [field.name for field in fields(Trace) if field.name != "calls"]  # by the caller


class Step:
    """One training step for one shape of mini-batch.

    Parameters
    ----------
    params : mapping of str to array
        Named and shaped as `tinyresnext.network.resnext.parameters` says, in the backend's memory.
        They are read anew in every call, so an optimiser changes them in place. The running
        statistics of batch norms are not changed here.
    spec : Spec
    x_shape : (n, h, w, channels)
    ops : backend
        In bfloat16, images between layers and their gradients are stored so; what has no height
        and width is float32, as weights, their gradients and statistics are.
    smoothing : float
        Label smoothing.
    binary : bool
        Whether the loss is the binary cross entropy, as it always is with a sigmoid head.
    weighted : bool
        Whether samples weigh differently.
    distillation : Distillation, optional
        How a teacher counts, if there is one; for the softmax cross entropy.
    drops : mapping of str to Drop, optional
        What is left out, in the backend's memory; see `tinyresnext.network.resnext.forward`.
    frozen : collection of str
        First parts of the names of layers that are not trained, such as ``conv1`` and ``layer1``.
    threads : int, optional
        How many to run on; by default, as many cores as this process may use.
    ranks : Ranks
        The processes that share a mini-batch, in parts of the same size; ``x_shape`` is that of
        one part. Loss and logits are those of this part. Gradients are those of the whole
        mini-batch; the ranks add them up while the backward pass goes on.
    sync_norm : bool
        Whether the ranks share the statistics of batch norms too. Then a step is that of one
        process that has the whole mini-batch. Otherwise each rank normalises by its own part.

    Raises
    ------
    OutOfMemoryError
        The device's memory does not hold the values of so many samples; the text says how many.

    Attributes
    ----------
    gradients : dict of str to array
        After a call: the gradient of the loss for every weight and bias that is trained. The same
        arrays in every call.
    buckets : Buckets
        Has them as one flat array, too.
    statistics : dict of str to [2, c] array
        After a call: mean and biased variance of the mini-batch for every batch norm in training.
        Where the ranks do not share them, their means over the ranks.
    positions : dict of str to int
        Over how many values these were taken.
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        spec: Spec,
        x_shape: Sequence[int],
        ops: Backend,
        *,
        smoothing: float = 0.0,
        binary: bool = False,
        weighted: bool = False,
        distillation: Distillation | None = None,
        drops: Mapping[str, Drop] | None = None,
        frozen: Collection[str] = (),
        threads: int | None = None,
        ranks: Ranks = ALONE,
        sync_norm: bool = False,
    ) -> None:
        self.x_shape, self._ops, self.bytes = tuple(x_shape), ops, 0  # bytes, until they are known
        self.threads = ops.thread_count(threads)
        dtype = params["fc.weight"].dtype
        trained = [
            name for name in params if not (name.partition(".")[0] in frozen or ".running_" in name)
        ]
        self._spec, self._ranks, self._shared = spec, ranks, sync_norm and ranks.count > 1
        self._distillation = distillation
        traced = trace(
            params,
            spec,
            x_shape,
            training=True,
            smoothing=smoothing,
            binary=binary,
            frozen=frozen,
            weighted=weighted,
            temperature=None if distillation is None else distillation.temperature,
            drops=drops,
        )
        calls = for_training(self._keep_statistics(traced.calls, dtype))
        part = ops.upload(np.full((), 1 / ranks.count, dtype))  # of the loss of all ranks
        backward, found = differentiate(calls, part, {id(params[name]) for name in trained})
        names = {id(found[id(params[name])]): name for name in trained}
        shapes = {name: params[name].shape for name in trained}
        self.buckets = Buckets(ops, ranks, backward, names, shapes, dtype)
        self.gradients = self.buckets.gradients
        values = {stand: self.gradients[name] for stand, name in names.items()}
        with ops.on_threads(self.threads):  # the number of tasks depends on the threads
            try:
                given = {name: vars(traced)[name] for name in _GIVEN}
                there = [a for gate, norm in (drops or {}).values() for a in (gate, *norm)]
                there += [*given.values(), *params.values(), *(call.out for call in calls)]
                known = {id(a) for a in there}
                fixed = [a for call in calls for a in call.args if a is not None]
                # such as the weight of a shortcut of type A, which is no parameter
                values |= {id(a): ops.upload(a) for a in fixed if id(a) not in known}
                self._place(given, calls, backward, values, dtype)
            except OutOfMemoryError as error:
                raise too_large(self.x_shape, self.bytes, error) from error

    def _keep_statistics(self, calls: list[Call], dtype: Any) -> list[Call]:
        """Add to every batch norm the array that receives its statistics."""
        norms = [call for call in calls if call.op == "batch_norm_train"]
        parts = self._ranks.count if self._shared else 1
        self.positions = {call.name: parts * int(np.prod(call.out.shape[:3])) for call in norms}
        ends = list(accumulate((2 * call.out.shape[3] for call in norms), initial=0))
        self._moments = self._ops.empty((ends[-1],), dtype)
        self.statistics = {
            call.name: self._ops.view(self._moments, (2, call.out.shape[3]), start)
            for call, start in zip(norms, ends, strict=False)
        }
        reduce = {"reduce": self._ranks.sum} if self._shared else {}
        attrs = {call.name: {"statistics": self.statistics[call.name], **reduce} for call in norms}
        return [replace(call, attrs=call.attrs | attrs.get(call.name, {})) for call in calls]

    def _place(
        self,
        given: Mapping[str, Any],
        calls: list[Call],
        backward: list[Gradient],
        values: dict[int, Any],
        dtype: Any,
    ) -> None:
        """Give what is uploaded and every value memory, and prepare every call."""
        made = [(call.out,) for call in calls]
        for gradient in backward:
            pairs = zip(gradient.out, gradient.more, strict=True)
            made.append(tuple(g for g, m in pairs if not (g is None or m or id(g) in values)))
        read = [[a for a in call.args if a is not None] for call in calls]
        read += [gradient.read for gradient in backward]
        steps, over = list(zip(made, read, strict=True)), in_place(backward, values)
        kind = partial(kept_as, self._ops, dtype)
        assigned = assign_by_kind(steps, kind, over)
        self.bytes = sum(sum(buffers) * one.itemsize for one, _, buffers in assigned)
        for one, places, buffers in assigned:
            arena = allocate(self._ops, buffers, one)
            values |= {id(v): self._ops.view(arena[at], v.shape) for v, at in places}
        known = ((name, one) for name, one in given.items() if one is not None)
        self._given = {name: self._ops.empty(one.shape, kind(one)) for name, one in known}
        values |= {id(given[name]): place for name, place in self._given.items()}
        self._bind(calls, backward, values)

    def _bind(self, calls: list[Call], backward: list[Gradient], values: Mapping[int, Any]) -> None:
        """Prepare every call, with the arrays in place of their stand-ins."""

        def real(value: Any) -> Any:
            return values.get(id(value), value)

        self._forward, self._backward = [], []
        for call in calls:
            attrs = {key: real(a) for key, a in call.attrs.items()}
            run = self._ops.bind(call.op, *map(real, call.args), **attrs, out=real(call.out))
            self._forward.append((call.name, real(call.out), run))
        for gradient in backward:
            call, out = gradient.call, tuple(map(real, gradient.out))
            attrs = {key: real(a) for key, a in call.attrs.items()}
            args = map(real, (gradient.dy, call.out, *call.args))
            run = self._ops.bind(f"{call.op}_backward", *args, **attrs, out=out, more=gradient.more)
            self._backward.append((call.name, run))
        self._run_forward = self._ops.chain([run for _, _, run in self._forward])
        self._run_backward = self._ops.chain(self.buckets.between([r for _, r in self._backward]))
        self._logits = real(next(call.out for call in calls if call.name == "fc"))
        self._loss = real(calls[-1].out)

    def __call__(
        self, x: Array, labels: Array, weights: Rows = None, teacher: Rows = None, soft: Rows = None
    ) -> tuple[float, Array]:
        """Compute loss and gradients of one mini-batch.

        Parameters
        ----------
        x : [n, h, w, channels]
        labels : [n] integers, or [n, classes] floats
        weights : [n], or [n, classes] under a sigmoid
            If samples weigh differently.
        teacher : [n, classes]
            If there is one: its probabilities at the temperature.
        soft : [n]
            How much its part of each sample weighs; by default as much as ``weights`` says.

        Returns
        -------
        loss : float
            The mean over the mini-batch.
        logits : [n, classes]
        """
        more, constant = self._weighed(weights, teacher, soft)
        with self._ops.on_threads(self.threads):
            self._load(x, labels, more)
            self._run_forward()
            loss = float(self._ops.download(self._loss)) + constant
            logits = np.array(self._ops.download(self._logits))
            self._run_backward()
            self.buckets.wait()
        if self._ranks.count > 1 and not self._shared:
            moments = np.array(self._ops.download(self._moments))
            self._ranks.sum(moments)
            self._ops.upload(moments / self._ranks.count, out=self._moments)
        return loss, logits

    def first_not_finite(self) -> str | None:
        """Return torchvision's name of the first value of the last call that is not finite.

        All ranks return the same: the first that is not finite in any of them.
        """
        wrong = np.zeros(len(self._forward))
        with self._ops.on_threads(self.threads):
            for number, (_, value, run) in enumerate(self._forward):
                run()
                wrong[number] = not np.isfinite(self._ops.download(value)).all()
        self._ranks.sum(wrong)
        return self._forward[int((wrong > 0).argmax())][0] if wrong.any() else None

    def _load(self, x: Array, labels: Array, more: Mapping[str, Array]) -> None:
        """Copy a mini-batch to where the first and the last forward calls read it."""
        labels, (n, classes) = np.asarray(labels), self._given["labels"].shape
        if x.shape != self.x_shape:
            raise ValueError(f"x is {x.shape}, and this step is for {self.x_shape}; make another")
        if labels.shape == (n,) and labels.dtype.kind in "iu":
            if labels.min() < 0 or labels.max() >= self._spec.labels:
                raise ValueError(
                    f"labels reach from {labels.min()} to {labels.max()}, expected 0 to "
                    f"{self._spec.labels - 1}"
                )
            one = self._spec.labels != classes  # a single output tells two labels apart
            labels = labels[:, None] if one else np.eye(classes)[labels]
        if labels.shape != (n, classes):
            raise ValueError(
                f"labels have shape {labels.shape}, expected {(n,)} integers or {n, classes} floats"
            )
        for name, values in {"x": x, "labels": labels, **more}.items():
            place = self._given[name]
            wide = np.promote_types(place.dtype, np.float32)  # a backend rounds itself
            self._ops.upload(np.asarray(values, wide), out=place)

    def _weighed(self, weights: Rows, teacher: Rows, soft: Rows) -> tuple[dict[str, Array], float]:
        """Return what the loss reads beside labels, and what it has beside its kernels."""
        if self._distillation is None:
            for name, rows in {"weights": weights, "teacher": teacher, "soft": soft}.items():
                found, wanted = (a if a is None else a.shape for a in (rows, self._given.get(name)))
                if found != wanted:
                    raise ValueError(f"{name}: {found}, and this step was made for {wanted}")
            return {} if weights is None else {"weights": weights}, 0.0
        teacher, shape = np.asarray(teacher), self._given["teacher"].shape
        if teacher.shape != shape:
            raise ValueError(f"the teacher says {teacher.shape}, expected probabilities {shape}")
        every = np.ones(shape[0]) if weights is None else np.asarray(weights)
        soft = every if soft is None else np.asarray(soft)
        given, taught = self._distillation.shares(every, soft)
        more = {"weights": given, "taught": taught, "teacher": teacher}
        return more, self._distillation.constant(teacher, soft)
