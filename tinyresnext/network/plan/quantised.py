"""Quantised networks: which values and weights have 8 bits, and the calls that compute with them.

A real number ``v`` is stored as an integer ``q`` with ``v = scale * q`` (Jacob et al. 2018,
arXiv:1712.05877, with a zero point of 0). A filter of a convolution has a scale of its own, and so
has each value between the calls. A sum of products of integers is then the sum of the products of
the real numbers, divided by both scales::

    sum of w_i x_i  =  scale_w * scale_x * (sum of q_i p_i)

The batch norm behind the convolution multiplies each channel by a number, which joins the other
two in one factor. So folding it into the weights first would lead to the same integers.

The convolutions of all blocks have 8 bits, shortcuts included. Everything else is float32: the
stem, which sees three channels only, squeeze and excitation, poolings, dilated convolutions, and
the classifier. Where a value goes from one to the other, a call `quantise` stands between.

**Scales of weights.** The largest weight of a filter is 127 steps. The scale has 17 bits, so every
product of it with an integer up to 127 has 24 and is exact in float32. From such weights, scales
and integers are found again, every bit of them (`split`): the parameters of a quantised model are
float32 arrays like those of any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import PrecisionError, UsageError
from ...ops.contract import Array, Integer
from ...ops.shapes.integer import MOST_DEPTH
from ..count import macs
from ..rewrite import affine, for_inference
from ..spec import Spec, parameters
from ..tape import Call, stand_in
from ..trace import Calls, inputs, trace

LEVELS = 127  # of a weight
BITS = 17  # of a weight's scale
LEAST = 1e-30  # a filter whose largest weight is below it is zero
POOLS = ("max_pool2d", "avg_pool2d", "blur_pool", "mean_pool")
METHODS = ("maximum", "percentile", "squares")  # how the scale of a value was chosen


class Scale(NamedTuple):
    """The scale of a value between two calls.

    Attributes
    ----------
    scale : float
        A number of float32.
    method : {"maximum", "percentile", "squares"}
    error : float
        What rounding took from the value on other images than those that the scale was chosen
        from: the sum of the squared errors, divided by that of the squared values.
    """

    scale: float
    method: str
    error: float


@dataclass(frozen=True)
class Quantisation:
    """How a network is quantised, beside its weights.

    Attributes
    ----------
    scales : mapping of str to Scale
        By the name of the layer that makes the value; those that `integer_values` names.
    images : int
        The number of images that the scales were found with.
    """

    scales: Mapping[str, Scale]
    images: int


def covered(call: Call) -> bool:
    """Return whether a call is a convolution that is computed with integers."""
    return (
        call.op == "conv2d"
        and len(call.args) == 2
        and call.name.startswith("layer")
        and ".se." not in call.name
        and call.attrs.get("dilation", 1) == 1
        and prod(call.args[1].shape[1:]) <= MOST_DEPTH
    )


def integer_values(calls: Calls) -> dict[str, bool]:
    """Return the names of the values that have 8 bits, and whether each has negative numbers."""
    makers = {id(call.out): call for call in calls}

    def signed(call: Call) -> bool:
        if call.op in POOLS and id(call.args[0]) in makers:
            return signed(makers[id(call.args[0])])
        return call.op != "relu" and not call.attrs.get("relu", False)

    found = {}
    for call in calls:
        if covered(call):
            for value in _read(call):
                maker = makers[id(value)]
                found[maker.name] = signed(maker)
    return found


class Parts(NamedTuple):
    """What has 8 bits in the networks of an architecture.

    Attributes
    ----------
    weights : tuple of str
        Names of parameters.
    values : dict of str to bool
        As `integer_values` returns them.
    reads : dict of str to tuple of str
        For each convolution that is computed with integers, the values that it reads: x and, where
        one is added, the residual.
    work : float
        The part of all multiply-adds that is done with integers, for an image of 256 x 256.
    """

    weights: tuple[str, ...]
    values: dict[str, bool]
    reads: dict[str, tuple[str, ...]]
    work: float


@cache
def integer_parts(spec: Spec) -> Parts:
    """Return what has 8 bits in the networks of an architecture.

    A network that cannot take an image of 256 x 256 is a `UsageError`.
    """
    shapes = parameters(spec)
    params = {name: stand_in(shape) for name, shape in shapes.items()}
    try:
        calls = for_inference(trace(params, spec, (1, 256, 256, spec.channels)).calls)
    except ValueError as error:
        raise UsageError(
            f"{spec.name} makes an image of 256 x 256 too small, so it has no 8 bits; use float32"
        ) from error
    made = {id(call.out): call.name for call in calls}
    reads = {call.name: tuple(made[id(v)] for v in _read(call)) for call in calls if covered(call)}
    names = [f"{name}.weight" for name in reads]
    work = [macs(call, call.out.shape) for call in calls]
    done = sum(count for call, count in zip(calls, work, strict=True) if covered(call))
    weights = tuple(name for name in names if name in shapes)
    return Parts(weights, integer_values(calls), reads, done / sum(work))


def _read(call: Call) -> list[Any]:
    """Return the values that a covered convolution reads."""
    return [value for value in inputs(call) if value is not call.args[1]]


# --- weights --------------------------------------------------------------------------------------


def split(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the integers of a weight, int8 from -127 to 127, and the scale of each filter.

    Their product is what `rounded` returns.
    """
    rows = weight.reshape(len(weight), -1)
    largest = np.maximum(rows.max(1), -rows.min(1)).astype(np.float64)
    parts, powers = np.frexp(largest / LEVELS)
    scale = np.ldexp(np.rint(np.ldexp(parts, BITS)), powers - BITS)
    scale[largest < LEAST] = 1
    integers = np.rint(rows / scale[:, None]).astype(np.int8)
    return integers.reshape(weight.shape), scale.astype(np.float32)


