"""A model as an ONNX graph: a backend that computes nothing and writes a node for each call.

`forward(params, spec, x, Write(...))` walks through the network, and each convolution, norm and sum
becomes a node. So the graph is what `forward` says, and `read` finds the same network in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...formats.onnx.write import IR_VERSIONS, Graph, node, write_model
from ...network.resnext import forward
from ...store.contents import Stored
from ...system.version import __version__
from ..readers.checkpoint import CARRIED_KEY
from .follow import Name
from .values import BINOMIAL

__all__ = ["OPSETS", "write_onnx"]

OPSETS = tuple(IR_VERSIONS)
CEIL_MODE = 10  # poolings have it from this version on
PAD_INPUT = 11  # what a Pad adds is a tensor from this version on
REFLECTED = [0, 0, 1, 1, 0, 0, 1, 1]  # before and behind each dimension
FLOAT, FLOAT16 = 1, 10  # ONNX's numbers of the types


class Write:
    """The words of a backend that `forward` uses; values are their names in the graph.

    Parameters
    ----------
    params : mapping of str to ndarray
    fold : bool
        Fold batch norms into the convolutions before them: ``a (w * x) + b`` is ``(a w) * x + b``.
    opset : int
    """

    def __init__(self, params: Mapping[str, NDArray], *, fold: bool, opset: int) -> None:
        self._params, self._fold, self._opset = params, fold, opset
        self._waiting: tuple[str, Name, dict[str, Any]] | None = None
        self._channels: dict[str, int] = {}
        self.nodes: list[bytes] = []
        self.tensors: dict[str, NDArray] = {}

    def conv2d(self, x: str, weight: Name | NDArray, bias: Name | None = None, **attrs: Any) -> str:
        """Write a Conv; one that a norm will be folded into waits for it."""
        a = {"stride": 1, "padding": 0, "groups": 1, "dilation": 1} | attrs
        if not isinstance(weight, Name):
            return self._fixed(x, weight, a)
        if bias is None and self._fold:
            self._waiting = x, weight, a
            return x
        return self._conv(x, self._kept(weight), bias and self._kept(bias), a)

    def _conv(self, x: str, weight: str, bias: str | None, a: dict[str, Any]) -> str:
        """Write the node of a convolution whose tensors are written."""
        size = self.tensors[weight].shape[2:]
        attributes = {
            "dilations": [a["dilation"]] * 2,
            "group": a["groups"],
            "kernel_shape": list(size),
            "pads": [a["padding"]] * 4,
            "strides": [a["stride"]] * 2,
        }
        name = weight.removesuffix(".weight")
        name = self._node("Conv", [x, weight, *([bias] if bias else [])], name, attributes)
        self._channels[name] = len(self.tensors[weight])
        return name

    def _fixed(self, x: str, weight: NDArray, a: dict[str, Any]) -> str:
        """Write the node of a convolution whose weight is no parameter."""
        name = f"constant_{len(self.nodes)}.weight"
        self.tensors[name] = weight.astype("<f4")
        return self._conv(x, name, None, a)

    def batch_norm(self, x: str, *params: Name, eps: float) -> str:
        """Write a BatchNormalization, or the convolution that waits, with the norm in it."""
        if self._waiting is None:
            name = params[0].removesuffix(".weight")
            inputs = [x, *map(self._kept, params)]
            return self._node("BatchNormalization", inputs, name, {"epsilon": eps})
        x, weight, attributes = self._waiting
        self._waiting = None
        scale, shift, mean, var = (self._params[name].astype(np.float64) for name in params)
        a = scale / np.sqrt(var + eps)
        folded = self._params[weight] * a[:, None, None, None]
        bias = weight.removesuffix(".weight") + ".bias"
        self.tensors |= {weight: folded.astype("<f4"), bias: (shift - mean * a).astype("<f4")}
        return self._conv(x, weight, bias, attributes)

    def relu(self, x: str) -> str:
        """Write a Relu."""
        return self._node("Relu", [x])

    def add(self, first: str, second: str) -> str:
        """Write an Add."""
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
                f"poolings that reach beyond the map, as in averaged shortcuts, need opset "
                f"{CEIL_MODE} or later, found {self._opset}; give another --opset"
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


def write_onnx(
    path: str | os.PathLike[str],
    stored: Stored,
    carried: str = "",
    *,
    opset: int = 17,
    fold: bool = False,
    batch: int = 0,
    half: bool = False,
) -> None:
    """Write an ONNX file whose input is float32 images [n, channels, side, side].

    Parameters
    ----------
    path : path
        The file to make or to replace.
    stored : Stored
    carried : str
        Text of `carried.written`, which goes into the metadata; none if it is empty.
    opset : int
        One of `OPSETS`.
    fold : bool
        Fold batch norms into convolutions, which rounds the weights once.
    batch : int
        Images in a mini-batch; 0 for any number.
    half : bool
        Weights and computation in half precision; input and output stay float32.

    Raises
    ------
    UsageError
        The network cannot be written with these options, or not in a file of less than 2 GiB.
    """
    if opset not in OPSETS:
        raise UsageError(f"opset is {opset}; expected {OPSETS[0]} to {OPSETS[-1]}")
    spec, side = stored.spec, stored.preprocess.crop
    ops = Write(stored.params, fold=fold, opset=opset)
    x = ops.cast("images", FLOAT16) if half else "images"
    out = forward({name: Name(name) for name in stored.params}, spec, x, ops)
    end = "logits" if spec.classes else "features"
    ops.named(ops.cast(out, FLOAT) if half else out, end)
    tensors = {
        name: _halved(name, one) if half and one.dtype != np.int64 else one
        for name, one in ops.tensors.items()
    }
    first = batch or "batch"
    graph = Graph(
        spec.name,
        ops.nodes,
        tensors,
        {"images": [first, spec.channels, side, side]},
        {end: [first, spec.outputs]},
    )
    write_model(
        path,
        graph,
        opset=opset,
        producer=("tinyresnext", __version__),
        metadata={CARRIED_KEY: carried} if carried else {},
    )


def _halved(name: str, array: NDArray) -> NDArray:
    """Return a tensor in half precision; raise `UsageError` if a number is too large for it."""
    with np.errstate(over="ignore"):
        found = array.astype("<f2")
    if not np.isfinite(found).all():
        raise UsageError(
            f"{name} has numbers beyond the 65,504 of half precision; export it in float32, or "
            "with its batch norms folded (--fold)"
        )
    return found
