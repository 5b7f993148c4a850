"""What is done value by value: batch normalisation, ReLU and the residual addition.

All three are bound by memory, not by arithmetic: they read every value once, write it once, and may
write in place. A plan leaves none of them standing, since it folds them into the convolution before
them.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .. import shapes
from .runtime.kernel import kernel
from .runtime.launch import launch
from .runtime.memory import Array, flat, result

# --- kernels --------------------------------------------------------------------------------------


@kernel(parallel=True)
def _batch_norm(x, mean, factor, shift, out):
    """One position after the other, the channels of each in a row."""
    channels = len(mean)
    for position in prange(len(x) // channels):
        at = np.int64(position) * channels
        for c in range(channels):
            out[at + c] = (x[at + c] - mean[c]) * factor[c] + shift[c]


@kernel(parallel=True)
def _relu(x, out):
    """Written so that not-a-number, which is not below zero, stays."""
    for i in prange(len(x)):
        out[i] = np.float32(0) if x[i] < 0 else x[i]


@kernel(parallel=True)
def _add(x, y, out):
    """Value by value."""
    for i in prange(len(x)):
        out[i] = x[i] + y[i]


# --- public ops -----------------------------------------------------------------------------------


def batch_norm(
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """Scale and deviation become one factor for each channel first, in NumPy: a few thousand numbers at most."""
    shape = shapes.batch_norm(x, scale, shift, mean, var, eps=eps, out=out)
    y = result("batch_norm", shape, out)
    scale, var = flat("batch_norm", "scale", scale), flat("batch_norm", "var", var)
    factor = scale / np.sqrt(var + np.float32(eps))
    source, mean, shift = (
        flat("batch_norm", "x", x),
        flat("batch_norm", "mean", mean),
        flat("batch_norm", "shift", shift),
    )
    if y.size:
        launch(_batch_norm, source, mean, factor, shift, y.reshape(-1))
    return y


def relu(x: Array, *, out: Array | None = None) -> Array:
    """One pass over the values."""
    y = result("relu", shapes.relu(x, out=out), out)
    launch(_relu, flat("relu", "x", x), y.reshape(-1))
    return y


def add(x: Array, y: Array, *, out: Array | None = None) -> Array:
    """One pass over the values."""
    z = result("add", shapes.add(x, y, out=out), out)
    launch(_add, flat("add", "x", x), flat("add", "y", y), z.reshape(-1))
    return z
