"""Rewrite recorded calls so that fewer passes over memory compute the same values.

For inference, a batch norm is folded into the weights of the convolution before it, and additions
and ReLUs are fused into the convolutions that feed them. In training, a batch norm needs its
statistics first, so additions and ReLUs are fused into it. A block with squeeze and excitation ends
in its scaling, which takes both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .tape import Call
from .trace import Calls, inputs


def for_inference(calls: Calls) -> Calls:
    """Merge every batch norm, then additions and ReLUs, into what is before them.

    Weights are still those of the network: `folded` computes the new ones, of one call at a time.
    """
    for rewrite in (merge_batch_norm, fuse_add, fuse_relu):
        calls = rewrite(calls)
    return _end_in(calls, "excite", 2, renamed=False)


def for_training(calls: Calls) -> Calls:
    """Fuse additions and ReLUs into the batch norms before them, or into the scalings."""
    for into, arguments in (("batch_norm_train", 3), ("excite", 2)):
        calls = _end_in(calls, into, arguments, renamed=True)
    return calls


def _end_in(calls: Calls, into: str, arguments: int, *, renamed: bool) -> Calls:
    """Fuse additions and ReLUs into the op before them; the residual is its last argument.

    With ``renamed`` the fused call has the name of what was fused.
    """

    def named(maker: Call, call: Call) -> str:
        return call.name if renamed else maker.name

    def add(maker: Call, call: Call) -> Call:
        return replace(maker, args=(*maker.args, call.args[1]), name=named(maker, call))

    def relu(maker: Call, call: Call) -> Call:
        return replace(maker, attrs=maker.attrs | {"relu": True}, name=named(maker, call))

    def bare(maker: Call) -> bool:
        return len(maker.args) == arguments and "relu" not in maker.attrs

    calls = absorb(calls, "add", into, bare, add)
    return absorb(calls, "relu", into, lambda maker: True, relu)


def fold_batch_norm(calls: Calls) -> Calls:
    """Fold batch norms into the weights before them: ``a (w * x) + b`` is ``(a w) * x + b``."""
    return [folded(call) for call in merge_batch_norm(calls)]


def merge_batch_norm(calls: Calls) -> Calls:
    """Let the convolution before a batch norm have its arrays, as the attribute ``norm``."""

    def merge(conv: Call, norm: Call) -> Call:
        return replace(conv, attrs=conv.attrs | {"norm": (*norm.args[1:], norm.attrs["eps"])})

    def fits(conv: Call) -> bool:
        return len(conv.args) == 2 and "norm" not in conv.attrs

    return absorb(calls, "batch_norm", "conv2d", fits, merge)


def folded(call: Call) -> Call:
    """Return a call without the attribute ``norm``: the weight and a bias compute the same.

    The products are computed in float64, so that only the result is rounded.
    """
    if "norm" not in call.attrs:
        return call
    attrs, (x, weight) = dict(call.attrs), call.args
    a, b = affine(attrs.pop("norm"))
    # What is too large becomes infinite, and is found in the logits.
    with np.errstate(over="ignore"):
        bias = b.astype(weight.dtype)
        # Filled in pieces: there is never a whole weight in float64.
        scaled, factor = np.empty(weight.shape, weight.dtype), a[:, None, None, None]
        np.multiply(weight, factor, out=scaled, dtype=np.float64, casting="same_kind")
    return replace(call, args=(x, scaled, bias), attrs=attrs)


def affine(norm: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the factor and the term that a batch norm is for each channel, in float64.

    ``norm`` is its scale, shift, mean, variance, and epsilon.
    """
    *arrays, eps = norm
    scale, shift, mean, var = (np.asarray(a, np.float64) for a in arrays)
    factor = scale / np.sqrt(var + eps)
    return factor, shift - mean * factor


def fuse_add(calls: Calls) -> Calls:
    """Let the convolution add the shortcut while its sums are still in registers."""

    def merge(conv: Call, add: Call) -> Call:
        return replace(conv, attrs=conv.attrs | {"residual": add.args[1]})

    def fits(conv: Call) -> bool:
        return "residual" not in conv.attrs and "relu" not in conv.attrs

    return absorb(calls, "add", "conv2d", fits, merge)


def fuse_relu(calls: Calls) -> Calls:
    """Let the convolution rectify while its sums are still in registers."""

    def merge(conv: Call, relu: Call) -> Call:
        return replace(conv, attrs=conv.attrs | {"relu": True})

    return absorb(calls, "relu", "conv2d", lambda conv: True, merge)


def absorb(
    calls: Calls,
    op: str,
    into: str,
    fits: Callable[[Call], bool],
    merge: Callable[[Call, Call], Call],
) -> Calls:
    """Merge each ``op`` into the ``into`` call that makes its first argument.

    This is done if nothing else reads that argument.

    ``a = conv2d(x); b = shortcut; c = add(a, b)`` becomes ``b = shortcut; c = conv2d(x,
    residual=b)``.
    """
    readers: dict[int, int] = {}
    for call in calls:
        for value in inputs(call):
            readers[id(value)] = readers.get(id(value), 0) + 1
    makers = {id(call.out): call for call in calls if call.op == into}
    merged, kept = set(), []
    for call in calls:
        maker = makers.get(id(call.args[0])) if call.op == op else None
        if maker is not None and readers[id(maker.out)] == 1 and fits(maker):
            merged.add(maker)
            # The merged call stands where the second one stood: by then the other argument of an
            # addition has been computed too.
            call = replace(merge(maker, call), out=call.out, fused=(*maker.fused, op))
            makers[id(call.out)] = call
        kept.append(call)
    return [call for call in kept if call not in merged]
