"""What the graph of a quantised network has besides: QuantizeLinear and DequantizeLinear.

A value of 8 bits is a float that goes through both, and so do the weights of a convolution that
computes with integers. All other nodes are those of float32: a program that knows the pattern
multiplies integers, and any other computes nearly the same in float32. ONNX rounds to the nearest
even integer, as `tinyresnext.ops.shapes.integer` does, and between the same operations. One thing
differs: of values with a sign, the least integer is -128 in ONNX, and -127 here.

A batch norm has to be folded into the convolution before it, since programs know no norm between
this and QuantizeLinear. It joins the scales of the filters. Biases are float32, but ONNX Runtime
makes 32-bit integers of them, and 1.32 does not look whether they fit: see `filters`.

Source: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import PrecisionError
from ....network.plan.quantised import Quantisation, integer_parts, split
from ....network.rewrite import affine
from ....network.spec import Spec, parameters
from ....network.tape import stand_in
from ....network.trace import trace

__all__ = ["Filters", "Integers", "filters"]

MOST = 2.0**30  # steps of a bias, which leaves room for the sums of products


class Filters(NamedTuple):
    """A weight of 8 bits.

    Attributes
    ----------
    integers : [c_out, c_in / groups, k_h, k_w] int8
    scale : [c_out] float32
        A positive number for each filter.
    bias : [c_out] float32, or None
    """

    integers: NDArray
    scale: NDArray
    bias: NDArray | None


class Integers:
    """Which convolutions compute with integers, and with which scales.

    Parameters
    ----------
    spec : Spec
    quantisation : Quantisation
    """

    def __init__(self, spec: Spec, quantisation: Quantisation) -> None:
        params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
        calls = trace(params, spec, (1, 256, 256, spec.channels)).calls
        self._convolutions = iter([call.name for call in calls if call.op == "conv2d"])
        self._scales, self._parts = quantisation.scales, integer_parts(spec)

    def next(self) -> tuple[str, ...]:
        """Return the values of 8 bits that the next convolution of `forward` reads, by their names.

        They are x and, where one is added, the residual; none if it computes in float32.
        """
        return self._parts.reads.get(next(self._convolutions), ())

    def scale(self, value: str) -> tuple[NDArray, NDArray]:
        """Return the scale of a value, and the zero of its type: int8 if it has a sign."""
        zero = np.zeros((), np.int8 if self._parts.values[value] else np.uint8)
        return np.array(self._scales[value].scale, "<f4"), zero


def filters(
    name: str, weight: NDArray, x_scale: NDArray, norm: Sequence[Any] | None = None
) -> Filters:
    """Return a weight with a batch norm in its scales, and in a bias.

    A negative factor of the norm changes the signs of the integers, since ONNX's scales are
    positive. Where the scale would be zero, or too small for a normal number of float32, the
    integers are zero, and the scale is 1.

    A bias is at most 2^30 steps of ``x_scale * scale``. A filter with smaller steps, whose bias is
    far larger than what it computes, gets a larger scale, and its integers are rounded again. Each
    of them then differs by half a step at most, so the result differs by less than
    ``depth * 255 / 2^31`` of the bias.

    Raises
    ------
    PrecisionError
        A scale or a bias is not finite in float32.
    """
    integers, own = split(weight)
    found, bias, least = own.astype(np.float64), None, np.zeros(len(own))
    with np.errstate(over="ignore"):
        if norm is not None:
            factor, shift = affine(norm)
            found, bias = found * factor, shift.astype("<f4")
            least = np.abs(shift) / (MOST * float(x_scale))
        step = np.maximum(np.abs(found), least)
        step[step < np.finfo(np.float32).tiny] = 1
        scale = step.astype("<f4")
    if not np.isfinite(scale).all() or not (bias is None or np.isfinite(bias).all()):
        raise PrecisionError(
            f"{name} has a batch norm that is too large for float32; use other weights"
        )
    kept = (found / step).reshape(-1, *[1] * (weight.ndim - 1))  # 1 or -1 for nearly all filters
    integers = np.rint(integers * kept).astype(np.int8)
    return Filters(integers, scale, bias)
