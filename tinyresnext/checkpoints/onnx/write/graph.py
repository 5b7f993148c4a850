"""A model as an ONNX graph: a backend that computes nothing and writes a node for each call.

`forward(params, spec, x, Write(...))` walks through the network, and each convolution, norm and sum
becomes a node. So the graph is what `forward` says, and `read` finds the same network in it. In a
quantised network's stands a QuantizeLinear and a DequantizeLinear wherever a convolution reads
integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import UsageError
from ....formats.onnx.write import node
from ....network.rewrite import affine
from ..follow import Name
from ..values import BINOMIAL
from .integers import Filters, Integers, filters

__all__ = ["Write"]

CEIL_MODE = 10  # poolings have it from this version on
PAD_INPUT = 11  # what a Pad adds is a tensor from this version on
REFLECTED = [0, 0, 1, 1, 0, 0, 1, 1]  # before and behind each dimension


class Waiting(NamedTuple):
    """A convolution that the norm behind it will be folded into; ``read`` as of `Integers.next`."""

    x: str
    weight: Name
    attributes: dict[str, Any]
    read: tuple[str, ...]


class Write:
    """The words of a backend that `forward` uses; values are their names in the graph.

    Parameters
    ----------
    params : mapping of str to ndarray
    fold : bool
        Fold batch norms into the convolutions before them: ``a (w * x) + b`` is ``(a w) * x + b``.
    opset : int
    integers : Integers, optional
        Of a quantised network.
    """

    def __init__(
        self,
        params: Mapping[str, NDArray],
        *,
        fold: bool,
        opset: int,
        integers: Integers | None = None,
    ) -> None:
        self._params, self._fold, self._opset = params, fold, opset
        self._integers = integers
        self._rounded: dict[str, str] = {}  # a value that went through 8 bits, by its float
        self._residuals: dict[str, str] = {}  # of what is added to a convolution, by its result
        self._waiting: Waiting | None = None
        self._channels: dict[str, int] = {}
        self.nodes: list[bytes] = []
        self.tensors: dict[str, NDArray] = {}

    def conv2d(self, x: str, weight: Name | NDArray, bias: Name | None = None, **attrs: Any) -> str:
        """Write a Conv; one that a norm will be folded into waits for it."""
        a = {"stride": 1, "padding": 0, "groups": 1, "dilation": 1} | attrs
        read = self._integers.next() if self._integers else ()
        x = self._in_8_bits(x, read[0]) if read else x
        if not isinstance(weight, Name):
            return self._fixed(x, weight, a, read)
        if bias is None and (self._fold or read):
            self._waiting = Waiting(x, weight, a, read)
            return x
        self._kept(weight)
        return self._conv(x, weight, self._params[weight].shape, bias and self._kept(bias), a)

    def _conv(
        self, x: str, weight: str, shape: tuple[int, ...], bias: str | None, a: dict[str, Any]
    ) -> str:
        """Write the node of a convolution whose tensors are written."""
        attributes = {
            "dilations": [a["dilation"]] * 2,
            "group": a["groups"],
            "kernel_shape": list(shape[2:]),
            "pads": [a["padding"]] * 4,
            "strides": [a["stride"]] * 2,
        }
        name = weight.removesuffix(".weight")
        name = self._node("Conv", [x, weight, *([bias] if bias else [])], name, attributes)
        self._channels[name] = shape[0]
        return name

    def _with_integers(
        self, x: str, weight: str, found: Filters, read: tuple[str, ...], a: dict[str, Any]
    ) -> str:
        """Write a convolution whose weight has 8 bits; ``read`` are the values that it reads."""
        parts = {f"{weight}_int8": found.integers, f"{weight}_scale": found.scale}
        # Zeros that may be left out, and shared, in ONNX: ONNX Runtime 1.32 then fails.
        parts[f"{weight}_zero"] = np.zeros(len(found.scale), np.int8)
        self.tensors |= parts
        self._node("DequantizeLinear", [*parts], weight, {"axis": 0})
        bias = None
        if found.bias is not None:
            bias = weight.removesuffix(".weight") + ".bias"
            self.tensors[bias] = found.bias
        name = self._conv(x, weight, found.integers.shape, bias, a)
        self._residuals |= dict.fromkeys([name], read[1]) if len(read) > 1 else {}
        return name

    def _scale(self, read: tuple[str, ...]) -> NDArray:
        """Return the scale of what a convolution reads."""
        assert self._integers is not None
        return self._integers.scale(read[0])[0]

    def _in_8_bits(self, x: str, value: str) -> str:
        """Write a value as integers and back, if that was not done yet."""
        if x not in self._rounded:
            assert self._integers is not None
            scale, zero = self._integers.scale(value)
            parts = {f"{value}.scale": scale, f"zero_{zero.dtype.name}": zero}
            self.tensors |= parts
            y = self._node("QuantizeLinear", [x, *parts], f"{value}.{zero.dtype.name}")
            self._rounded[x] = self._node("DequantizeLinear", [y, *parts], f"{value}.rounded")
        return self._rounded[x]

    def _fixed(self, x: str, weight: NDArray, a: dict[str, Any], read: tuple[str, ...] = ()) -> str:
        """Write the node of a convolution whose weight is no parameter."""
        name = f"constant_{len(self.nodes)}.weight"
        if read:
            found = filters(name, weight.astype("<f4"), self._scale(read))
            return self._with_integers(x, name, found, read, a)
        self.tensors[name] = weight.astype("<f4")
        return self._conv(x, name, weight.shape, None, a)

    def batch_norm(self, x: str, *params: Name, eps: float) -> str:
        """Write a BatchNormalization, or the convolution that waits, with the norm in it."""
        if self._waiting is None:
            name = params[0].removesuffix(".weight")
            inputs = [x, *map(self._kept, params)]
            return self._node("BatchNormalization", inputs, name, {"epsilon": eps})
        x, weight, attributes, read = self._waiting
        self._waiting = None
        norm = [self._params[name] for name in params]
        if read:
            found = filters(weight, self._params[weight], self._scale(read), (*norm, eps))
            return self._with_integers(x, weight, found, read, attributes)
        a, b = affine((*norm, eps))
        folded = self._params[weight] * a[:, None, None, None]
        bias = weight.removesuffix(".weight") + ".bias"
        self.tensors |= {weight: folded.astype("<f4"), bias: b.astype("<f4")}
        return self._conv(x, weight, folded.shape, bias, attributes)

    def relu(self, x: str) -> str:
        """Write a Relu."""
        return self._node("Relu", [x])

    def add(self, first: str, second: str) -> str:
        """Write an Add."""
        if first in self._residuals:
            second = self._in_8_bits(second, self._residuals[first])
        return self._node("Add", [first, second])

    def max_pool2d(
        self, x: str, *, size: int, stride: int, padding: int = 0, ceil_mode: bool = False
    ) -> str:
        """Write a MaxPool."""
        window = {"kernel_shape": [size] * 2, "pads": [padding] * 4, "strides": [stride] * 2}
        if ceil_mode:
            window |= self._ceil()
        return self._node("MaxPool", [x], "", window)

    def avg_pool2d(
        self,
        x: str,
        *,
        size: int,
        stride: int,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> str:
        """Write an AveragePool."""
        window = self._ceil() if ceil_mode else {}
        window |= {"count_include_pad": int(count_include_pad)}
        square = {"kernel_shape": [size] * 2, "strides": [stride] * 2}
        return self._node("AveragePool", [x], "", window | square)

    def blur_pool(self, x: str, *, stride: int = 2) -> str:
        """Write a Pad that reflects the edges, and a Conv of each channel with the filter."""
        channels = self._channels[x]
        inputs, attributes = [x], dict[str, Any](mode=b"reflect")
        if self._opset < PAD_INPUT:
            attributes["pads"] = REFLECTED
        else:
            self.tensors["reflected"] = np.array(REFLECTED, "<i8")
            inputs.append("reflected")
        padded = self._node("Pad", inputs, "", attributes)
        weight = np.broadcast_to(BINOMIAL, (channels, 1, 3, 3))
        a = {"stride": stride, "padding": 0, "groups": channels, "dilation": 1}
        return self._fixed(padded, weight, a)

    def _ceil(self) -> dict[str, Any]:
        """Return the attribute of a pooling whose last window may reach beyond the map."""
        if self._opset < CEIL_MODE:
            raise UsageError(
                f"poolings that reach beyond the map, as in averaged shortcuts and the stem caffe, "
                f"need opset {CEIL_MODE} or later, found {self._opset}; give another --opset"
            )
        return {"ceil_mode": 1}

    def mean_pool(self, x: str, *, keepdims: bool = False) -> str:
        """Write a GlobalAveragePool, and a Flatten to a row for each image."""
        y = self._node("GlobalAveragePool", [x])
        return y if keepdims else self._node("Flatten", [y], "", {"axis": 1})

    def excite(self, x: str, s: str) -> str:
        """Write a Sigmoid, and a Mul of each channel."""
        return self._node("Mul", [x, self._node("Sigmoid", [s])])

    def linear(self, x: str, weight: Name, bias: Name) -> str:
        """Write a Gemm."""
        inputs = [x, self._kept(weight), self._kept(bias)]
        return self._node("Gemm", inputs, "fc", {"transB": 1})

    @staticmethod
    def upload(array: NDArray) -> NDArray:
        """Return the constant itself."""
        return array

    def cast(self, x: str, to: int) -> str:
        """Write a Cast to another type of numbers."""
        return self._node("Cast", [x], "", {"to": to})

    def named(self, x: str, name: str) -> None:
        """Let the last value have a name."""
        self._node("Identity", [x], name)

    def _kept(self, name: Name) -> str:
        """Return the name of a parameter, which is written as it is."""
        self.tensors[name] = self._params[name]
        return name

    def _node(
        self, op: str, inputs: list[str], name: str = "", attributes: dict[str, Any] | None = None
    ) -> str:
        """Add a node, and return the name of its result."""
        name = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(node(op, name, inputs, name, attributes or {}))
        self._channels[name] = self._channels.get(inputs[0], 0)
        return name
