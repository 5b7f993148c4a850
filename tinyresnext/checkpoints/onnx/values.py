"""What the reading of a graph is made of: values that flow, constants, and steps between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...formats.onnx.model import Node
from ...formats.onnx.tensor import Tensor
from ...formats.onnx.wire import Source

__all__ = ["BINOMIAL", "MEANS", "Constant", "Dims", "Reading", "Step", "Value", "Zeros"]

# The weights of a channel of two fixed convolutions: the filter of a blur pooling, and the mean of
# a value with those to the right, below, and right below
BINOMIAL = np.outer((1, 2, 1), (1, 2, 1)) / 16
MEANS = np.outer((0, 1, 1), (0, 1, 1)) / 4

Dims = tuple[int | None, ...]  # None for a dimension that is not known


@dataclass(frozen=True)
class Zeros:
    """A constant of zeros, or of one other number, that the graph makes itself."""

    shape: tuple[int, ...]
    value: float = 0.0


Constant = Tensor | Zeros | tuple[Any, ...]  # whole numbers as a tuple


@dataclass(eq=False)
class Value:
    """What flows through the graph: an image, a map or a row of numbers.

    Attributes
    ----------
    shape : tuple
        Dimensions, None for those that are not known.
    step : Step, optional
        What computes it; the input of the graph has none.
    readers : list of Step
    """

    shape: Dims
    step: Step | None = None
    readers: list[Step] = field(default_factory=list)


@dataclass(eq=False)
class Step:
    """One operation.

    Attributes
    ----------
    op : str
        Its name in our backends.
    node : Node
        For messages.
    inputs : tuple of Value
    constants : tuple of Constant or None
        Weights.
    attributes : dict
        As our backends call them.
    out : Value
    """

    op: str
    node: Node
    inputs: tuple[Value, ...]
    constants: tuple[Constant | None, ...]
    attributes: dict[str, Any]
    out: Value


class Reading:
    """A graph half read: what each name stands for so far."""

    def __init__(
        self,
        source: Source,
        tensors: dict[str, Tensor],
        numbers: Callable[[Tensor], Iterator[memoryview]],
    ) -> None:
        self.source, self.numbers = source, numbers
        self.names: dict[str, Value | Constant] = dict(tensors)
        self.steps: list[Step] = []
        self._repeats: dict[tuple[tuple[int, int], bytes], bool] = {}

    def value(self, node: Node, index: int) -> Value:
        """Return an input of a node that is no constant."""
        found = self.get(node, index)
        if not isinstance(found, Value):
            raise FormatError(f"{node}: its input {index} is a constant; no ResNeXt has this")
        return found

    def constant(self, node: Node, index: int) -> Constant | None:
        """Return an input of a node that must be a constant, or None if it is left out."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        found = self.get(node, index)
        if isinstance(found, Value):
            raise FormatError(
                f"{node}: its input {node.inputs[index]!a:.80} is computed; a constant was expected"
            )
        return found

    def get(self, node: Node, index: int) -> Value | Constant:
        """Return what an input of a node stands for."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.names:
            raise FormatError(
                f"{node}: nothing before it makes its input {name!a:.80}; the graph is damaged or "
                "not in order"
            )
        return self.names[name]

    def repeats(self, tensor: Tensor, taps: NDArray) -> bool:
        """Return whether a tensor has the same few numbers over and over.

        Many nodes may have one tensor, which is read once.
        """
        key = tensor.message, taps.tobytes()
        if key not in self._repeats:
            self._repeats[key] = self._has_only(tensor, taps)
        return self._repeats[key]

    def _has_only(self, tensor: Tensor, taps: NDArray) -> bool:
        """Return whether a tensor has the same few numbers over and over, by reading it."""
        at, flat = 0, taps.reshape(-1)
        for piece in self.numbers(tensor):
            found = np.frombuffer(piece, tensor.kind.dtype)
            if tensor.kind.name == "BF16":
                found = (found.astype("<u4") << 16).view("<f4")
            if not np.array_equal(found, flat[np.arange(at, at + len(found)) % flat.size]):
                return False
            at += len(found)
        return at == tensor.numel

    def without(self, step: Step) -> Value:
        """Take a step away that is part of the next one, and return what it reads."""
        if step not in self.steps or step.out.readers:
            raise FormatError(f"{step.node}: its result is read twice; no ResNeXt has this")
        self.steps.remove(step)
        step.inputs[0].readers.remove(step)
        return step.inputs[0]

    def step(
        self,
        op: str,
        node: Node,
        inputs: tuple[Value, ...],
        shape: Dims,
        weights: tuple[Constant | None, ...] = (),
        **attributes: Any,
    ) -> Value:
        """Add a step, and return its result."""
        out = Value(shape)
        out.step = Step(op, node, inputs, weights, attributes, out)
        self.steps.append(out.step)
        for one in inputs:
            one.readers.append(out.step)
        return out
