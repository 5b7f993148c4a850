"""A backend that records its calls, so that gradients can be computed from them, or a plan made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..ops import shapes
from ..ops.bfloat16 import HALF


@dataclass(frozen=True, eq=False)
class Call:
    """One recorded op: its arguments and its result. Arrays are distinguished by identity."""

    op: str
    args: tuple[Any, ...]
    attrs: dict[str, Any]
    out: Any
    name: str = ""
    fused: tuple[str, ...] = ()  # ops that a plan has merged into this one, in order


def stand_in(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    """Return a new array of that shape whose values all share one zero."""
    return np.broadcast_to(np.zeros((), dtype), shape)


class Tape:
    """A backend that lets another one compute and records each op.

    It is passed to `tinyresnext.network.resnext.forward` in place of the backend.

    Parameters
    ----------
    ops : backend
        The one that computes. Ops of its own are recorded if it lists their names in ``more_ops``;
        then it binds their ``_backward`` too.

    Attributes
    ----------
    calls : list of Call
        In the order of the calls. The tape keeps every value alive as long as it lives itself.
    """

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self.calls: list[Call] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        run = getattr(self.ops, name)
        if name not in shapes.OPS and name not in getattr(self.ops, "more_ops", ()):
            return run

        def record(*args: Any, **attrs: Any) -> Any:
            out = run(*args, **attrs)
            self.calls.append(Call(name, args, attrs, out))
            return out

        return record


def check_seen(ops: Any, x: Any) -> None:
    """Raise `UsageError` where weights are taken apart beside the ops, if that would go wrong."""
    if isinstance(ops, Tape) or not isinstance(x, np.ndarray):
        raise UsageError(
            "the forms (a) and (b) of a block take weights apart, which is for NumPy arrays and "
            f"seen by no tape; found {type(x).__name__} and {type(ops).__name__}: give "
            "block=grouped, whose values and gradients are the same"
        )


@dataclass(frozen=True, eq=False)
class Gradient:
    """The call of an ``op_backward``.

    Attributes
    ----------
    call : Call
        The forward call.
    dy : stand-in
        The gradient of its result.
    out : tuple of stand-in
        The gradient of each positional argument; None where nobody wants it.
    more : tuple of bool
        Whether each is added to what another reader of the same value has left there.
    """

    call: Call
    dy: Any
    out: tuple[Any, ...]
    more: tuple[bool, ...]

    @property
    def read(self) -> list[Any]:
        """Return the values that it is computed from."""
        known = {"dy": self.dy, "y": self.call.out} | dict(enumerate(self.call.args))
        return [known[which] for which in shapes.READ[self.call.op]]


def differentiate(
    calls: Sequence[Call], one: Any, wanted: Collection[int]
) -> tuple[list[Gradient], dict[int, Any]]:
    """Apply the chain rule, call by call, from the last to the first; nothing is computed yet.

    Parameters
    ----------
    calls : sequence of Call
        The last one makes what is to be minimised.
    one : array
        Its gradient with respect to itself.
    wanted : collection of int
        The identities of the arrays whose gradients are wanted.

    Returns
    -------
    gradients : list of Gradient
        In the order in which they are to be computed.
    found : dict
        The stand-ins for the gradients that are wanted, by the identity of their arrays.
    """
    depends = set(wanted)
    for call in calls:
        if any(id(a) in depends for a in call.args):
            depends.add(id(call.out))
    found: dict[int, Any] = {id(calls[-1].out): one}
    gradients: list[Gradient] = []
    for call in reversed(calls):
        if id(call.out) not in found:
            continue
        out: list[Any] = []
        more: list[bool] = []
        for arg in call.args:
            more.append(id(arg) in found)
            out.append(
                found.setdefault(id(arg), stand_in(arg.shape)) if id(arg) in depends else None
            )
        here = id(call.out)
        dy = found[here] if here in wanted else found.pop(here)
        if any(gradient is not None for gradient in out):
            gradients.append(Gradient(call, dy, tuple(out), tuple(more)))
    return gradients, found


def gradients(tape: Tape, dy: Any, wrt: Sequence[Any], of: Any = None) -> list[Any]:
    """Walk a tape backwards: the chain rule, one recorded call at a time.

    Only what the wanted gradients depend on is computed.

    Parameters
    ----------
    tape : Tape
        What computed ``of``. It saw the calls of ops: a value that something else has computed
        from others is a constant for it.
    dy : array
        The gradient of what is to be minimised with respect to ``of``, in its shape. Where ``of``
        is bfloat16, it is rounded to that.
    wrt : sequence of array
        The very arrays (inputs, parameters or intermediate values) whose gradients are wanted.
    of : array, optional
        The very array, a result of an op on the tape, that is differentiated: by default the last.

    Returns
    -------
    list of array
        One gradient for each array of ``wrt``, of its type (for integers, of that of ``dy``);
        ``None`` for an array that ``of`` does not depend on.

    Raises
    ------
    UsageError
        ``of`` is no result of an op on the tape, ``dy`` has another shape, or ``wrt`` is no list
        of arrays.
    """
    wrt = _arrays(wrt)
    calls = _until(tape, of)
    given, own = getattr(dy, "shape", ()), calls[-1].out.shape  # NumPy's shape() would read values
    if tuple(given) != tuple(own):
        raise UsageError(
            f"dy has the shape {given}, and what is differentiated (a result of "
            f"{calls[-1].op}) has {own}; give its gradient, and for another "
            "value than the last one on the tape that value as of="
        )
    wanted, ops = {id(a) for a in wrt}, tape.ops
    halves = getattr(ops, "precision", None) == "bfloat16"  # uint16 is that, and no integer
    if halves and calls[-1].out.dtype == HALF != dy.dtype:
        dy = ops.upload(dy, out=ops.empty(own, HALF))
    backward, found = differentiate(calls, dy, wanted)
    kept = {id(gradient) for gradient in found.values()}
    values = {id(dy): dy}
    for step in backward:
        for arg, stand, more in zip(step.call.args, step.out, step.more, strict=True):
            if stand is not None and not more:
                like = arg if halves or arg.dtype.kind == "f" else dy
                values[id(stand)] = ops.empty(stand.shape, like.dtype)
        out = tuple(values.get(id(stand)) for stand in step.out)
        call, given = step.call, values[id(step.dy)]
        args = (given, call.out, *call.args)
        ops.bind(f"{call.op}_backward", *args, **call.attrs, out=out, more=step.more)()
        if id(step.dy) not in kept:
            del values[id(step.dy)]
    return [values[id(found[id(a)])] if id(a) in found else None for a in wrt]


def _arrays(wrt: object) -> list[Any]:
    """Return the arrays of a list; raise `UsageError` for a single array, or a dict of them."""
    remedy = "give a list of arrays: [x] for one, list(params.values()) for a dict"
    if not isinstance(wrt, Iterable) or hasattr(wrt, "shape"):
        raise UsageError(f"wrt is of type {type(wrt).__name__}; {remedy}")
    arrays = [*wrt]
    for one in arrays:
        if not hasattr(one, "shape"):
            raise UsageError(f"wrt has {one!r:.80} in it, which is no array; {remedy}")
    return arrays


def _until(tape: Tape, of: Any) -> list[Call]:
    """Return the calls up to the one that made a value: None for the last."""
    ends = [i for i, call in enumerate(tape.calls, 1) if of is None or call.out is of]
    if not ends:
        raise UsageError(
            "the tape has no op whose result is the array that was given as of="
            if tape.calls
            else "the tape is empty: pass it to forward, or call its ops, before gradients"
        )
    return tape.calls[: ends[-1]]
