"""Record a forward pass without data, for plans, training steps and counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..ops import shapes
from ..ops.distillation import distilled
from .resnext import Drop, forward
from .spec import Spec
from .tape import Call, Tape, stand_in

Calls = list[Call]


class ShapesOnly:
    """A backend that computes shapes only.

    Each op returns a stand-in: an array that has a shape and owns no memory.
    """

    def __getattr__(self, op: str) -> Callable[..., Any]:
        rule = getattr(shapes, op)
        return lambda *args, **attrs: stand_in(rule(*args, **attrs))

    @staticmethod
    def upload(array: Any) -> Any:
        """Return the constant itself."""
        return array


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded forward pass.

    Attributes
    ----------
    x : stand-in [n, h, w, channels]
        The input.
    calls : list of Call
        Every op in order, with torchvision's name for its result. The last one makes the logits, or
        the loss in training.
    labels : stand-in [n, classes], optional
        In training: a distribution over the classes for each sample, or the probability of each
        label.
    weights : stand-in [n], or [n, classes] under a sigmoid, optional
        In training, where it is asked for: how much each sample, or each label of it, weighs. With
        a teacher: how much the loss of its labels does.
    teacher : stand-in [n, classes], optional
        In training with a teacher: its probabilities.
    taught : stand-in [n], optional
        How much the loss that compares with them weighs.
    """

    x: Any
    calls: Calls
    labels: Any = None
    weights: Any = None
    teacher: Any = None
    taught: Any = None


def trace(
    params: Mapping[str, Any],
    spec: Spec,
    x_shape: Sequence[int],
    *,
    training: bool = False,
    smoothing: float = 0.0,
    binary: bool = False,
    frozen: Collection[str] = (),
    weighted: bool = False,
    temperature: float | None = None,
    drops: Mapping[str, Drop] | None = None,
) -> Trace:
    """Walk through the network and, in training, the loss, with stand-ins for the values.

    Parameters
    ----------
    params : mapping of str to array
        Named and shaped as `tinyresnext.network.resnext.parameters` says; only shapes and
        identities matter.
    spec : Spec
    x_shape : (n, h, w, channels)
    training : bool
        Normalise with the statistics of the mini-batch, and end with the loss of the head: the
        softmax cross entropy, or the binary one.
    smoothing : float
        In training: label smoothing.
    binary : bool
        In training: end with the binary cross entropy whatever the head is.
    frozen : collection of str
        In training: first parts of the names of layers that keep their running statistics.
    weighted : bool
        In training: whether samples weigh differently.
    temperature : float, optional
        In training with a teacher: that of `tinyresnext.ops.distillation.distilled`.
    drops : mapping of str to Drop, optional
        In training: what is left out; see `tinyresnext.network.resnext.forward`.

    Raises
    ------
    ValueError
        The input is not large enough: the last stage would be empty.
    """
    names: dict[int, str] = {}

    def at(name: str, value: Any) -> Any:
        names.setdefault(id(value), name)
        return value

    tape, x = Tape(ShapesOnly()), stand_in(x_shape)
    how: dict[str, Any] = {"training": training, "frozen": frozen, "drops": drops}
    logits, given = forward(params, spec, x, tape, **how, at=at), dict[str, Any]()
    if training:
        given["labels"], rows = stand_in((x_shape[0], spec.classes)), (x_shape[0],)
        binary = binary or spec.head == "sigmoid"
        if temperature is not None:
            given["teacher"] = stand_in(given["labels"].shape)
            shares = given["weights"], given["taught"] = stand_in(rows), stand_in(rows)
            distilled(
                tape,
                logits,
                labels=given["labels"],
                teacher=given["teacher"],
                shares=shares,
                temperature=temperature,
                smoothing=smoothing,
                dtype=params["fc.weight"].dtype,
                at=at,
            )
        else:
            if weighted:
                given["weights"] = stand_in(given["labels"].shape if binary else rows)
            loss = tape.binary_cross_entropy if binary else tape.softmax_cross_entropy
            at("loss", loss(logits, smoothing=smoothing, **given))
    calls = [replace(call, name=names[id(call.out)]) for call in tape.calls]
    return Trace(x, calls, **given)


def inputs(call: Call) -> Iterable[Any]:
    """Return every array that a call reads."""
    return [a for a in (*call.args, call.attrs.get("residual")) if a is not None]


def replay(calls: Iterable[Call], x: Any, value: Any, ops: Any) -> list[Any]:
    """Make the recorded calls again, with ``value`` in the place of the recorded input ``x``.

    Returns
    -------
    list
        The result of each call; the last one is the network's.
    """
    known, results = {id(x): value}, []
    for call in calls:
        args = [known.get(id(a), a) for a in call.args]
        attrs = {key: known.get(id(a), a) for key, a in call.attrs.items()}
        results.append(getattr(ops, call.op)(*args, **attrs))
        known[id(call.out)] = results[-1]
    return results
