"""bfloat16: what it is, rounding to it in NumPy, and a backend that computes in it.

A bfloat16 is the upper half of a float32: its sign, its 8 bits of exponent, and 7 bits of fraction.
So it reaches as far as float32, and has 3 decimal digits instead of 7. NumPy has no such type, and
memory holds these numbers as uint16 (`HALF`).
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
OPS = (
    *("conv2d", "batch_norm", "relu", "add", "excite", "max_pool2d", "avg_pool2d", "blur_pool"),
    *("mean_pool", "linear", "softmax"),
)
NOT_ROUNDED = ("linear", "softmax")  # logits and probabilities stay float32
# The ops whose kernels on the processor take bfloat16; of the others, it is widened before.
KERNELS = tuple(op for op in OPS if op not in ("batch_norm", "relu", "add", "softmax"))


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
    """A backend that stores activations and weights in bfloat16: for inference, on a processor.

    Sums are float32, a result is rounded once, and logits are not rounded. What it does not have is
    a function of the backend in float32, which it is made for.

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
        if name in OPS:
            return partial(self._call, name)
        if name.startswith("__") or name == "base":  # while a copy is made, it has no base
            raise AttributeError(name)
        if name in shapes.OPS or name.endswith(("_backward", "_step")):
            raise _not_here(name)
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
        """Prepare a call; ``out`` is bfloat16, or float32 for what is not rounded."""
        if op not in OPS:
            raise _not_here(op)
        if op == "linear":
            args = (args[0], _narrow(args[1]), *args[2:])
        elif op == "conv2d" and isinstance(args[1], np.ndarray) and not _is_half(args[1]):
            args = (args[0], self.pack(args[1], attrs.get("groups", 1)), *args[2:])
        if self.device == "reference":
            return partial(_in_numpy, getattr(self.base, op), args, attrs)
        return self.base.bind(op, *args, **attrs) if op in KERNELS else self._wide(op, args, attrs)

    def _wide(self, op: str, args: Sequence[Any], attrs: dict[str, Any]) -> Callable[[], Any]:
        """Prepare a call in float32, between steps that widen and round."""
        from .cpu.elementwise import bind_convert

        calls: list[Callable[[], Any]] = []

        def wide(a: Any) -> Any:
            if not _is_half(a):
                return a
            calls.append(bind_convert(a, made := self.base.empty(a.shape)))
            return made

        given, out = [wide(a) for a in args], attrs["out"]
        target = self.base.empty(out.shape) if _is_half(out) else out
        calls.append(self.base.bind(op, *given, **attrs | {"out": target}))
        if target is not out:
            calls.append(bind_convert(target, out))
        return self.base.chain(calls)

    def _call(self, op: str, *args: Any, out: Array | None = None, **attrs: Any) -> Array:
        """Make a call once, into ``out`` if that is given."""
        shape = getattr(shapes, op)(*args, **attrs, out=out)
        if out is None:
            out = self.empty(shape, np.float32 if op in NOT_ROUNDED else self.precision)
        self.bind(op, *args, **attrs, out=out)()
        return out


def _in_numpy(call: Callable[..., Array], args: Sequence[Any], attrs: dict[str, Any]) -> None:
    """Widen what is bfloat16, compute in float32, and round the result if ``out`` is bfloat16."""
    out = attrs["out"]
    given = {name: _widened(a) for name, a in attrs.items() if name != "out"}
    y = call(*map(_widened, args), **given)
    np.copyto(out, rounded(y) if _is_half(out) else y)


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
