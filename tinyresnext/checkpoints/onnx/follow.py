"""A backend that computes nothing: it looks up each call of `forward` in a graph.

`forward(params, spec, x, Follow(...))` walks through the network of ours. Where it asks for a
convolution, there must be one in the graph that reads the same value and has the same attributes;
its weight is then the parameter of that name. So nothing depends on names or on the order of nodes,
and a graph that computes anything else is refused at the first step that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, ShapeError
from ...formats.onnx.tensor import Tensor
from ..names.layouts import identity
from .steps import Graph
from .values import MEANS, Constant, Step, Value, Zeros

__all__ = ["Follow", "Name", "Part"]


class Name(str):
    """A parameter's name, which stands for the parameter itself."""

    dtype = np.dtype(np.float32)


class Part(NamedTuple):
    """What a parameter is made of.

    Attributes
    ----------
    constant : Tensor or float
        A tensor of the graph, or the number that all elements have.
    transposed : bool
        Whether the tensor is the parameter's transpose.
    """

    constant: Tensor | float
    transposed: bool = False


class Follow:
    """The words of a backend that `forward` uses.

    Parameters
    ----------
    graph : Graph
    shapes : mapping of str to tuple of int
        Of the parameters. They stand for themselves: each argument that is one is its name.
    """

    def __init__(self, graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._graph, self._shapes = graph, shapes
        self._left = dict.fromkeys(graph.steps)
        self.parts: dict[str, Part] = {}
        self.folded = 0

    @staticmethod
    def upload(array: NDArray) -> NDArray:
        """Return the constant itself."""
        return array

    def conv2d(
        self, x: Value, weight: str | NDArray, bias: str | None = None, **wanted: Any
    ) -> Value:
        """Find a convolution of ``x``.

        One whose weight is an array is a shortcut of type A, or takes means in a dilated stage.
        """
        if not isinstance(weight, str) and weight.shape[2:] == MEANS.shape:
            return self._next(x, "smooth").out
        step = self._next(x, "conv2d", shortcut=not isinstance(weight, str) or "down" in weight)
        self._same(step, {"dilation": 1, "groups": 1, "padding": 0, "stride": 1} | wanted)
        if isinstance(weight, str):
            self._take(step, weight, step.constants[0])
        elif not self._graph.only_pads(step):
            raise FormatError(f"{step.node}: its weight does not only pad with zero channels")
        if bias is not None:
            self._take(step, bias, step.constants[1])
        return step.out

    def batch_norm(
        self, x: Value, scale: str, shift: str, mean: str, var: str, *, eps: float
    ) -> Value:
        """Find the batch norm of ``x``; it may be folded into the convolution before it."""
        conv, following = x.step, [step for step in x.readers if step.op == "batch_norm"]
        assert conv is not None
        bias = conv.constants[1]
        if following:
            if bias is not None and not (isinstance(bias, Zeros) and bias.value == 0):
                raise FormatError(
                    f"{conv.node}: it has a bias and a BatchNormalization follows; expected one "
                    "of both"
                )
            step = self._next(x, "batch_norm")
            if np.float32(step.attributes["eps"]) != np.float32(eps):
                own = np.float32(step.attributes["eps"])
                raise FormatError(f"{step.node}: epsilon is {own}; expected {np.float32(eps)}")
            for name, found in zip((scale, shift, mean, var), step.constants, strict=True):
                self._take(step, name, found)
            return step.out
        self.folded += 1
        fixed = zip((scale, mean, var), identity(eps), strict=True)
        self.parts |= {name: Part(value) for name, value in fixed}
        self._take(conv, shift, Zeros(self._shapes[shift]) if bias is None else bias)
        return x

    def relu(self, x: Value) -> Value:
        """Find the ReLU of ``x``."""
        return self._next(x, "relu").out

    def add(self, first: Value, second: Value) -> Value:
        """Find the sum of both, in any order."""
        step = self._next(first, "add")
        if {*step.inputs} != {first, second}:
            raise FormatError(f"{step.node}: it adds other values than a block and its shortcut")
        return step.out

    def max_pool2d(self, x: Value, **wanted: Any) -> Value:
        """Find a max pooling of ``x``."""
        step = self._next(x, "max_pool2d")
        self._same(step, {"padding": 0} | wanted)
        return step.out

    def avg_pool2d(self, x: Value, **wanted: Any) -> Value:
        """Find an average pooling of ``x``."""
        step = self._next(x, "avg_pool2d", "mean_pool", shortcut=True)
        if step.op == "mean_pool":  # one window is the whole map, which then is no larger
            found = {name: step.attributes.get(name) for name in ("window", "stride")}
            wanted = {"window": wanted["size"], "stride": wanted["stride"]}
            if found != wanted:
                raise FormatError(f"{step.node}: it pools the whole map; expected {wanted}")
            return step.out
        self._same(step, {"padding": 0, "ceil_mode": False, "count_include_pad": True} | wanted)
        return step.out

    def blur_pool(self, x: Value, **wanted: Any) -> Value:
        """Find a blur pooling of ``x``."""
        step = self._next(x, "blur_pool")
        self._same(step, wanted)
        return step.out

    def excite(self, x: Value, s: Value) -> Value:
        """Find the product of ``x`` and the sigmoid of ``s``."""
        gate = self._next(s, "sigmoid").out
        step = self._next(gate, "mul")
        if {*step.inputs} != {x, gate}:
            raise FormatError(f"{step.node}: it multiplies another value than the block's result")
        return step.out

    def mean_pool(self, x: Value, *, keepdims: bool = False) -> Value:
        """Find the mean over height and width of ``x``, and the change of its shape to a row."""
        step = self._next(x, "mean_pool")
        out = step.out
        if keepdims and len(out.shape) != 4:
            raise FormatError(f"{step.node}: it leaves a row; expected a map of 1x1")
        while not keepdims and [step.op for step in out.readers] == ["row"]:
            out = self._next(out, "row").out
        return out

    def linear(self, x: Value, weight: str, bias: str) -> Value:
        """Find the linear layer of ``x``."""
        step = self._next(x, "linear")
        matrix, vector = step.constants
        self._take(step, weight, matrix, step.attributes["transposed"])
        self._take(step, bias, Zeros(self._shapes[bias]) if vector is None else vector)
        return step.out

    def finish(self, logits: Value) -> None:
        """Raise `FormatError` unless the graph ends here and has no other step."""
        if logits is not self._graph.out or self._left:
            rest = next((step for step in self._left), None)
            where = f"{rest.node} is no part of it" if rest else "its output is another value"
            raise FormatError(f"the graph is more than a ResNeXt: {where}")

    def _next(self, x: Value, *ops: str, shortcut: bool = False) -> Step:
        """Return the step of ``x`` with one of these names; at a branch, that of the wanted way.

        The first convolution of a block leads to a ReLU, that of a shortcut does not.
        """
        found = [step for step in x.readers if step in self._left]
        if len(found) > 1:
            found = [step for step in found if step.op in ops]
        if len(found) > 1:
            found = [step for step in found if _leads_to_relu(step) != shortcut]
        if len(found) == 1 and found[0].op in ops:
            del self._left[found[0]]
            return found[0]
        words = " or ".join(ops)
        if not found:
            before = x.step.node if x.step else "the input"
            raise FormatError(f"{before}: no {words} follows, as it does in a ResNeXt")
        raise FormatError(f"{found[0].node}: a {words} was expected here")

    def _same(self, step: Step, wanted: Mapping[str, Any]) -> None:
        """Raise `FormatError` unless a step has the attributes of the call."""
        for name, value in wanted.items():
            found = step.attributes.get(name, False)
            if found is not None and found != value:  # None makes no difference
                raise FormatError(f"{step.node}: {name} is {found}; expected {value} here")
        for name in step.attributes.keys() - wanted.keys():
            if step.attributes[name]:
                raise FormatError(f"{step.node}: {name} is {step.attributes[name]}; expected none")

    def _take(
        self, step: Step, name: str, found: Constant | None, transposed: bool = False
    ) -> None:
        """Let a constant be the parameter of that name; raise unless it has its shape."""
        if found is None or isinstance(found, tuple):
            raise FormatError(f"{step.node}: it has no tensor for {name}")
        shape = found.shape[::-1] if transposed else found.shape
        if shape != self._shapes[name]:
            raise ShapeError(
                f"{step.node}: its tensor for {name} has the shape {shape!s:.80}; expected "
                f"{self._shapes[name]}"
            )
        if isinstance(found, Zeros):
            self.parts[name] = Part(found.value)
        else:
            self.parts[name] = Part(found, transposed)


def _leads_to_relu(step: Step) -> bool:
    """Return whether a ReLU follows, perhaps behind a batch norm."""
    readers = step.out.readers
    if [one.op for one in readers] == ["batch_norm"]:
        readers = readers[0].out.readers
    return [one.op for one in readers] == ["relu"]
