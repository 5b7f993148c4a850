"""Which network a graph may be: its stem, its blocks and their numbers, from how it branches.

A block begins where a value has two readers, and ends in the Add where both ways meet: one has
three convolutions, the other none or one. `follow` then checks every step against this network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...errors import FormatError, ShapeError, UsageError
from ...formats.onnx.tensor import Tensor
from ...network.resnext import blocks, parameters
from ...network.spec import FIRST_PLANES, Spec, describe, excitation
from ..names.layouts import FOLDED_EPSILON
from .steps import Graph
from .values import Step, Value

__all__ = ["agreed", "architecture"]

_JOINS = ("add", "mul")
_MEANS = ("avg_pool2d", "mean_pool")  # a window may be as large as the map
_STRIDING = ("conv2d", "blur_pool", *_MEANS)


class Block(NamedTuple):
    """The steps of a block: all, those that are its convolutions, and those of the shortcut."""

    main: list[Step]
    convs: list[Step]
    shortcut: list[Step]
    out: Value
    squeezed: tuple[int, int] | None  # the channels of the squeezed layer, and those of the block


def architecture(graph: Graph) -> Spec:
    """Return the network that a graph may be.

    Raises
    ------
    FormatError
        It has not the shape of a ResNeXt.
    ShapeError
        Its numbers are not those of one.
    """
    stem, x = _chain(graph.x)
    found = []
    while len(x.readers) > 1:
        found.append(_block(x))
        x = found[-1].out
    convs = [step for step in stem if step.op == "conv2d"]
    if not convs or not found:
        raise FormatError(
            "the graph has no blocks, which branch and end in an Add; it is no ResNeXt"
        )
    first = found[0].convs
    width, c_out = _shape(first[1])[1], _shape(first[2])[0]
    made = [_shape(block.convs[2])[0] for block in found]
    starts = [0, *(i for i in range(1, len(found)) if made[i] != made[i - 1])]
    tail = [step for step in graph.steps if step.op == "linear"]
    reduction, divisor = excitation([block.squeezed for block in found if block.squeezed])
    try:
        return Spec(
            blocks=tuple(b - a for a, b in zip(starts, [*starts[1:], len(found)], strict=True)),
            cardinality=first[1].attributes["groups"],
            width=width,
            classes=tail[0].out.shape[1] or 0 if tail else 0,
            channels=_shape(convs[0])[1],
            stem=_stem(stem, convs),
            **_stem_channels(convs),
            shortcut=_shortcuts(graph, found),
            avg_down=any(step.op in (*_MEANS, "smooth") for b in found for step in b.shortcut),
            stride_on=1 if any(_stride(block.convs[0]) != 1 for block in found) else 2,
            expansion=c_out // FIRST_PLANES,
            eps=_epsilon(graph),
            se_reduction=reduction,
            se_divisor=divisor,
            blur_pool=_blur_pool([*stem, *(step for block in found for step in block.main)]),
            dilated=_dilated([found[start] for start in starts]),
        )
    except UsageError as error:
        raise ShapeError(f"the graph is a network that cannot be built: {error}") from error


def agreed(graph: Spec, spec: Spec) -> Spec:
    """Return the architecture of a graph, which says all but the head.

    Parameters
    ----------
    graph : Spec
    spec : Spec
        What was asked for or written beside the graph, or the same.

    Raises
    ------
    ShapeError
        Something else was asked for, or was written beside the graph.
    """
    if np.float32(spec.eps) != np.float32(graph.eps):
        spec = replace(spec, eps=graph.eps)  # batch norms are folded, or it has no other say
    blurred = any(b.blur and (b.stride > 1 or spec.blur_pool == "binomial") for b in blocks(spec))
    untold = spec.stem == "cifar" and not blurred  # nothing strides that a pooling could stand for
    if not _alike(replace(spec, blur_pool="none") if untold else spec, graph):
        raise ShapeError(
            f"the graph computes {describe(graph)}, with a stride on convolution {graph.stride_on} "
            f"of a block; expected {describe(spec)}, with a stride on {spec.stride_on}; the graph "
            "says all of this, so say none of it: no architecture, stem, blur pooling or output "
            "stride, and no config.json beside it that names another network"
        )
    return spec


def _alike(a: Spec, b: Spec) -> bool:
    """Return whether two networks compute the same, but for epsilon and head.

    Where nothing strides and no shortcut has weights, some fields say nothing.
    """
    same = all(getattr(a, n) == getattr(b, n) for n in ("stem", "channels", "classes"))
    averaged = any(one.shortcut == "projection" and one.stride > 1 for one in blocks(a))
    pooled = not averaged or a.avg_down == b.avg_down
    same = same and a.cardinality == b.cardinality and a.blur_pool == b.blur_pool
    return same and pooled and [*blocks(a)] == [*blocks(b)] and parameters(a) == parameters(b)


def _epsilon(graph: Graph) -> float:
    """Return that of the batch norms: the shortest decimal with the float32 of the file."""
    found = {step.attributes["eps"]: step for step in graph.steps if step.op == "batch_norm"}
    if len(found) > 1:
        a, b, *_ = found.values()
        raise FormatError(
            f"{b.node}: epsilon is {np.float32(b.attributes['eps'])}, and {a.node} has "
            f"{np.float32(a.attributes['eps'])}; expected one for all"
        )
    return float(str(np.float32(next(iter(found))))) if found else FOLDED_EPSILON


def _chain(x: Value) -> tuple[list[Step], Value]:
    """Return the steps from a value on as long as one follows another, and what they end in."""
    steps: list[Step] = []
    while True:
        following = [step for step in x.readers if step.op != "mean_pool"]
        if len(x.readers) == 2 and [step.op for step in following] == ["mul"]:
            steps.append(following[0])  # squeeze and excitation: the mean decides the factors
        elif len(x.readers) == 1 and x.readers[0].op not in _JOINS:
            steps.append(x.readers[0])
        else:
            return steps, x
        x = steps[-1].out


def _block(x: Value) -> Block:
    """Return the block that begins at a value."""
    first = x.readers[0].node
    ways, ends = [], []
    for step in x.readers:
        steps, end = ([], x) if step.op in _JOINS else _chain(step.out)
        ways.append(steps if step.op in _JOINS else [step, *steps])
        ends.append(step if step.op in _JOINS else end.readers[0] if end.readers else None)
    add = ends[0]
    if len(ways) != 2 or add is None or ends[1] is not add:
        raise FormatError(f"{first}: here the graph branches, and not into the two ways of a block")
    if add.op != "add":
        raise FormatError(f"{add.node}: an Add of a block and its shortcut was expected here")
    ways.sort(key=lambda way: sum(step.op == "conv2d" for step in way))
    shortcut, main = ways
    convs = [step for step in main if step.op == "conv2d"]
    beside = sum(step.op == "conv2d" for step in shortcut)
    if len(convs) != 3 or beside > 1:
        raise FormatError(
            f"{add.node}: the block before it has {len(convs)} convolutions, and {beside} in its "
            "shortcut; expected the three of a bottleneck block, and at most one"
        )
    relus = [step for step in add.out.readers if step.op == "relu"]
    if len(relus) != 1:
        raise FormatError(f"{add.node}: no Relu follows it; a block of a ResNeXt ends in one")
    return Block(main, convs, shortcut, relus[0].out, _squeezed(main))


def _squeezed(main: list[Step]) -> tuple[int, int] | None:
    """Return the channels of a block's squeezed layer, and of the block; None if it has none."""
    for step in main:
        if step.op == "mul":
            means = step.inputs[0].readers + step.inputs[1].readers
            pools = [one for one in means if one.op == "mean_pool"]
            squeezes = [one for pool in pools for one in pool.out.readers if one.op == "conv2d"]
            for squeeze in squeezes:
                few, many = _shape(squeeze)[:2]
                return few, many
    return None


