"""ONNX files: the weights of a graph that computes what a ResNeXt of ours does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import prod
from typing import BinaryIO

import numpy as np

from ...errors import FormatError, UnsafeError
from ...formats.dtypes import FLOATS, NUMBERS
from ...formats.onnx.model import Model, begins, read_model
from ...formats.onnx.tensor import Tensor, stored_pieces
from ...formats.onnx.wire import Source
from ...network.resnext import forward, parameters
from ...network.spec import Spec
from ...system.files import pieces
from ..carried import understood
from ..readers.checkpoint import CARRIED_KEY, MAX_CARRIED, Listed, Stored
from .architecture import architecture
from .external import Beside
from .follow import Follow, Name, Part
from .steps import graph_of

__all__ = ["is_onnx", "listed"]


def is_onnx(file: BinaryIO) -> bool:
    """Return whether an open file is an ONNX model; it is left at its beginning."""
    found = begins(Source(file))
    file.seek(0)
    return found


def listed(file: BinaryIO, path: str | os.PathLike[str], stack: ExitStack) -> Listed:
    """List the tensors of an open file, and find its network.

    Parameters
    ----------
    file : binary file
    path : path
        Of the file; tensors may lie in other files of its folder (see `external`).
    stack : ExitStack
        Closes these files.

    Raises
    ------
    FormatError
        Cut short, not such a file, or its graph computes something else than a ResNeXt of ours: the
        message names the node.
    ShapeError
        A tensor of the graph has a shape that does not fit to the others.
    UnsafeError
        Built to exhaust memory or time, or its numbers lie outside of its folder.
    """
    source, beside = Source(file), Beside(file, path, stack)
    model = read_model(source)
    graph = graph_of(source, model, partial(_pieces, source, beside))
    told = _carried(source, model)
    spec = _named(architecture(graph), told)
    shapes = parameters(spec)
    follow = Follow(graph, shapes)
    follow.finish(forward({name: Name(name) for name in shapes}, spec, graph.x, follow))
    stored = {
        name: _stored(source, beside, follow.parts[name], shape) for name, shape in shapes.items()
    }
    return Listed(
        stored,
        "onnx",
        carried=told,
        spec=spec,
        remarks=_remarks(follow, stored),
        files=tuple(beside.files.values()),
    )


def _named(spec: Spec, told: bytes) -> Spec:
    """Return the architecture with averaged shortcuts, if only what tinyresnext wrote can tell.

    A network of one stage does not average in them, whatever it is called: only the names of its
    weights differ.
    """
    carried = understood(told) if len(spec.blocks) == 1 else None
    return replace(spec, avg_down=True) if carried and carried.spec.avg_down else spec


def _stored(source: Source, beside: Beside, part: Part, shape: tuple[int, ...]) -> Stored:
    """Return where the numbers of a parameter lie."""
    constant = part.constant
    if isinstance(constant, float):
        return Stored(NUMBERS["F32"], shape, prod(shape), partial(_filled, constant, prod(shape)))
    if constant.kind.name not in FLOATS:
        raise FormatError(f"{constant.name!a:.80} has whole numbers; expected floating point")
    stride = (1, shape[0]) if part.transposed else None
    if constant.external:
        beside.place(constant)  # so it is judged, and counted, before any number is read
    return Stored(
        constant.kind, shape, constant.numel, partial(_pieces, source, beside, constant), stride
    )


def _pieces(source: Source, beside: Beside, tensor: Tensor) -> Iterator[memoryview]:
    """Yield the numbers of a tensor as bytes, wherever they lie."""
    if not tensor.external:
        return stored_pieces(Source(source.file), tensor)
    file, offset = beside.place(tensor)
    size = tensor.numel * tensor.kind.itemsize
    return pieces(file, offset, size, f"{tensor.name!a:.80}")


def _filled(value: float, count: int) -> Iterator[memoryview]:
    """Yield a number so many times, as bytes."""
    yield memoryview(np.full(count, value, "<f4").tobytes())


def _carried(source: Source, model: Model) -> bytes:
    """Return what tinyresnext wrote into the metadata; other entries are not read."""
    entry = model.metadata.get(CARRIED_KEY)
    if entry is None:
        return b""
    if entry.size > MAX_CARRIED:
        raise UnsafeError(
            f"{CARRIED_KEY} in the metadata has {entry.size:,} bytes; at most {MAX_CARRIED:,} were "
            "expected"
        )
    return source.raw(entry, MAX_CARRIED, CARRIED_KEY)


def _remarks(follow: Follow, stored: dict[str, Stored]) -> tuple[str, ...]:
    """Return what the user should know of the graph."""
    said = ["every node and attribute of the graph is one of this network"]
    if follow.folded:
        said.append(
            f"{follow.folded} batch norms were folded into convolutions: in their places stand "
            "norms of scale 1, which only add the biases"
        )
    if any(one.kind.name in ("F16", "BF16") for one in stored.values()):
        said.append("the weights are in half precision; results are computed in single precision")
    return tuple(said)
