"""The operators that compute nothing: constants, shapes, and other views of the same numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import FormatError
from ...formats.onnx.model import Node
from ...formats.onnx.tensor import DATA_TYPES, Tensor, integers, stored_pieces
from .attributes import Attributes, over_the_map
from .values import Constant, Reading, Value, Zeros

__all__ = ["OPERATORS", "scalar", "whole_numbers"]

MOST = 64  # numbers in a shape


def whole_numbers(reading: Reading, node: Node, index: int, *, rows: bool = False) -> tuple:
    """Return an input of a node as whole numbers: a shape, or axes; or as rows of them."""
    found = reading.constant(node, index)
    if isinstance(found, Tensor):
        return integers(reading.source, found)
    if not isinstance(found, tuple) or (_rows(found) and not rows):
        raise FormatError(f"{node}: its input {index} is no list of whole numbers")
    return found


def constant(reading: Reading, node: Node) -> Constant:
    """Read a Constant."""
    if len(node.attributes) != 1 or node.inputs:
        raise FormatError(f"{node}: it has {len(node.attributes)} attributes; expected its value")
    ((name, value),) = node.attributes.items()
    if name == "value" and isinstance(value, Tensor):
        return replace(value, name=node.outputs[0] if node.outputs else "")
    if name in ("value_int", "value_ints"):
        return value if isinstance(value, tuple) else (value,)
    if name in ("value_float", "value_floats"):
        several: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        if len({*several}) == 1:
            shape = (len(several),) if isinstance(value, tuple) else ()
            return Zeros(shape, float(several[0]))
    raise FormatError(f"{node}: its value is no tensor and no list of whole numbers")


def identity(reading: Reading, node: Node) -> Value | Constant:
    """Read an Identity."""
    Attributes(node).done()
    return reading.get(node, 0)


def dropout(reading: Reading, node: Node) -> Value | Constant:
    """Read a Dropout, which in inference is the identity."""
    a = Attributes(node)
    a.unused("ratio", "seed")
    a.only("is_test", 1)
    a.done()
    if len(node.inputs) > 2 and node.inputs[2]:
        raise FormatError(f"{node}: it has training_mode; export the model for inference")
    return reading.get(node, 0)


def cast(reading: Reading, node: Node) -> Value | Constant:
    """Read a Cast of floats to floats, or of whole numbers to whole numbers."""
    a = Attributes(node)
    to = DATA_TYPES.get(a.whole("to", 0), "")
    a.unused("saturate", "round_mode")
    a.done()
    found = reading.get(node, 0)
    if to[:1] != ("I" if isinstance(found, tuple) else "F") and to != "BF16":
        raise FormatError(f"{node}: it casts to another kind of number; no ResNeXt does")
    return _not_narrowed(node, found, to)


def _not_narrowed(node: Node, found: Value | Constant, to: str) -> Value | Constant:
    """Raise `FormatError` if a weight would be rounded by a cast."""
    widths = {"F16": (5, 10), "BF16": (8, 7), "F32": (8, 23), "F64": (11, 52)}
    if isinstance(found, Tensor):
        own = found.kind.name
        if own not in widths or any(a > b for a, b in zip(widths[own], widths[to], strict=True)):
            raise FormatError(f"{node}: it rounds the tensor {found.name!a:.80} to {to}")
    return found


def cast_like(reading: Reading, node: Node) -> Value | Constant:
    """Read a CastLike of a constant scalar."""
    a = Attributes(node)
    a.unused("saturate", "round_mode")
    a.done()
    reading.get(node, 1)
    return scalar(reading, node)


def scalar(reading: Reading, node: Node, index: int = 0) -> Zeros:
    """Return an input that is a constant of one number."""
    found = reading.constant(node, index)
    if isinstance(found, Zeros) and found.shape in ((), (1,)):
        return found
    if not isinstance(found, Tensor) or found.numel != 1 or found.external:
        raise FormatError(f"{node}: its input {index} is no constant of one number")
    raw = b"".join(map(bytes, stored_pieces(reading.source, found)))
    if len(raw) != found.kind.itemsize or found.kind.name == "BF16":
        raise FormatError(f"{node}: its input {index} is no constant of one number")
    return Zeros((), float(np.frombuffer(raw, found.kind.dtype)[0]))


def shape(reading: Reading, node: Node) -> Constant:
    """Read a Shape, where the shape is known; an open dimension is None."""
    a = Attributes(node)
    start, end = a.whole("start", 0), a.whole("end", 1 << 31)
    a.done()
    found = reading.get(node, 0)
    if isinstance(found, tuple):
        found = Zeros((len(whole_numbers(reading, node, 0)),))
    dims = found.shape
    return tuple(dims)[start:end]


def expand(reading: Reading, node: Node) -> Constant:
    """Read an Expand of one number to a shape, or of whole numbers to their own."""
    Attributes(node).done()
    found, to = reading.constant(node, 0), whole_numbers(reading, node, 1)
    if isinstance(found, tuple):
        if to not in ((1,), (len(found),)):
            raise FormatError(f"{node}: it expands whole numbers to {to!s:.80}; no ResNeXt does")
        return found
    one = scalar(reading, node)
    if any(n is None or n < 0 for n in to):
        raise FormatError(f"{node}: it expands a number to a shape that is not known")
    return Zeros(tuple(to), one.value)


def concat(reading: Reading, node: Node) -> Constant:
    """Read a Concat of whole numbers."""
    a = Attributes(node)
    a.only("axis", 0, -1)
    a.done()
    found: tuple = ()
    for index in range(len(node.inputs)):
        if not isinstance(reading.get(node, index), (tuple, Tensor)):
            raise FormatError(f"{node}: it joins maps; a ResNeXt adds them")
        found += whole_numbers(reading, node, index)
    if len(found) > MOST:
        raise FormatError(f"{node}: it joins more than {MOST} numbers")
    return found


def gather(reading: Reading, node: Node) -> Constant:
    """Read a Gather of one or some whole numbers."""
    a = Attributes(node)
    a.only("axis", 0)
    a.done()
    data, at = whole_numbers(reading, node, 0), whole_numbers(reading, node, 1)
    if not all(type(n) is int and -len(data) <= n < len(data) for n in at):
        raise FormatError(f"{node}: it takes the numbers {at!s:.80} of {len(data)}")
    return tuple(data[n] for n in at)


def unsqueeze(reading: Reading, node: Node) -> Constant:
    """Read an Unsqueeze of whole numbers, which are a row here in any case."""
    a = Attributes(node)
    a.unused("axes")
    a.done()
    return whole_numbers(reading, node, 0)


def flatten(reading: Reading, node: Node) -> Value:
    """Read a Flatten of what was pooled to one number for each channel."""
    a = Attributes(node)
    a.only("axis", 1, -3)
    a.done()
    return _row(reading, node, reading.value(node, 0))


def squeeze(reading: Reading, node: Node) -> Value | Constant:
    """Read a Squeeze of height and width, or of whole numbers."""
    a = Attributes(node)
    axes = a.wholes("axes", ())
    a.done()
    if len(node.inputs) > 1 and node.inputs[1]:
        axes = whole_numbers(reading, node, 1)
    if isinstance(reading.get(node, 0), (tuple, Tensor)):
        return whole_numbers(reading, node, 0)
    over_the_map(node, axes)
    return _row(reading, node, reading.value(node, 0))


def reshape(reading: Reading, node: Node) -> Value | Constant:
    """Read a Reshape of whole numbers to a row, or of pooled channels to a row."""
    a = Attributes(node)
    a.only("allowzero", 0, 1)
    a.done()
    to = whole_numbers(reading, node, 1)
    if not isinstance(reading.get(node, 0), (tuple, Tensor)):
        x = reading.value(node, 0)
        n, channels = (*x.shape, None, None)[:2]
        rows = to[:1] in ((0,), (n,), (None,)) and to[1:] in ((-1,), (channels,), (0,))
        if not rows and not (to[:1] == (-1,) and to[1:] == (channels,)):
            raise FormatError(f"{node}: its shape is {to!s:.80}; expected a row for each image")
        return _row(reading, node, x)
    found = whole_numbers(reading, node, 0, rows=True)
    if to == (-1, 2) and len(found) % 2 == 0 and not _rows(found):
        return tuple(zip(found[::2], found[1::2], strict=True))
    if to not in ((-1,), (1,)):
        raise FormatError(f"{node}: its shape is {to!s:.80}; expected [-1]")
    return tuple(n for row in found for n in row) if _rows(found) else found


# What PyTorch's older exporter does with the numbers of a Pad: from pairs for each dimension, the
# last one first, to all first numbers and then all second ones


def _rows(found: tuple) -> bool:
    """Return whether these are rows of whole numbers, made by a Reshape."""
    return any(isinstance(one, tuple) for one in found)


def constant_of_shape(reading: Reading, node: Node) -> Constant:
    """Read a ConstantOfShape that makes a row of one whole number."""
    value, shape = node.attributes.get("value"), whole_numbers(reading, node, 0)
    whole = isinstance(value, Tensor) and value.numel == 1 and not value.external
    numbers = integers(reading.source, value) if whole and isinstance(value, Tensor) else ()
    known = len(shape) == 1 and type(shape[0]) is int and 0 <= shape[0] <= MOST
    if node.attributes.keys() != {"value"} or len(numbers) != 1 or not known:
        raise FormatError(f"{node}: it makes no short row of one whole number; no ResNeXt has this")
    return numbers * shape[0]


def sliced(reading: Reading, node: Node) -> Constant:
    """Read a Slice of whole numbers or of their rows."""
    Attributes(node).done()
    found = whole_numbers(reading, node, 0, rows=True)
    if len(node.inputs) != 5:
        raise FormatError(f"{node}: it has {len(node.inputs)} inputs; expected five")
    start, end, axes, step = (whole_numbers(reading, node, index) for index in range(1, 5))
    numbers = (*start, *end, *axes, *step)
    if (
        len(numbers) != 4
        or not all(type(n) is int for n in numbers)
        or axes != (0,)
        or step == (0,)
    ):
        raise FormatError(f"{node}: it takes a part that is not read; no ResNeXt has this")
    return found[start[0] : end[0] : step[0]]


def transpose(reading: Reading, node: Node) -> Constant:
    """Read a Transpose of rows of whole numbers."""
    a = Attributes(node)
    perm = a.wholes("perm", ())
    a.done()
    found = whole_numbers(reading, node, 0, rows=True)
    if perm != (1, 0) or not _rows(found):
        raise FormatError(f"{node}: it turns no rows of whole numbers; no ResNeXt has this")
    return tuple(zip(*found, strict=True))


def _row(reading: Reading, node: Node, x: Value) -> Value:
    """Return pooled channels as a row; raise `FormatError` if they are maps."""
    if len(x.shape) == 2:
        return x
    if x.shape[2:] != (1, 1):
        raise FormatError(f"{node}: its input was not pooled to one number for each channel")
    return reading.step("row", node, (x,), x.shape[:2])


OPERATORS = {
    "Constant": constant,
    "Identity": identity,
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast_like,
    "Shape": shape,
    "Expand": expand,
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "Slice": sliced,
    "Transpose": transpose,
    "Gather": gather,
    "Unsqueeze": unsqueeze,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Reshape": reshape,
}