def _blur_pool(steps: list[Step]) -> str:
    """Return the blur pooling, from the steps of stem and blocks without shortcuts."""
    found = {step.op for step in steps}
    return "binomial" if "blur_pool" in found else "average" if found & {*_MEANS} else "none"


def _dilated(firsts: list[Block]) -> int:
    """Return how many of the last stages do not stride, from the first block of each stage."""
    strided = [
        any(_stride(step) != 1 for step in block.main if step.op in _STRIDING) for block in firsts
    ]
    return [*strided[:0:-1], True].index(True)


def _stem(stem: list[Step], convs: list[Step]) -> str:
    """Return the stem of a network."""
    if len(convs) == 3:
        return "deep"
    pools = [step for step in stem if step.op in ("max_pool2d", *_MEANS)]
    if _shape(convs[0])[2] == 7:
        reaches = any(step.op == "max_pool2d" and step.attributes["ceil_mode"] for step in pools)
        return "caffe" if reaches else "imagenet"
    return "pooled" if pools else "cifar"


def _stem_channels(convs: list[Step]) -> dict[str, Any]:
    """Return the channels of a deep stem; others have no choice."""
    return {"stem_channels": tuple(_shape(c)[0] for c in convs)} if len(convs) == 3 else {}


def _shortcuts(graph: Graph, found: list[Block]) -> str:
    """Return the type of the shortcuts: A if none has weights, B if some have, C if all have.

    Where the channels stay as they are, only those of type C have weights.
    """
    convs = [step for block in found for step in block.shortcut if step.op == "conv2d"]
    shapes = [_shape(step) for step in convs if not graph.only_pads(step)]
    return "A" if not shapes else "C" if any(c[0] == c[1] for c in shapes) else "B"


def _stride(step: Step) -> int:
    return int(step.attributes["stride"])


def _shape(step: Step) -> tuple[int, ...]:
    """Return the shape of a convolution's weight."""
    weight = step.constants[0]
    assert isinstance(weight, Tensor)
    return weight.shape
