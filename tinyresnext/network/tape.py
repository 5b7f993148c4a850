"""A backend that records its calls, so that gradients can be computed from them, or a plan made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..ops import shapes


@dataclass(frozen=True, eq=False)
class Call:
    """One recorded op: its arguments and its result. Arrays are distinguished by identity."""

    op: str
    args: tuple[Any, ...]
    attrs: dict[str, Any]
    out: Any
    name: str = ""
    fused: tuple[str, ...] = ()  # ops that a plan has merged into this one, in order


class Tape:
    """A backend that lets another one compute and records each op.

    It is passed to `tinyresnext.network.resnext.forward` in place of the backend.

    Parameters
    ----------
    ops : backend
        The one that computes.

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
        if name not in shapes.OPS:
            return run

        def record(*args: Any, **attrs: Any) -> Any:
            out = run(*args, **attrs)
            self.calls.append(Call(name, args, attrs, out))
            return out

        return record


def gradients(tape: Tape, dy: Any, wrt: Sequence[Any]) -> list[Any]:
    """Walk a tape backwards: the chain rule, one recorded call at a time.

    Parameters
    ----------
    tape : Tape
        Of a computation whose last call made the value that ``dy`` belongs to.
    dy : array
        The gradient of what is to be minimised with respect to the last value on the tape.
    wrt : sequence of array
        The very arrays (inputs, parameters or intermediate values) whose gradients are wanted.

    Returns
    -------
    list of array
        One gradient for each array of ``wrt``; ``None`` for an array that the last value does not
        depend on.
    """
    wanted = {id(a) for a in wrt}
    found = {id(tape.calls[-1].out): dy}
    for call in reversed(tape.calls):
        here = id(call.out)
        if here not in found:
            continue
        dout = found[here] if here in wanted else found.pop(here)
        backward = getattr(tape.ops, f"{call.op}_backward")
        grads = backward(dout, call.out, *call.args, **call.attrs)
        # An optional argument that was not given has a gradient of None, after those of the others.
        for arg, grad in zip(call.args, grads, strict=False):
            if grad is not None:  # a value that is read twice receives the sum of both gradients
                found[id(arg)] = found[id(arg)] + grad if id(arg) in found else grad
    return [found.get(id(a)) for a in wrt]
