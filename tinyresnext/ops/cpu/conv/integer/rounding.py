"""From float32 to 8 bits and back, value by value (`quantise`, `dequantise`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .... import shapes
from ....shapes.integer import inverse_of
from ...runtime.crew import Step
from ...runtime.memory import Array, empty, upload
from ...runtime.tasks import finished, in_tasks, next_task
from .epilogue import MAGIC
from .forward import BYTES, flat_bytes, flat_of

LENGTH = 32 * 1024  # values of a task
ROUNDING = np.float32(MAGIC)
FLOAT = (np.dtype(np.float32),)


class Rounded(NamedTuple):
    """The numbers of a pass over values."""

    values: int
    sign: int  # 128 if the bytes are of signed numbers, else 0
    length: int  # values of a task
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@in_tasks(Rounded)
def _quantise(x, terms, out, g, counters):
    """Round as `epilogue` does, with an addition and a subtraction."""
    inverse, low, high = terms[0], terms[1], terms[2]
    made, task = out.view(np.uint8), next_task(counters)
    while task < g.tasks:
        for i in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.values))):
            value = min(max(x[i] * inverse, low), high)
            made[i] = np.int32((value + ROUNDING) - ROUNDING) & 255
        task = next_task(counters)
    finished(counters)


@in_tasks(Rounded)
def _dequantise(x, terms, out, g, counters):
    """Multiply by the scale."""
    scale, values, task = terms[0], x.view(np.uint8), next_task(counters)
    while task < g.tasks:
        for i in range(np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.values))):
            out[i] = np.float32((np.int32(values[i]) ^ g.sign) - g.sign) * scale
        task = next_task(counters)
    finished(counters)


# --- public ops -----------------------------------------------------------------------------------


def quantise(x: Array, *, scale: float, signed: bool = False, out: Array | None = None) -> Array:
    """Make one pass over the values; see `tinyresnext.ops.shapes.quantise`."""
    y = empty(x.shape, np.int8 if signed else np.uint8) if out is None else out
    bind_quantise(x, scale=scale, signed=signed, out=y)()
    return y


def bind_quantise(
    x: Array, *, scale: float, signed: bool = False, out: Array
) -> Callable[[], None]:
    """Prepare a call."""
    shapes.quantise(x, scale=scale, signed=signed, out=out)
    kind = (np.dtype(np.int8 if signed else np.uint8),)
    target = flat_of("quantise", "out", out, kind).view(np.uint8)
    low, high = (-127, 127) if signed else (0, 255)
    terms = upload(np.array([inverse_of(scale), low, high], np.float32))
    source = flat_of("quantise", "x", x, FLOAT)
    return Step(_quantise, _numbers(x.size, signed), x=source, terms=terms, out=target)


def dequantise(x: Array, *, scale: float, out: Array | None = None) -> Array:
    """Make one pass over the values; see `tinyresnext.ops.shapes.dequantise`."""
    y = empty(x.shape) if out is None else out
    bind_dequantise(x, scale=scale, out=y)()
    return y


def bind_dequantise(x: Array, *, scale: float, out: Array) -> Callable[[], None]:
    """Prepare a call."""
    shapes.dequantise(x, scale=scale, out=out)
    source, target = flat_bytes("dequantise", "x", x), flat_of("dequantise", "out", out, FLOAT)
    terms = upload(np.array([scale], np.float32))
    numbers = _numbers(x.size, x.dtype == BYTES[0])
    return Step(_dequantise, numbers, x=source, terms=terms, out=target)


def _numbers(values: int, signed: bool) -> Rounded:
    """Cut into tasks."""
    return Rounded(values, 128 if signed else 0, LENGTH, -(-values // LENGTH))