def rounded(weight: np.ndarray) -> np.ndarray:
    """Return the weight that the integers of `split` stand for; of such a weight, itself."""
    return joined(*split(weight))


def joined(integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the float32 weight that integers and scales stand for: each product is exact."""
    lead: np.ndarray = scale.reshape(-1, *(1,) * (integers.ndim - 1))
    with np.errstate(invalid="ignore", over="ignore"):  # readers check what is not finite
        return integers.astype(np.float32) * lead


# --- calls ----------------------------------------------------------------------------------------


def in_integers(calls: Calls, scales: Mapping[str, Scale]) -> Calls:
    """Rewrite calls that `tinyresnext.network.rewrite.for_inference` returned.

    The covered convolutions become ``conv2d_int8``, still with the weights and the norms of the
    network, and ``x_scale``, the scale of what they read: `with_weight` completes each. A value
    that only such convolutions read, and one of them makes, is made with 8 bits. Any other stays
    float32, and a ``quantise`` stands before the first of them that reads it.
    """
    signed = integer_values(calls)
    names = {id(call.out): call.name for call in calls}
    makes = {id(call.out) for call in calls if covered(call)}
    floats = {id(value) for call in calls if not covered(call) for value in inputs(call)}
    eight: dict[int, Any] = {}
    made: Calls = []

    def narrow(value: Any, reader: Call) -> Any:
        if id(value) not in eight:
            name = names[id(value)]
            out = _bytes(value, signed[name])
            attrs = {"scale": scales[name].scale, "signed": signed[name]}
            made.append(Call("quantise", (value,), attrs, out, f"{reader.name}.quantise"))
            eight[id(value)] = out
        return eight[id(value)]

    for call in calls:
        if not covered(call):
            made.append(call)
            continue
        x, weight = call.args
        attrs = call.attrs | {"x_scale": scales[names[id(x)]].scale}
        if "residual" in attrs:
            residual = attrs["residual"]
            attrs["residual_scale"] = scales[names[id(residual)]].scale
            attrs["residual"] = narrow(residual, call)
        source, out = narrow(x, call), call.out
        if call.name in signed and id(out) in makes and id(out) not in floats:
            attrs["scale"] = scales[call.name].scale
            out = eight[id(call.out)] = _bytes(out, signed[call.name])
        made.append(replace(call, op="conv2d_int8", args=(source, weight), attrs=attrs, out=out))
    return made


def with_weight(call: Call, ops: Integer, upload: Any) -> Call:
    """Return a ``conv2d_int8`` with its weight packed, and its batch norm and scales in a factor.

    Raises
    ------
    PrecisionError
        A factor or a bias is not finite in float32.
    """
    attrs, (x, weight) = dict(call.attrs), call.args
    integers, scale = split(np.asarray(weight))
    factor, bias = np.ones(len(weight)), np.zeros(len(weight))
    if "norm" in attrs:
        factor, bias = affine(attrs.pop("norm"))
    with np.errstate(over="ignore"):
        found = [(attrs.pop("x_scale") * scale * factor).astype(np.float32)]
        found.append(np.asarray(bias, np.float32))
    if not all(np.isfinite(row).all() for row in found):
        raise PrecisionError(
            f"{call.name} has a batch norm that is too large for float32; use other weights"
        )
    packed: Array = ops.pack_int8(integers, attrs.get("groups", 1))
    return replace(call, args=(x, packed, *map(upload, found)), attrs=attrs)


def between_floats(x: Any, calls: tuple[Call, ...], scale: float | None) -> tuple[Any, list[Call]]:
    """Let some calls begin and end with float32: what they read and make of 8 bits is converted.

    Parameters
    ----------
    x : stand-in
        What they read.
    calls : tuple of Call
    scale : float, optional
        Of ``x``, if that has 8 bits.

    Returns
    -------
    x : stand-in
        What they read now.
    calls : list of Call
    """
    found, last = list(calls), calls[-1]
    if is_integer(x):
        source = stand_in(x.shape)
        attrs = {"scale": scale, "signed": x.dtype == np.int8}
        found.insert(0, Call("quantise", (source,), attrs, x, f"{calls[0].name}.quantise"))
        x = source
    if is_integer(last.out):
        attrs = {"scale": last.attrs["scale"]}
        out = stand_in(last.out.shape)
        found.append(Call("dequantise", (last.out,), attrs, out, f"{last.name}.dequantise"))
    return x, found


def is_integer(value: Any) -> bool:
    """Return whether a stand-in is of a value of 8 bits."""
    return bool(value.dtype.itemsize == 1)


def _bytes(value: Any, signed: bool) -> np.ndarray:
    """Return a stand-in of 8 bits of the same shape."""
    return stand_in(value.shape, np.int8 if signed else np.uint8)
