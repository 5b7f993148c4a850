"""Batch normalisation with known statistics, and its gradients.

Bound by memory: one pass, which may write in place. A plan folds it into the convolution before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ... import shapes
from ..runtime.arrays import (
    STORED,
    DeviceArray,
    check,
    empty,
    empty_like,
    same_type,
    scratch,
    upload,
)
from ..runtime.call import Call
from ..runtime.kernel import Kernel, ending, float32, floats, int32, pointer
from ..runtime.machine import Launch
from ..words import get, load4, put, store4
from .sums import PASSED, Given, spread, summed
from .tile import EACH, ROWS, THREADS, even, taken, tiled

# --- kernels --------------------------------------------------------------------------------------


@cache
def normalise_kernel(kind: Any = floats) -> Kernel:
    """Return the kernel of ``(x - mean) * factor + shift`` and its epilogue."""

    def run(x, norm, residual, y, add, relu, size, channels, columns, length, tiles):
        t, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        _, column, c, row, last = taken(t, block, size, channels, columns, length, tiles)
        mean, factor, shift, _ = load4(norm, int32(c * int32(EACH)), 0, 16)
        while row < last:
            i = int32(row * columns + column)
            value = (get(x, i) - mean) * factor + shift
            if add != int32(0):
                value += get(residual, i)
            if relu != int32(0) and value <= float32(0):
                value = float32(0)
            put(y, i, value)
            row = int32(row + int32(ROWS))

    pointers, numbers = (kind, floats, kind, kind), (int32,) * 7
    return Kernel(f"normalise{ending(kind)}", run, (*pointers, *numbers), THREADS)


@cache
def scaled_kernel() -> Kernel:
    """Return the kernel of a channel's ``norm``: ``mean, scale / sqrt(var + eps), shift, 0``."""

    def run(mean, var, scale, shift, norm, eps, channels):
        c = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if c < channels:
            each = mean[c], scale[c] / math.sqrt(var[c] + eps), shift[c], float32(0)
            store4(norm, int32(c * int32(EACH)), each, 16)

    return Kernel("norm_scaled", run, (*(floats,) * 5, float32, int32), THREADS)


@cache
def statistics_gradients_kernel() -> Kernel:
    """Return the kernel of the gradients of mean and variance where these are constants.

    They are ``-sum(dy) * scale * rstd`` and ``-sum(dy * (x - mean)) * scale * rstd**3 / 2``.
    """

    def run(sums, var, scale, dmean, dvar, eps, channels, more):
        c = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if c < channels:
            _, _, centred, total = load4(sums, int32(c * int32(EACH)), 0, 16)
            spread = var[c] + eps
            factor = scale[c] / math.sqrt(spread)
            by_mean = -total * factor
            by_var = -centred * factor / spread * float32(0.5)
            if more & int32(1) != int32(0):
                by_mean += dmean[c]
            dmean[c] = by_mean
            if more & int32(2) != int32(0):
                by_var += dvar[c]
            dvar[c] = by_var

    return Kernel("norm_statistics", run, (*(floats,) * 5, float32, int32, int32), THREADS)


# --- launches -------------------------------------------------------------------------------------


def scaled(
    mean: DeviceArray,
    var: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    norm: DeviceArray,
    eps: float,
) -> Launch:
    """Return the launch of ``norm``, [even(c), 4]: what a norm multiplies by and adds."""
    c = scale.size
    arguments = mean, var, scale, shift, norm, eps, c
    return Launch(scaled_kernel(), -(-c // THREADS), arguments)


def normalised(
    x: DeviceArray,
    norm: DeviceArray,
    residual: DeviceArray | None,
    out: DeviceArray,
    relu: bool = False,
) -> Launch:
    """Return the launch that normalises, adds the residual if there is one, and may take a ReLU."""
    g = tiled(x.shape)
    numbers = int(residual is not None), int(relu), *g.walk
    return Launch(normalise_kernel(pointer(x)), g.blocks, (x, norm, residual, out, *numbers))


# --- public op ------------------------------------------------------------------------------------


def batch_norm(
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    *,
    eps: float = 1e-5,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Compute a factor for each channel, and then make one pass over the values."""
    y = empty(check("batch_norm", STORED, x=x), x.shape, x.dtype) if out is None else out
    bind_batch_norm(x, scale, shift, mean, var, eps=eps, out=y)()
    return y


def bind_batch_norm(
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    *,
    eps: float = 1e-5,
    out: DeviceArray,
) -> Call:
    """Bind two launches."""
    shapes.batch_norm(x, scale, shift, mean, var, eps=eps, out=out)
    machine = check("batch_norm", scale=scale, shift=shift, mean=mean, var=var)
    check("batch_norm", STORED, x=x, scale=scale, out=out)
    same_type("batch_norm", x=x, out=out)
    norm = scratch(machine, (even(x.shape[-1]), EACH))
    first = scaled(mean, var, scale, shift, norm, eps)
    return Call(machine, [first, normalised(x, norm, None, out)], out)


def batch_norm_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    *,
    eps: float = 1e-5,
) -> tuple[DeviceArray | None, ...]:
    """Compute all gradients; the statistics are constants."""
    out = empty_like(x, scale, shift, mean, var)
    bind_batch_norm_backward(
        dy, y, x, scale, shift, mean, var, eps=eps, out=out, more=(False,) * 5
    )()
    return out


def bind_batch_norm_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    *,
    eps: float = 1e-5,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind the sums over each channel, and one multiplication a value."""
    op, (dx, dscale, dshift, dmean, dvar), c = "batch_norm_backward", out, x.shape[-1]
    machine = check(
        op, dy=dy, x=x, scale=scale, shift=shift, mean=mean, var=var, dx=dx, dscale=dscale,
        dshift=dshift, dmean=dmean, dvar=dvar,
    )  # fmt: skip
    norm, sums = (scratch(machine, (even(c), EACH)) for _ in range(2))
    # The means are part of the gradient only where the statistics depend on the values.
    no_means = upload(machine, np.zeros((even(c), EACH), np.float32))
    given = Given(x, None, dy, norm, var, eps, PASSED)
    places = [scratch(machine, (c,)) if a is None else a for a in (dmean, dvar)]
    added = sum(bit for bit, a, add in zip((1, 2), out[3:], more[3:], strict=True) if a and add)
    numbers = eps, c, added
    last = Launch(
        statistics_gradients_kernel(), -(-c // THREADS), (sums, var, scale, *places, *numbers)
    )
    return Call(
        machine,
        [
            scaled(mean, var, scale, shift, norm, eps),
            *summed(given, sums, (dscale, dshift), more[1:3]),
            last,
            *spread(given, no_means, dx, None, (more[0], False)),
        ],
    )
