"""Judging a checkpoint by the names that its tensors get: its numbers, and layers beside them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, IntegrityError
from ...network.spec import Spec
from ..readers.checkpoint import Look
from . import layouts, prefixes
from .schemes import Names

__all__ = ["check_outside", "judge", "without_other_heads"]


def judge(shapes: Mapping[str, tuple[int, ...]], named: Names) -> Look:
    """Return a function that refuses weights with NaN, infinite or negative-variance values.

    It receives the numbers of each tensor of the file.
    """
    wanted: dict[str, str] = {}
    for name, (keys, layout) in named.parts.items():
        if layout not in layouts.CONSTANTS:
            for key in keys:  # of several parameters made of one tensor, the first is its own
                wanted.setdefault(key, name)
    sums = {
        key
        for keys, layout in named.parts.values()
        if layout is layouts.DEPTHWISE
        for key in keys[1:]
    }

    def look(key: str, at: int | None, numbers: NDArray) -> None:
        if key not in wanted:
            return
        name = wanted[key]
        if numbers.dtype != np.float32:
            raise FormatError(
                f"{name} ({numbers.dtype}) is not floating point; quantised weights are not read"
            )
        if not np.isfinite(numbers).all():
            raise IntegrityError(f"{name} has values that are NaN or infinite; use other weights")
        if name.endswith("running_var") and (numbers < 0).any():
            raise IntegrityError(f"{name} has negative variances; use other weights")
        if key not in sums:
            return
        if at is None:
            raise FormatError(
                f"{name}: the sum behind its depthwise kernel is not in C order; save it again in "
                "that order"
            )
        if not layouts.is_fixed_sum(shapes[key], at, numbers):
            raise IntegrityError(f"{name}: {layouts.OTHER_SUM}")

    return look


def without_other_heads(shapes: Mapping[str, tuple[int, ...]], named: Names) -> Names:
    """Leave out what is called as a classifier is and is none, as shapes say.

    That is the projection of MoCo's first version, whose results stand in a queue, and a layer
    beside the network that is not linear, as networks for segmentation have it.
    """
    if "fc.weight" not in named.parts:
        return named
    rest = {name: part for name, part in named.parts.items() if not name.startswith("fc.")}
    gone = [key for name in sorted(named.parts.keys() - rest) for key in named.parts[name][0]]
    head, first = dict.fromkeys(gone), named.parts["fc.weight"][0][0]
    shape = shapes[first]
    queues = [s for key, s in shapes.items() if key.rpartition(".")[2] == "queue" and len(s) == 2]
    if len(shape) == 2 and any(shape[0] in queue for queue in queues):
        what = "tensors of a projection, of whose results there is a queue"
        left_out = named.left_out | {what: tuple(head)}
        return named._replace(parts=rest, classifier="", left_out=left_out)
    if len(shape) != 2 and not first.startswith(named.prefix):
        outside = (*head, *named.outside)
        return named._replace(parts=rest, classifier="", outside=outside)
    return named


def check_outside(shapes: Mapping[str, tuple[int, ...]], named: Names, spec: Spec) -> None:
    """Raise `FormatError` if a layer beside the network may belong to it.

    It may be its classifier, or stand in front of that, or behind it.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of the tensors in the file.
    named : Names
        Behind a prefix that was found; what the user gave, is meant.
    spec : Spec
    """
    known = prefixes.classifiers(named.prefix, named.outside)
    for key in named.outside:
        shape, single = shapes[key], key.removesuffix("weight") + "bias" in named.outside
        if not key.endswith((".weight", ".running_var")):
            continue
        where = f"beside the network behind {named.prefix!r} is {ascii(key)[:80]} {shape}"
        alone = f"say --prefix {named.prefix}"
        shape = shape[:2] if shape[2:] == (1, 1) else shape  # the same as a linear layer
        follows = prefixes.may_follow(key, single, spec.classes > 0)
        linear = len(shape) == 2 and (len(shapes[key]) == 2 or key in known)
        if not spec.classes and linear and shape[1] == spec.features and follows:
            raise FormatError(
                f"{where}, which may be its classifier, of another form or under a name that is "
                "not known; call it fc.weight in the state dict, with two dimensions, and its bias "
                f"fc.bias, or {alone} to have the network without a classifier"
            )
        if spec.classes and follows and shape in ((spec.features,), (spec.features,) * 2):
            raise FormatError(
                f"{where}, which may stand between its features and its classifier, where no layer "
                "is read; if it does not, delete it from the state dict; if it does, "
                f"{alone} to leave out all that is beside the network"
            )
        inner = linear and spec.classes and (shape[1] == spec.classes or key in known)
        if inner and shape[1] in (spec.features, spec.classes):
            raise FormatError(
                f"{where}, and the network has a classifier of {spec.classes} outputs itself; "
                f"{alone} if that is the one that counts, or delete it from the state dict"
            )
