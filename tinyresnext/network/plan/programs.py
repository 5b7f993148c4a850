"""A program: a network that is traced, folded, fused and packed, once for all its plans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import UsageError
from ...ops import integer
from ...ops.contract import Backend
from ...system.words import one_of
from ..rewrite import folded, for_inference
from ..spec import Spec
from ..tape import Call
from ..trace import trace
from .quantised import Quantisation, in_integers, with_weight


@dataclass(frozen=True, eq=False)
class Program:
    """A network that is ready to be planned for any input shape.

    Attributes
    ----------
    x : stand-in
        The input.
    calls : tuple of Call
        Fused; their weights are on the device, packed.
    quantised : bool
        Whether the network has integers, which cannot stand for NaN or infinity.
    """

    x: Any
    calls: tuple[Call, ...]
    quantised: bool = False


def program(
    params: Mapping[str, np.ndarray],
    spec: Spec,
    ops: Backend,
    quantisation: Quantisation | None = None,
) -> Program:
    """Trace, fold and fuse a network, and place its weights on the device.

    This is done once for all plans of a model. Where ``params`` keep nothing of what they
    return, there is no more than one copy of all weights at any time, and a few of one layer's.
    With a quantisation, the convolutions that it covers are computed with integers.
    """
    # The calls do not depend on the shape.
    traced = trace(params, spec, (1, 256, 256, spec.channels))
    x, calls = traced.x, for_inference(traced.calls)
    if quantisation is not None:
        calls = in_integers(calls, quantisation.scales)
    del traced  # its calls have the weights too
    made = {id(call.out) for call in calls} | {id(x)}

    def place(call: Call) -> Call:
        if call.op == "conv2d_int8":
            return with_weight(call, integer(ops), ops.upload)
        call = folded(call)
        first, *rest = (a if a is None or id(a) in made else ops.upload(a) for a in call.args)
        if call.op == "conv2d":
            rest[0] = ops.pack(rest[0], call.attrs.get("groups", 1))
        elif call.op == "linear" and ops.precision != "float32":
            weight = call.args[1]
            rest[0] = ops.upload(weight, out=ops.empty(weight.shape, ops.precision))
        return replace(call, args=(first, *rest))

    # In place, so that of a weight, the folded one and its packed copy only the last is kept.
    for t, call in enumerate(calls):
        calls[t] = place(call)
    return Program(x, tuple(calls), quantisation is not None)


def chosen_stages(spec: Spec, asked: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the names of all stages, or of those asked for, in the order of the network.

    Raises
    ------
    UsageError
        There is no such stage, or these are no names.
    """
    known = ("stem", *(f"layer{number + 1}" for number in range(len(spec.blocks))), "pooled")
    if asked is None:
        return known
    if not isinstance(asked, Iterable):
        raise UsageError(f"stages is {asked!r:.80}; give names of stages: {', '.join(known)}")
    wanted = (asked,) if isinstance(asked, str) else tuple(asked)
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no stage {name!r}: {one_of(name, known)}")
    return tuple(name for name in known if name in wanted)
