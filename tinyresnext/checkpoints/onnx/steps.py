"""From the nodes of a graph to steps: the operations of a ResNeXt, under the names of our backends.

What only moves constants about (Constant, Identity, Shape, Concat, Expand ...) is worked out here
and leaves no step. Each node is checked: its domain, its operator, and every attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ...errors import FormatError
from ...formats.dtypes import FLOATS
from ...formats.onnx.model import Model, Node
from ...formats.onnx.tensor import DATA_TYPES, Tensor, type_name
from ...formats.onnx.wire import Source
from . import constants, operators
from .values import Constant, Reading, Step, Value

__all__ = ["Graph", "graph_of"]

# The meanings of the operators that are known here did not change between these.
OLDEST, NEWEST = 7, 26


@dataclass
class Graph:
    """A graph that is read.

    Attributes
    ----------
    steps : list of Step
        In order.
    x, out : Value
        What goes in, and what comes out.
    numbers : callable
        Yields the numbers of a tensor as bytes.
    """

    steps: list[Step]
    x: Value
    out: Value
    numbers: Callable[[Tensor], Iterator[memoryview]]
    _identities: dict[tuple[int, int], bool] = field(default_factory=dict)

    def only_pads(self, conv: Step) -> bool:
        """Return whether a convolution only skips pixels and adds channels of zeros.

        That is the shortcut of type A: a 1x1 convolution without bias and norm, whose weight is the
        identity matrix, cut or padded.
        """
        weight, bias = conv.constants
        plain = [step.op for step in conv.out.readers] == ["add"] and bias is None
        if not plain or not isinstance(weight, Tensor) or weight.shape[2:] != (1, 1):
            return False
        if weight.message not in self._identities:  # several may have the same weight
            self._identities[weight.message] = self._is_identity(weight)
        return self._identities[weight.message]

    def _is_identity(self, weight: Tensor) -> bool:
        """Return whether a weight is the identity matrix, cut or padded."""
        at, columns = 0, weight.shape[1]
        for piece in self.numbers(weight):
            found = np.frombuffer(piece, weight.kind.dtype)
            row, column = np.divmod(np.arange(at, at + len(found)), columns)
            at += len(found)
            if weight.kind.name == "BF16" or not np.array_equal(found, row == column):
                return False
        return at == weight.numel


def graph_of(
    source: Source, model: Model, numbers: Callable[[Tensor], Iterator[memoryview]]
) -> Graph:
    """Return the steps of a model; ``numbers`` yields those of a tensor as bytes.

    Raises
    ------
    FormatError
        The graph has an operator, a domain or an attribute that no network of ours has.
    """
    if not OLDEST <= model.opset <= NEWEST:
        raise FormatError(
            f"the graph uses version {model.opset} of ONNX's operators; versions {OLDEST} to "
            f"{NEWEST} are read, export it with one of these"
        )
    reading = Reading(source, model.tensors, numbers)
    free = {name: found for name, found in model.inputs.items() if name not in model.tensors}
    if len(free) != 1 or len(model.outputs) != 1:
        raise FormatError(
            f"the graph has {len(free)} inputs and {len(model.outputs)} outputs; expected one of "
            "each: images, and their logits"
        )
    (name, found), (end,) = next(iter(free.items())), model.outputs
    if DATA_TYPES.get(found.type) not in FLOATS:
        raise FormatError(
            f"the images that the graph takes are of type {type_name(found.type)}; expected "
            "floating point, since a graph of other numbers prepares its images itself, which is "
            "not read; export the model without that"
        )
    x = Value(found.dims if len(found.dims) == 4 else (None,) * 4)
    reading.names[name] = x
    for node in model.nodes:
        _add(reading, node)
    out = reading.names.get(end)
    if not isinstance(out, Value) or out is x:
        raise FormatError(f"nothing computes the output {end!a:.80}; the graph is damaged")
    return Graph(reading.steps, x, out, numbers)


def _add(reading: Reading, node: Node) -> None:
    """Work out one node."""
    if node.domain not in ("", "ai.onnx"):
        raise FormatError(
            f"{node}: the operators of {ascii(node.domain)[:80]} are not read; export the model "
            "without optimising it for one program"
        )
    known: Callable[[Reading, Node], Value | Constant] | None = operators.OPERATORS.get(
        node.op
    ) or constants.OPERATORS.get(node.op)
    if known is None:
        quantised = any(word in node.op.lower() for word in ("quantize", "integer", "qlinear"))
        if quantised:
            raise FormatError(
                f"{node}: quantised networks are not read; convert the float32 model that it was "
                "made of, and quantise that (tinyresnext quantise); if tinyresnext exported it, "
                "use the model file that it was exported from"
            )
        raise FormatError(
            f"{node}: no plain ResNeXt has it; expected Conv, BatchNormalization, Relu, Add ..."
        )
    found = known(reading, node)
    if not node.outputs or not node.outputs[0]:
        raise FormatError(f"{node}: its result has no name; the graph is damaged")
    if any(node.outputs[1:]) and node.op != "Dropout":
        raise FormatError(
            f"{node}: it has {len(node.outputs)} outputs, as in training; export the model for "
            "inference (model.eval())"
        )
    if node.outputs[0] in reading.names:
        raise FormatError(f"{node}: {node.outputs[0]!a:.80} is made twice; the graph is damaged")
    reading.names[node.outputs[0]] = found
