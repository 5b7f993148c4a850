"""The classifier: one matrix product a picture, and the softmax over it.

With one picture every weight is used once, so `linear` runs as fast as the weights arrive from memory. It needs no
blocking and no packing; each logit is one long dot product.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .. import shapes
from .kernel import kernel
from .launch import launch
from .memory import Array, flat, result

# --- kernels ----------------------------------------------------------------------------------------------------------


@kernel(fastmath={"contract", "reassoc"})  # a dot product is vectors of partial sums only if it may be added in that order
def _dot(x, y):
    """The sum of the products."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@kernel(parallel=True)
def _linear(x, weight, bias, out):
    """Every class; the weights of one class meet all pictures while they are in the cache."""
    for o in prange(weight.shape[0]):
        for n in range(x.shape[0]):
            out[n, o] = _dot(x[n], weight[o]) + bias[o]


@kernel()
def _distribution(x, out):
    """The softmax of one row. The largest logit is taken off first, so that ``exp`` cannot overflow."""
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    total = np.float32(0)
    for i in range(len(x)):
        out[i] = np.exp(x[i] - largest)
        total += out[i]
    for i in range(len(x)):
        out[i] /= total


@kernel()
def _softmax(x, out):
    """Row after row: too little work to share."""
    for n in range(x.shape[0]):
        _distribution(x[n], out[n])


# --- public ops -------------------------------------------------------------------------------------------------------


def linear(x: Array, weight: Array, bias: Array, *, out: Array | None = None) -> Array:
    """One dot product for each picture and class."""
    y = result("linear", shapes.linear(x, weight, bias, out=out), out)
    source, filters = flat("linear", "x", x).reshape(x.shape), flat("linear", "weight", weight).reshape(weight.shape)
    launch(_linear, source, filters, flat("linear", "bias", bias), y)
    return y


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Three passes over each row: the largest, the exponentials with their sum, the division."""
    y = result("softmax", shapes.softmax(x, out=out), out)
    _softmax(flat("softmax", "x", x).reshape(x.shape), y)
    return y
