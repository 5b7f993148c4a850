"""bfloat16: what it is, rounding to it in NumPy, and a backend that computes in it.

A bfloat16 is the upper half of a float32: its sign, its 8 bits of exponent, and 7 bits of fraction.
So it reaches as far as float32, and has 3 decimal digits instead of 7. NumPy has no such type, and
memory holds these numbers as uint16 (`HALF`).

**Training.** Activations, and the gradients of activations, are rounded where they are stored:
between two ops. Weights are float32 (the masters, which the optimiser changes); a convolution and
its gradients read them rounded. A product of two bfloat16 is exact in float32, and sums are
float32; a gradient that is added to one that is there is rounded after that. Statistics of batch
norms, gradients of weights, pooled features [n, c], the classifier and the loss are float32. (Means
[n, 1, 1, c], which dropout and squeeze and excitation read, are activations as any other, so pooled
features have been rounded where there is dropout.) The exponents are those of float32, so no
gradient is too small for bfloat16 that is not too small for float32; therefore the loss needs no
scaling, which float16 needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..errors import DeviceError
from . import shapes
from .contract import Array, Backend

HALF = np.dtype(np.uint16)
# Logits, probabilities and losses stay float32.
NOT_ROUNDED = ("linear", "softmax", "softmax_cross_entropy", "binary_cross_entropy")


class Limits(NamedTuple):
    """What a precision is.

    Attributes
    ----------
    dtype : NumPy type
        What memory holds its numbers as.
    epsilon : float
        The distance from 1 to the next number.
    largest : float
        The largest number.
    """

    dtype: np.dtype
    epsilon: float
    largest: float


def limits(precision: str) -> Limits:
    """Return what a precision is, by its name."""
    if precision == "bfloat16":
        return Limits(HALF, 2.0**-7, float(widened(np.uint16(0x7F7F))))
    found = np.finfo(precision)
    return Limits(np.dtype(precision), float(found.eps), float(found.max))


def rounded(values: Any) -> Array:
    """Return float32 as bfloat16: the nearest number, and of two that are as near the even one.

    What is larger than every number becomes infinite, and not-a-number stays so.

    Parameters
    ----------
    values : float32, any shape

    Returns
    -------
    uint16, the same shape
    """
    bits = np.asarray(values, np.float32).view(np.uint32)
    with np.errstate(over="ignore"):  # only the bits of what is not a number overflow
        nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    missing = (bits & np.uint32(0x7FFFFFFF)) > 0x7F800000
    return np.where(missing, (bits >> 16) | 0x40, nearest).astype(np.uint16)


def widened(halves: Any) -> Array:
    """Return bfloat16 as float32, which has all of its numbers.

    Parameters
    ----------
    halves : uint16, any shape

    Returns
    -------
    float32, the same shape
    """
    return (np.asarray(halves, np.uint16).astype(np.uint32) << 16).view(np.float32)


# --- the backend ----------------------------------------------------------------------------------


class BFloat16:
    """A backend on a processor that stores activations and their gradients in bfloat16.

    Sums are float32, a result is rounded once, and logits are not rounded. What it does not have is
    a function of the backend in float32, which it is made for. ``out`` says what a result is, and
    on the processor ``x`` is that too; the reference takes either as it comes.

    Attributes
    ----------
    device : {"cpu", "reference"}
    base : Backend
        The backend of the device in float32.
    words : bool, optional
        Whether convolutions multiply words of two numbers; by default, if the processor has an
        instruction for it.
    precision : str
    """

    precision = "bfloat16"

    def __init__(self, device: str, base: Backend, words: bool | None = None) -> None:
        self.device, self.base, self.words = device, base, words
        self.__name__ = base.__name__

    def __getattr__(self, name: str) -> Any:
        """Return an op, or a function of the backend in float32."""
        if name in shapes.OPS:
            return partial(self._call, name)
        if name.removesuffix("_backward") in shapes.OPS:
            return partial(self._gradients, name)
        if name.startswith("__") or name == "base":  # while a copy is made, it has no base
            raise AttributeError(name)
        return getattr(self.base, name)

    def __repr__(self) -> str:
        return f"<backend {self.__name__} in bfloat16>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the names of device and precision: a copy is the backend of the same ones."""
        from . import backend

        return backend, (self.device, self.precision)

    def described(self) -> str:
        """Return what computes, and whether it has instructions for bfloat16."""
        if self.device == "reference":
            return f"{self.base.described()}, in bfloat16"
        from .cpu.runtime.simd.bfloat16 import multiplies

        if multiplies():
            return f"{self.base.described()}, in bfloat16, by its instruction for it (AVX512-BF16)"
        return (
            f"{self.base.described()}, in bfloat16, by instructions for float32: it has none for "
            "bfloat16 (AVX512-BF16), so products are no faster"
        )

    # --- placing ----------------------------------------------------------------------------------

    def empty(self, shape: Sequence[int], dtype: Any = np.float32) -> Array:
        """Return new memory, not yet filled; ``dtype`` may be ``"bfloat16"``."""
        return self.base.empty(
            shape, HALF if isinstance(dtype, str) and dtype == "bfloat16" else dtype
        )

    def upload(self, array: Any, out: Array | None = None) -> Array:
        """Return an array as the backend takes it; into ``out`` of bfloat16 it is rounded."""
        if out is None or out.dtype != HALF:
            return self.base.upload(array, out)
        array = np.ascontiguousarray(array)
        if array.dtype == HALF:
            np.copyto(out, array)
        elif self.device == "reference":
            np.copyto(out, rounded(array))
        else:
            from .cpu.elementwise import bind_convert

            bind_convert(array.astype(np.float32, copy=False), out)()
        return out

    def download(self, array: Array) -> np.ndarray:
        """Return the values as float32."""
        return widened(array) if array.dtype == HALF else self.base.download(array)

    def pack(self, weight: Array, groups: int) -> Any:
        """Round the weight of a convolution, and lay it out as ``conv2d`` reads it fastest."""
        if self.device == "reference":
            return rounded(weight)
        from .cpu.conv.forward import pack_rounded

        return pack_rounded(weight, groups, self.words)

    # --- running ----------------------------------------------------------------------------------

    def bind(self, op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
        """Prepare a call, which rounds what the weight of a convolution then holds.

        Beside bfloat16, the weight of a classifier is rounded now, once.
        """
        if op.removesuffix("_backward") not in shapes.OPS:
            raise _not_here(op)
        if self.device == "reference":
            compute = _gradients_in_numpy if op.endswith("_backward") else _in_numpy
            return partial(compute, self.base, op, args, attrs)
        if op == "conv2d" and isinstance(args[1], np.ndarray):
            from .cpu.conv.forward import pack_rounded, repacking
            from .cpu.runtime.crew import Chain

            groups = attrs.get("groups", 1)
            packed, refill = repacking(args[1], lambda w: pack_rounded(w, groups, self.words))
            call = self.base.bind(op, args[0], packed, *args[2:], **attrs)
            return Chain([refill, call])
        if op == "conv2d_backward" and _is_half(args[0]):
            attrs["words"] = self.words
        if op == "linear_backward" and _is_half(args[2]) and not _is_half(args[0]):
            return partial(_gradients_in_numpy, self.base, op, args, attrs)  # of logits: small
        given = _weights_rounded(op, args) if op == "linear" else args
        return self.base.bind(op, *given, **attrs)

    def _call(self, op: str, *args: Any, out: Array | None = None, **attrs: Any) -> Array:
        """Make a call once, into ``out`` if that is given."""
        if op == "conv2d" and isinstance(args[1], np.ndarray) and not _is_half(args[1]):
            args = (args[0], self.pack(args[1], attrs.get("groups", 1)), *args[2:])
        known = {name: a for name, a in attrs.items() if name != "reduce"}
        shape = getattr(shapes, op)(*args, **known, out=out)
        if out is None:
            out = self.empty(shape, np.float32 if op in NOT_ROUNDED else self.precision)
        self.bind(op, *args, **attrs, out=out)()
        return out

    def _gradients(self, op: str, dy: Array, y: Array, *args: Any, **attrs: Any) -> tuple[Any, ...]:
        """Compute gradients once: each is what its argument is, bfloat16 or float32."""
        out = tuple(None if a is None else self.empty(a.shape, a.dtype) for a in args)
        self.bind(op, dy, y, *args, **attrs, out=out, more=(False,) * len(args))()
        return out


def _in_numpy(base: Backend, op: str, args: Sequence[Any], attrs: dict[str, Any]) -> None:
    """Widen what is bfloat16, compute in float32, and round the result if ``out`` is bfloat16."""
    given, out = _given(attrs), attrs["out"]
    y = getattr(base, op)(*map(_widened, _weights_rounded(op, args)), **given)
    np.copyto(out, rounded(y) if _is_half(out) else y)


def _gradients_in_numpy(base: Backend, op: str, args: Sequence[Any], attrs: dict[str, Any]) -> None:
    """Widen what is bfloat16, compute in float32, and round each sum that is stored in bfloat16."""
    found = getattr(base, op)(*map(_widened, _weights_rounded(op, args)), **_given(attrs))
    for place, more, gradient in zip(attrs["out"], attrs["more"], found, strict=False):
        if place is not None:
            total = _widened(place) + gradient if more else gradient
            np.copyto(place, rounded(total) if _is_half(place) else total)


def _given(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that a function of the reference takes."""
    given = {name: a for name, a in attrs.items() if name not in ("out", "more")}
    return given | {name: _widened(a) for name, a in given.items() if name == "residual"}


def _weights_rounded(op: str, args: Sequence[Any]) -> Sequence[Any]:
    """Return the arguments, with the weight rounded where it meets bfloat16."""
    place = {"conv2d": 1, "conv2d_backward": 3}.get(op)
    if op == "linear" and _is_half(args[0]):
        place = 1
    return [_narrow(a) if number == place else a for number, a in enumerate(args)]


def _is_half(a: Any) -> bool:
    """Return whether something is an array of bfloat16."""
    return getattr(a, "dtype", None) == HALF


def _widened(a: Any) -> Any:
    """Return an array of bfloat16 as float32, and anything else itself."""
    return widened(a) if _is_half(a) else a


def _narrow(weight: Any) -> Any:
    """Return a weight as bfloat16, whether it is so already or not."""
    return weight if _is_half(weight) else rounded(weight)


def _not_here(name: str) -> DeviceError:
    """Return the error for what is computed in float32 only."""
    return DeviceError(
        f"{name} is computed in float32 only, and bfloat16 is asked for; compute in float32 "
        "(precision='float32', --precision float32)"
    )
