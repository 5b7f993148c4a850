"""What a network costs, layer by layer, counted on its recorded forward pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from .resnext import parameters
from .spec import Spec, check_spec
from .tape import Call, stand_in
from .trace import trace


@dataclass(frozen=True)
class Layer:
    """One layer with weights, for a single image.

    Parameters
    ----------
    name : str
        The layer's key in a checkpoint, without ``.weight``.
    kind : {"conv2d", "batch_norm", "linear"}
    weight, result : tuple of int
        Shapes; ``result`` without the batch.
    groups, stride : int
    params : int
        What training can change: running statistics are not counted.
    macs : int
        Multiply-adds of convolutions and the classifier; norms count none, as published tables do.
    """

    name: str
    kind: str
    weight: tuple[int, ...]
    result: tuple[int, ...]
    groups: int
    stride: int
    params: int
    macs: int


def layers(spec: Spec, height: int = 224, width: int = 224) -> list[Layer]:
    """Return every layer with weights, in the order of the forward pass.

    Parameters
    ----------
    spec : Spec
    height, width : int
        Of the image, in pixels.

    Raises
    ------
    UsageError
        ``spec`` is something else, or a side is not a whole number from 1.
    """
    check_spec(spec)
    if not all(isinstance(side, int) and 0 < side <= 2**16 for side in (height, width)):
        raise UsageError(f"the image is {height} x {width}: expected whole numbers from 1 to 65536")
    params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
    weights = {id(one) for one in params.values()}
    found = []
    for call in trace(params, spec, (1, height, width, spec.channels)).calls:
        if call.op in ("conv2d", "batch_norm", "linear"):
            weight, result = call.args[1].shape, call.out.shape
            # Shortcuts of type A, and means in dilated stages, are computed as convolutions, but
            # they have no weights and are not counted as work.
            if id(call.args[1]) not in weights:
                continue
            own = {"conv2d": 1, "batch_norm": 2, "linear": 1}[call.op] * int(np.prod(weight))
            biased = call.op == "linear" or (call.op == "conv2d" and len(call.args) > 2)
            own += weight[0] if biased else 0
            groups, stride = call.attrs.get("groups", 1), call.attrs.get("stride", 1)
            work = macs(call, result)
            found.append(Layer(call.name, call.op, weight, result[1:], groups, stride, own, work))
    return found


def norm_values(spec: Spec, x_shape: Sequence[int], frozen: Collection[str] = ()) -> dict[str, int]:
    """Return over how many values each trained batch norm takes a channel's mean and variance.

    Parameters
    ----------
    spec : Spec
    x_shape : (n, h, w, channels)
        Of a mini-batch.
    frozen : collection of str
        As for `tinyresnext.network.trace.trace`.

    Returns
    -------
    dict of str to int
        n x h x w of each layer's own input, by the name of the layer, in order.

    Raises
    ------
    ValueError
        The network leaves nothing of an input of that shape.
    """
    params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
    calls = trace(params, spec, x_shape, training=True, frozen=frozen).calls
    norms = [call for call in calls if call.op == "batch_norm_train"]
    return {call.name: int(np.prod(call.out.shape[:3])) for call in norms}


def block_parameters(c_in: int, cardinality: int, width: int, c_out: int) -> int:
    """Return the weights of a block's convolutions: Equation 4, ``C (256 d + 3 3 d d + d 256)``.

    Parameters
    ----------
    c_in, c_out : int
        Channels of its input and of its result: both 256 in the paper's example.
    cardinality, width : int
        C paths of d channels.
    """
    return cardinality * (c_in * width + 3 * 3 * width * width + width * c_out)


def totals(found: list[Layer]) -> dict[str, int]:
    """Return the totals that are published under many names.

    Returns
    -------
    dict
        ``params``; ``macs``; ``macs_with_norms`` (two more for each value a norm makes, as timm
        counts); ``activations`` (values that convolutions and the classifier make); ``norms``
        (batch norm layers).
    """
    norms = [layer for layer in found if layer.kind == "batch_norm"]
    work = sum(layer.macs for layer in found)
    return {
        "params": sum(layer.params for layer in found),
        "macs": work,
        "macs_with_norms": work + sum(2 * int(np.prod(layer.result)) for layer in norms),
        "activations": sum(
            int(np.prod(layer.result)) for layer in found if layer.kind != "batch_norm"
        ),
        "norms": len(norms),
    }


def macs(call: Call, shape: Sequence[int]) -> int:
    """Return how many multiplications with a weight a call makes for a result of that shape."""
    if call.op in ("conv2d", "conv2d_int8"):
        return int(np.prod(shape)) * int(np.prod(call.args[1].shape[1:]))
    if call.op == "linear":
        return int(np.prod(shape)) * call.args[1].shape[1]
    return 0
